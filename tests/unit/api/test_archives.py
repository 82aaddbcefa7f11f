"""Hostile archives are refused with a reason; good ones are understood."""

import bz2
import gzip
import io
import lzma
import stat
import tarfile
import zipfile

import pytest

from sandrun_api.errors import ApiError
from sandrun_api.uploads.archives import check, kind_of_name
from sandrun_api.uploads.contents import Bounds, Contents
from sandrun_shared.jobs import UploadKind
from sandrun_shared.memfds import Memfd

BOUNDS = Bounds(total_bytes=1 << 20, members=50, seconds=10.0)
PACKERS = {
    UploadKind.tar: bytes,
    UploadKind.tar_gz: gzip.compress,
    UploadKind.tar_bz2: bz2.compress,
    UploadKind.tar_xz: lzma.compress,
}


def looked_at(data: bytes, kind: UploadKind, bounds: Bounds = BOUNDS) -> Contents:
    upload = Memfd.create("test", data)
    try:
        return check(upload, kind, bounds)
    finally:
        upload.close()


def refused(data: bytes, kind: UploadKind = UploadKind.tar, bounds: Bounds = BOUNDS) -> ApiError:
    with pytest.raises(ApiError) as caught:
        looked_at(data, kind, bounds)
    return caught.value


def entry(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", size: int = 0) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname, member.size = kind, link, size
    return member


def tar(*members: tarfile.TarInfo, content: bytes = b"") -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for member in members:
            archive.addfile(member, io.BytesIO(content.ljust(member.size, b"\0")))
    return packed.getvalue()


def zipped(name: str | zipfile.ZipInfo, content: bytes = b"x") -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, content)
    return packed.getvalue()


def special(name: str, file_type: int) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.create_system = 3
    info.external_attr = (file_type | 0o644) << 16
    return info


@pytest.mark.parametrize("kind", PACKERS)
def test_good_tar(kind: UploadKind) -> None:
    script = b"#!/bin/sh\n"
    data = PACKERS[kind](
        tar(
            entry("./", tarfile.DIRTYPE),
            entry("./run", size=len(script)),
            entry("a/link", tarfile.SYMTYPE, "../run"),
            entry("again", tarfile.LNKTYPE, "run"),
            content=script,
        )
    )
    contents = looked_at(data, kind)
    assert contents.files == {"run", "a/link", "again"}
    assert contents.heads == {"run": script, "again": script}


def test_good_zip_with_manifest() -> None:
    contents = looked_at(zipped("job.json", b"{}"), UploadKind.zip)
    assert contents.kept == {"job.json": b"{}"}


@pytest.mark.parametrize(
    ("member", "word"),
    [
        (entry("../evil"), "leaves"),
        (entry("a/../../evil"), "leaves"),
        (entry("/etc/passwd"), "absolute"),
        (entry("a\x01b"), "control"),
        (entry("a" * 256), "255"),
        (entry("/".join(["abcdefgh"] * 200)), "1024"),
        (entry("l", tarfile.SYMTYPE, "/etc"), "out of the upload"),
        (entry("l", tarfile.SYMTYPE, "../x"), "out of the upload"),
        (entry("a/l", tarfile.SYMTYPE, "b/../../.."), "out of the upload"),
        (entry("l", tarfile.LNKTYPE, "nothing"), "hard link"),
        (entry("l", tarfile.LNKTYPE, "/etc/shadow"), "absolute"),
        (entry("dev", tarfile.CHRTYPE), "device"),
        (entry("dev", tarfile.BLKTYPE), "device"),
        (entry("pipe", tarfile.FIFOTYPE), "FIFO"),
    ],
)
def test_hostile_tar_member(member: tarfile.TarInfo, word: str) -> None:
    error = refused(tar(member))
    assert error.status == 400
    assert word in error.reason


@pytest.mark.parametrize(
    "members",
    [
        (entry("a"), entry("a/b")),
        (entry("a", tarfile.DIRTYPE), entry("a")),
        (entry("a", tarfile.SYMTYPE, "b"), entry("a/c")),
        (entry("a", tarfile.SYMTYPE, "b"), entry("a")),
        (entry("a/b"), entry("a", tarfile.SYMTYPE, "c")),
    ],
)
def test_one_name_for_two_things(members: tuple[tarfile.TarInfo, ...]) -> None:
    assert refused(tar(*members)).status == 400


@pytest.mark.parametrize("kind", PACKERS)
def test_bomb(kind: UploadKind) -> None:
    data = PACKERS[kind](tar(entry("zeros", size=2 << 20)))
    assert refused(data, kind).status == 413


@pytest.mark.parametrize("kind", PACKERS)
def test_trailing_bomb(kind: UploadKind) -> None:
    data = PACKERS[kind](tar(entry("small")) + b"\1" * (4 << 20))
    assert refused(data, kind).status == 413


def test_too_many_members() -> None:
    assert refused(tar(*(entry(str(number)) for number in range(51)))).status == 413


def test_out_of_time() -> None:
    error = refused(tar(entry("a")), bounds=Bounds(1 << 20, 50, -1.0))
    assert (error.status, "seconds" in error.reason) == (413, True)


def test_huge_extended_header() -> None:
    member = entry("a")
    member.pax_headers = {"comment": "x" * (1 << 17)}
    assert "extended header" in refused(tar(member)).reason


@pytest.mark.parametrize("kind", UploadKind)
@pytest.mark.parametrize("data", [b"", b"x", b"plainly not an archive" * 100])
def test_not_an_archive(kind: UploadKind, data: bytes) -> None:
    if kind is not UploadKind.bundle:
        assert refused(data, kind).status == 400


@pytest.mark.parametrize("kind", PACKERS)
def test_cut_anywhere(kind: UploadKind) -> None:
    whole = PACKERS[kind](tar(entry("a", size=3000), content=bytes(range(256)) * 11))
    for end in range(0, len(whole), max(1, len(whole) // 40)):
        if kind is UploadKind.tar and end >= 512 + 3072:
            break  # only the empty blocks at its end are missing
        assert refused(whole[:end], kind).status == 400


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (zipped("../evil"), 400),
        (zipped("/etc/passwd"), 400),
        (zipped("zeros", b"\0" * (2 << 20)), 413),
        (zipped(special("link", stat.S_IFLNK), b"/etc"), 400),
        (zipped(special("pipe", stat.S_IFIFO)), 400),
        (zipped(special("dev", stat.S_IFBLK)), 400),
    ],
)
def test_hostile_zip(data: bytes, status: int) -> None:
    assert refused(data, UploadKind.zip).status == status


def test_zip_that_lies_about_its_size() -> None:
    data = bytearray(zipped("zeros", b"\0" * (2 << 20)))
    central = data.index(b"PK\x01\x02")
    data[central + 24 : central + 28] = (10).to_bytes(4, "little")
    assert refused(bytes(data), UploadKind.zip).status in (400, 413)


def test_encrypted_zip() -> None:
    data = bytearray(zipped("secret"))
    data[data.index(b"PK\x01\x02") + 8] |= 1
    assert "encrypted" in refused(bytes(data), UploadKind.zip).reason


def test_kinds() -> None:
    assert kind_of_name("a/B.TAR.GZ") is UploadKind.tar_gz
    assert kind_of_name("a.gz") is None


@pytest.mark.parametrize(
    ("kind", "nothing"),
    [
        (UploadKind.tar_gz, gzip.compress(b"")),
        (UploadKind.tar_bz2, bz2.compress(b"")),
        (UploadKind.tar_xz, lzma.compress(b"")),
    ],
)
def test_the_time_of_streams_of_nothing_counts(kind: UploadKind, nothing: bytes) -> None:
    """Behind the bound the check would read on to the end, and say that there is no archive."""
    upload = Memfd.create("upload", nothing * 5_000)
    with pytest.raises(ApiError) as raised:
        check(upload, kind, Bounds(1 << 20, 50, 0.0))
    assert raised.value.status == 413
    upload.close()
