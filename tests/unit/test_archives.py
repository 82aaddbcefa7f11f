"""Archives of every dialect, valid and damaged: the api's check and the sandbox's unpacker agree."""

import io
import struct
import subprocess
import tarfile
import zipfile
import zlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sandrun_api.errors import ApiError
from sandrun_api.uploads.contents import Bounds
from sandrun_sandbox import beneath
from sandrun_shared.archives import names, reader
from sandrun_shared.jobs import UploadKind
from sandrun_shared.memfds import Memfd
from support import tar_files
from support.archive_pair import Unpacked, agree
from support.archive_strategies import COMPRESSED, Unseekable, hostile, zip_info
from support.tar_files import BLOCK, END, Entry, extended, header, member, padded, record, sparse

MAIN, DATA = Entry(b"main.py", data=b"print(1)"), Entry(b"data.txt", data=b"data" * 200)
BOTH = {"main.py": MAIN.data, "data.txt": DATA.data}
SEVERAL = [kind for kind in COMPRESSED if kind is not UploadKind.tar]


def made(data: bytes, kind: UploadKind = UploadKind.tar) -> Unpacked:
    result = agree(kind, data)
    assert not isinstance(result, ApiError), result.reason
    return result


def refusal(data: bytes, kind: UploadKind = UploadKind.tar) -> str:
    result = agree(kind, data)
    assert isinstance(result, ApiError)
    assert result.status == 400
    return result.reason


@pytest.mark.parametrize("kind", SEVERAL)
@pytest.mark.parametrize("between", [b"", bytes(512)])
@pytest.mark.parametrize("behind", [b"", bytes(4), b"garbage", b"\n"])
def test_every_stream_of_several_is_read(kind: UploadKind, between: bytes, behind: bytes) -> None:
    """As `pigz -i`, `bgzip` or `cat a.gz b.gz` write them, cut where no block ends."""
    first, second = member(MAIN) + member(DATA)[:700], member(DATA)[700:] + END
    data = (
        COMPRESSED[kind](first)
        + between
        + COMPRESSED[kind](second)
        + between
        + COMPRESSED[kind](b"")
        + behind
    )
    assert made(data, kind).files == BOTH


@pytest.mark.parametrize("kind", SEVERAL)
def test_a_second_stream_that_is_damaged(kind: UploadKind) -> None:
    first, second = COMPRESSED[kind](member(MAIN)), COMPRESSED[kind](member(DATA) + END)
    assert "truncated" in refusal(first + second[:-5], kind)
    half = len(second) // 2
    assert "damaged" in refusal(first + second[:half] + bytes([second[half] ^ 1]) + second[half + 1 :], kind)
    assert "followed by other bytes" in refusal(first + b"X" + second[1:], kind)


@pytest.mark.parametrize(
    "end",
    [
        b"",
        END,
        bytes(BLOCK),
        bytes(100),
        bytes(10240),
        END + b"\1" * 999,
        END + MAIN.data,
        bytes(BLOCK) + b"x",
    ],
)
def test_ends_that_lose_nothing(end: bytes) -> None:
    assert made(member(MAIN) + member(DATA) + end).files == BOTH


def changed(**fields: bytes) -> bytes:
    return header(DATA, len(DATA.data), "ustar", **fields) + padded(DATA.data)


WRONG_SUM = member(DATA)[:100] + b"1" + member(DATA)[101:]
TAKEN_OUT = {
    "checksum": (WRONG_SUM, "checksum"),
    "size that is a word": (changed(size=b"many"), "octal"),
    "size that Python's int takes": (changed(size=b"0o1440"), "octal"),
    "size with a sign": (changed(size=b"-1"), "octal"),
    "negative size": (changed(size=b"\xff" * 11 + b"\0"), "negative"),
    "mode": (changed(mode=b"rw-r--r"), "octal"),
    "time": (changed(mtime=b"yesterday"), "octal"),
    "record of no length": (extended(b"x", b"0 path=a\n") + member(DATA), "record"),
    "record longer than its block": (extended(b"x", b"99 path=a\n") + member(DATA), "record"),
    "record that is cut": (extended(b"x", b"9 path=ab") + member(DATA), "record"),
    "record without a key": (extended(b"x", b"5 =a\n") + member(DATA), "record"),
    "record's size that is a word": (extended(b"x", record(b"size", b"many")) + member(DATA), "decimal"),
    "record's negative size": (extended(b"x", record(b"size", b"-1")) + member(DATA), "decimal"),
    "extended header alone": (extended(b"x", record(b"path", b"a")), "belongs to no member"),
    "long name alone": (extended(b"L", b"a\0", "gnu"), "belongs to no member"),
    "long name of a negative length": (header(Entry(b"x", b"L"), -5, "gnu"), "negative"),
    "no name": (member(Entry(b"", data=b"x")), "no name"),
    "another archive": (END + member(DATA), "another archive"),
    "another archive in the next record": (bytes(10240) + member(DATA), "another archive"),
}


@pytest.mark.parametrize("name", TAKEN_OUT)
@pytest.mark.parametrize("kind", COMPRESSED)
def test_damage_behind_the_first_member_is_told(kind: UploadKind, name: str) -> None:
    """Where it is, and what: the standard library takes most of this for the end of the archive."""
    data, why = TAKEN_OUT[name]
    reason = refusal(COMPRESSED[kind](member(MAIN) + data + END), kind)
    assert why in reason
    assert "after member 'main.py'" in reason
    assert f"at byte {2 * BLOCK}" in reason or "another archive" in name


def test_an_archive_cut_within_a_member() -> None:
    whole = member(MAIN) + member(DATA)
    for end in range(2 * BLOCK + 1, len(whole), 37):
        assert refusal(whole[:end]) == f"The archive is truncated at byte {end}, in or after member '" + (
            "main.py'." if end < 3 * BLOCK else "data.txt'."
        )


@pytest.mark.parametrize("name", [b"/", b"//", b"/./", b"..", b"../", b"a/../b"])
def test_folders_that_are_elsewhere(name: bytes) -> None:
    assert "Member" in refusal(member(MAIN) + member(Entry(name, b"5")) + END)


@pytest.mark.parametrize("name", [b"a/", b"a/.", b".", b"./"])
def test_a_file_with_the_name_of_a_folder(name: bytes) -> None:
    assert "the name of a folder" in refusal(member(Entry(name, data=b"x")) + END)
    assert "the name of a folder" in refusal(member(Entry(name, b"2", target=b"x")) + END)


def test_a_folder_of_the_oldest_format() -> None:
    assert made(member(MAIN) + member(Entry(b"a/", b"\0"), "v7") + END).folders == {"a"}


@pytest.mark.parametrize("form", tar_files.FORMS)
def test_long_names_and_targets(form: str) -> None:
    long = b"/".join([b"n" * 100] * 4)
    data = member(Entry(long, data=b"x"), form) + member(Entry(b"l", b"2", target=long), form)
    assert made(data + END) == Unpacked(
        {long.decode(): b"x"}, {"l": long.decode()},
        frozenset("/".join(["n" * 100] * depth) for depth in (1, 2, 3)), {long.decode(): 0o644},
    )  # fmt: skip


def test_records_that_hold_for_all_members_and_that_are_taken_back() -> None:
    every = extended(b"g", record(b"comment", b"x") + record(b"path", b"all"))
    one = extended(b"x", record(b"path", b""))
    assert made(every + member(MAIN) + one + member(DATA) + END).files == {
        "all": MAIN.data,
        "data.txt": DATA.data,
    }


def test_checksums_of_signed_bytes() -> None:
    block = bytearray(header(Entry("né".encode(), data=b"x"), 1, "v7"))
    block[148:154] = b"%06o" % (int(block[148:154], 8) - 2 * 256)
    assert made(bytes(block) + padded(b"x") + END).files == {"né": b"x"}


HOLED = Entry(b"holed", data=bytes(3000) + b"one" + bytes(5000) + b"two" * 400 + bytes(777))
EXTENTS = [(3000, 3), (3500, 0), (8003, 1200)]


@pytest.mark.parametrize("form", tar_files.SPARSE_FORMS)
@pytest.mark.parametrize("more", [[], [(9980, 0)], [(9980, 0)] * 60])
def test_files_with_holes(form: str, more: list[tuple[int, int]]) -> None:
    data = sparse(HOLED, EXTENTS + more, form) + member(MAIN) + END
    assert made(data).files == {"holed": HOLED.data, "main.py": MAIN.data}


@pytest.mark.parametrize("form", tar_files.SPARSE_FORMS)
@pytest.mark.parametrize(
    "extents", [[(8003, 1200), (3000, 3)], [(0, 10), (5, 10)], [(9900, 80), (9981, 0)], [(9900, 81)]]
)
def test_holes_that_do_not_add_up(form: str, extents: list[tuple[int, int]]) -> None:
    assert "map of holes" in refusal(member(MAIN) + sparse(HOLED, extents, form) + END)


@pytest.mark.parametrize(
    "options",
    [["v7"], ["oldgnu"], ["ustar"], ["gnu"], ["posix"], ["gnu", "-S"], ["oldgnu", "-S"]]
    + [["posix", "-S", f"--sparse-version={version}"] for version in ("0.0", "0.1", "1.0")],
    ids=" ".join,
)  # fmt: skip
def test_what_gnu_tar_writes(tmp_path: Path, options: list[str]) -> None:
    tree = tmp_path / "tree"
    (tree / "folder").mkdir(parents=True)
    for number in range(3):
        (tree / f"folder/{number}").write_bytes(bytes([number]) * 700)
    with (tree / "holes").open("wb") as file:
        for number in range(30):
            file.seek(number * 9000)
            file.write(b"data")
        file.truncate(300_000)
    (tree / "folder/link").symlink_to("../holes")
    (tree / "same").hardlink_to(tree / "folder/1")
    command = [
        "tar",
        "-C",
        str(tree),
        "-cf",
        str(tmp_path / "a.tar"),
        f"--format={options[0]}",
        *options[1:],
        ".",
    ]
    subprocess.run(command, check=True)
    found = made((tmp_path / "a.tar").read_bytes())
    assert found.files == {
        str(path.relative_to(tree)): path.read_bytes()
        for path in tree.rglob("*")
        if path.is_file() and not path.is_symlink()
    }
    assert found.links == {"folder/link": "../holes"}


def test_a_later_hard_link_is_what_counts() -> None:
    """The manifest that the door reads is the one that the job would find."""
    entries = [
        Entry(b"job.json", data=b"{}"),
        Entry(b"other", data=b"#!/bin/sh\n"),
        Entry(b"job.json", b"1", target=b"other"),
    ]
    assert made(b"".join(map(member, entries)) + END).files["job.json"] == b"#!/bin/sh\n"
    itself = Entry(b"job.json", b"1", target=b"./job.json")
    assert "no earlier file" in refusal(member(entries[0]) + member(itself) + END)


def test_copies_of_hard_links_count() -> None:
    files = member(Entry(b"a", data=bytes(700_000))) + member(Entry(b"b", b"1", target=b"a")) + END
    result = agree(UploadKind.tar, files)
    assert isinstance(result, ApiError)
    assert result.status == 413


@settings(max_examples=60)
@given(hostile(), st.integers(0, 3000), st.integers(0, 6))
def test_equal_bounds_are_equal(upload: object, total: int, members: int) -> None:
    """What the door counts is what the sandbox counts."""
    agree(upload.kind, upload.data, Bounds(total, members, 60.0))  # type: ignore[attr-defined]


def test_rules_of_names_lie_inside_those_of_what_a_job_makes() -> None:
    assert names.MAX_PATH <= beneath.MAX_PATH_BYTES
    assert names.MAX_COMPONENT <= beneath.MAX_NAME_BYTES
    assert names.MAX_DEPTH <= beneath.MAX_DEPTH


def zipped(*entries: tuple[bytes, bytes], system: int = 0, extra: bytes = b"", mode: int = 0) -> bytes:
    """A ZIP archive whose names are these very bytes, with no word on what text they are."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, data in entries:
            info = zipfile.ZipInfo("x" * len(name))
            info.create_system, info.external_attr, info.extra = system, mode << 16 or 1 << 15, extra
            archive.writestr(info, data)  # which would make something of no attributes
    data = packed.getvalue()
    for name, _ in entries:
        data = data.replace(b"x" * len(name), name)
    return data


def unicode_path(name: bytes, text: bytes) -> bytes:
    return struct.pack("<HHBI", 0x7075, 5 + len(text), 1, zlib.crc32(name)) + text


@pytest.mark.parametrize(
    ("name", "extra", "right"),
    [
        ("né.txt".encode(), b"", "né.txt"),
        (b"n\x82.txt", b"", "né.txt"),
        (b"n\x82.txt", unicode_path(b"n\x82.txt", "ñ.txt".encode()), "ñ.txt"),
        ("né.txt".encode(), unicode_path("né.txt".encode(), "né.txt".encode()), "né.txt"),
        (b"n\x82.txt", unicode_path(b"other", "ñ.txt".encode()), "né.txt"),
        (b"n\x82.txt", unicode_path(b"n\x82.txt", b"\xff"), "né.txt"),
        (b"a.txt", struct.pack("<HH", 0x7075, 9) + b"\1", "a.txt"),
    ],
)
def test_names_of_a_zip_that_does_not_say_utf_8(name: bytes, extra: bytes, right: str) -> None:
    """`zip -r` of Debian writes UTF-8, its checksum and no flag; DOS wrote code page 437."""
    for system in (0, 3):
        assert made(zipped((name, b"x"), system=system, extra=extra), UploadKind.zip).files == {right: b"x"}


@pytest.mark.parametrize(
    ("system", "name", "right"),
    [(system, b"src\\main.py", "src/main.py") for system in (0, 6, 10, 11, 14)]
    + [(3, b"src\\main.py", "src\\main.py"), (19, b"a\\b", "a\\b"), (0, b"src/a\\b", "src/a\\b")],
)
def test_backslashes_of_a_zip_made_on_fat(system: int, name: bytes, right: str) -> None:
    found = made(zipped((name, b"x"), system=system), UploadKind.zip)
    assert found.files == {right: b"x"}
    assert made(zipped((b"a\\", b""), system=0), UploadKind.zip).folders == {"a"}


def test_backslashes_lead_nowhere_else() -> None:
    for name in (b"..\\x", b"\\x", b"a\\..\\..\\x"):
        assert "Member" in refusal(zipped((name, b"x")), UploadKind.zip)


@pytest.mark.parametrize("head", [b"#!/bin/sh\n", b"\x7fELF\2"])
def test_what_can_be_executed_is_executable_where_the_archive_could_not_say(head: bytes) -> None:
    program, plain = head + b"rest", b"plain"
    for system, mode, right in ((0, 0, 0o755), (3, 0, 0o755), (3, 0o100600, 0o600), (3, 0o100711, 0o711)):
        files = zipped((b"yes", program), (b"no", plain), system=system, mode=mode)
        found = made(files, UploadKind.zip).modes
        assert found == {"yes": right, "no": 0o644 if right == 0o755 else right}
    for mode in (0o644, 0o755):
        assert made(member(Entry(b"a", data=program, mode=mode)) + END).modes == {"a": mode}


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("how", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_damaged_zip_is_refused(how: int, wide: bool, streamed: bool) -> None:
    seekable, unseekable = io.BytesIO(), Unseekable()
    entries = [Entry(b"main.py", data=b"print(1)" * 99), Entry(b"data.txt", data=b"data" * 99)]
    with zipfile.ZipFile(unseekable if streamed else seekable, "w", how) as archive:  # type: ignore[arg-type]
        for entry in entries:
            with archive.open(zip_info(entry, unix=True), "w", force_zip64=wide) as file:
                file.write(entry.data)
    data = bytes(unseekable.data) if streamed else seekable.getvalue()
    assert made(data, UploadKind.zip).files == {"main.py": entries[0].data, "data.txt": entries[1].data}
    assert made(data + b"\n", UploadKind.zip).files
    for end in range(4, len(data), 13):
        refusal(data[:end], UploadKind.zip)
    entry, end = data.index(b"PK\1\2"), data.rindex(b"PK\5\6")
    refusal(data[:60] + b"\xff" + data[61:], UploadKind.zip)  # of the first member's data
    for at in (entry + 16, entry + 20, entry + 24, entry + 28, entry + 42, end + 10, end + 12, end + 16):
        refusal(data[:at] + bytes([data[at] ^ 7]) + data[at + 1 :], UploadKind.zip)


def test_two_zips_are_not_one() -> None:
    first, second = zipped((b"a", b"1")), zipped((b"b", b"2"))
    assert "not where it should be" in refusal(first + second, UploadKind.zip)


def test_a_zip_of_more_members_than_its_end_can_count() -> None:
    """Writers without ZIP64 count modulo 65,536."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("a", b"")
    data = packed.getvalue()
    local, entry, end = data[:31], data[31 : data.index(b"PK\5\6")], data[data.index(b"PK\5\6") :]
    assert len(local) == 31
    many = 65537
    end = end[:12] + struct.pack("<II", len(entry) * many, len(local)) + end[20:]
    upload = Memfd.create("test", local + entry * many + end)
    assert sum(1 for _ in reader.members("zip", upload.fileno())) == many
    upload.close()


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_times_and_modes_of_the_standard_library(form: int) -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=form) as archive:
        info = tarfile.TarInfo("a")
        info.size, info.mode, info.mtime = 1, 0o2711, 1_600_000_000.5 if form == tarfile.PAX_FORMAT else 5
        archive.addfile(info, io.BytesIO(b"x"))
    assert made(packed.getvalue()) == Unpacked({"a": b"x"}, {}, frozenset(), {"a": 0o711})
