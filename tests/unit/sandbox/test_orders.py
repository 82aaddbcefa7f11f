"""The order's reader inside the sandbox agrees with its writer in the api."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandrun_sandbox import beneath, orders
from sandrun_shared import orders as shared

plain = st.text(st.characters(exclude_characters="\0", codec="utf-8"))
named = st.text(st.characters(exclude_characters="\0=", codec="utf-8"), min_size=1)


@given(plain, st.lists(plain), st.dictionaries(named, plain), st.lists(plain))
def test_what_is_written_is_read(
    entrypoint: str, args: list[str], env: dict[str, str], outputs: list[str]
) -> None:
    order = shared.Order(entrypoint, tuple(args), env, tuple(outputs))
    read = orders.decode_order(shared.encode_order(order))
    assert (read.entrypoint, read.args, read.env, read.outputs) == (entrypoint, args, env, outputs)


def test_bytes_that_are_no_text_survive() -> None:
    order = shared.Order("a\udcff.py", ("\udcfe",), {"K": "\udcfd=x"}, ("\udcfc*",))
    read = orders.decode_order(shared.encode_order(order))
    assert (read.entrypoint, read.args, read.env) == ("a\udcff.py", ["\udcfe"], {"K": "\udcfd=x"})
    assert read.outputs == ["\udcfc*"]


@pytest.mark.parametrize(
    "data",
    [b"", b"x", b"\0", b"e\0", b"e\x001\0", b"e\x00-1\x000\x000\0", b"e\x000\x001\0novalue\x000\0",
     b"e\x000\x001\0=v\x000\0", b"e\x000\x000\x000\0more\0", b"e\x0099999999999\x000\x000\0"],
)  # fmt: skip
def test_anything_else_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"order|list|entry"):
        orders.decode_order(data)


def test_read_all_starts_at_the_start() -> None:
    fd = os.memfd_create("t")
    os.write(fd, b"x" * 3_000_000)
    assert orders.read_all(fd) == b"x" * 3_000_000
    assert os.lseek(fd, 0, os.SEEK_CUR) == 3_000_000
    os.close(fd)


def test_nothing_is_opened_or_made_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "out").symlink_to("/tmp")
    (tmp_path / "up").symlink_to("..")
    fd = os.open(tmp_path, os.O_RDONLY)
    for path in (b"out", b"out/x", b"up/x", b"../x", b"/etc/passwd"):
        with pytest.raises(OSError):  # noqa: PT011  # ELOOP, EXDEV or ENOTDIR
            os.close(beneath.open_beneath(fd, path, os.O_RDONLY))
    for path in (b"out/made/x", b"up/made/x", b"../made/x"):
        with pytest.raises(OSError):  # noqa: PT011
            beneath.make_parents(fd, path)
    beneath.make_parents(fd, b"a/b/c")
    assert (tmp_path / "a/b").is_dir()
    assert not (tmp_path / "a/b/c").exists()
    with pytest.raises(OSError, match="too many"):
        beneath.make_parents(fd, b"d/" * 100 + b"x")
    os.close(fd)
