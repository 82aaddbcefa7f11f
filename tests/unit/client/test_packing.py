"""Folders as uploads: deterministic, without what is ignored, and hashed as the server hashes."""

import hashlib
import io
import os
import tarfile
from pathlib import Path

import pytest

from sandrun_client import InvalidUpload, packing
from sandrun_shared.orders import encode_bundle


def write(top: Path, **files: str) -> Path:
    for name, text in files.items():
        path = top / name.replace("__", "/").replace("_dot_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return top


def names(top: Path, *exclude: str) -> list[str]:
    return [path.relative_to(top).as_posix() for path in packing.files_of(top, exclude)]


def packed(top: Path) -> bytes:
    found = packing.pack_directory(top)
    with found.file as file:
        data = file.read()
    assert len(data) == found.size_bytes
    assert hashlib.sha256(data).hexdigest() == found.sha256
    return data


def test_the_same_files_are_the_same_bytes(tmp_path: Path) -> None:
    one = write(tmp_path / "1", b="2", a="1", d__c="3")
    other = write(tmp_path / "2", d__c="3", a="1", b="2")
    os.utime(other / "a", (1, 1))
    (other / "b").chmod(0o600)
    assert packed(one) == packed(other)
    (other / "b").chmod(0o700)
    assert packed(one) != packed(other)


def test_what_the_archive_holds(tmp_path: Path) -> None:
    top = write(tmp_path, run="x", d__c="3")
    long_name = "n" * 150
    (top / long_name).write_text("long")
    (top / "run").chmod(0o755)
    (top / "link").symlink_to("d/c")
    (top / "ä").write_text("")
    os.mkfifo(top / "pipe")
    with tarfile.open(fileobj=io.BytesIO(packed(top))) as archive:
        members = {member.name: member for member in archive}
    assert list(members) == ["d/c", "link", long_name, "run", "ä"]
    assert (members["run"].mode, members["d/c"].mode) == (0o755, 0o644)
    assert (members["link"].issym(), members["link"].linkname) == (True, "d/c")
    assert {(member.mtime, member.uid, member.gid, member.uname) for member in members.values()} == {
        (0, 0, 0, "")
    }


def test_what_no_job_needs_stays_at_home(tmp_path: Path) -> None:
    write(tmp_path, main_dot_py="", _dot_git__config="", pkg____pycache____x_dot_pyc="", _dot_venv__bin="")
    (tmp_path / "__pycache__").mkdir()
    (tmp_path / "__pycache__" / "x.pyc").write_text("")
    assert names(tmp_path) == ["main.py"]


def test_ignore_files_of_every_folder_count(tmp_path: Path) -> None:
    write(
        tmp_path,
        _dot_gitignore="*.log\n/build/\nsecret\n",
        a_dot_log="",
        build__x="",
        sub__build__y="",
        sub___dot_gitignore="!keep.log\nlocal\n",
        sub__keep_dot_log="",
        sub__other_dot_log="",
        sub__local="",
        local="",
        sub__secret="",
    )
    assert names(tmp_path) == [".gitignore", "local", "sub/.gitignore", "sub/build/y", "sub/keep.log"]


def test_an_ignored_folder_is_not_looked_into(tmp_path: Path) -> None:
    write(tmp_path, _dot_gitignore="out/\n", out___dot_gitignore="!*\n", out__a="")
    assert names(tmp_path) == [".gitignore"]


def test_our_own_ignore_file_has_the_last_word_but_for_the_caller(tmp_path: Path) -> None:
    write(tmp_path, _dot_gitignore="data/\n", _dot_sandrunignore="!data/\n*.md\n", data__a="", x_dot_md="")
    assert names(tmp_path) == [".gitignore", ".sandrunignore", "data/a"]
    assert names(tmp_path, ".*ignore", "!x.md") == ["data/a", "x.md"]


def test_a_linked_folder_is_sent_as_a_link(tmp_path: Path) -> None:
    write(tmp_path, d__a="")
    (tmp_path / "loop").symlink_to(".")
    assert names(tmp_path) == ["d/a", "loop"]


def test_a_single_file_is_hashed_as_the_server_does() -> None:
    found = packing.pack_code("main.py", b"print(1)")
    assert found.sha256 == hashlib.sha256(encode_bundle({"main.py": b"print(1)"})).hexdigest()


@pytest.mark.parametrize("name", ["a/b", "a\\b"])
def test_a_single_file_has_a_plain_name(name: str) -> None:
    with pytest.raises(InvalidUpload):
        packing.pack_code(name, b"")


def test_what_is_no_folder(tmp_path: Path) -> None:
    with pytest.raises(InvalidUpload, match="not a folder"):
        packing.pack_directory(tmp_path / "nowhere")
