"""Valid and hostile uploads, unpacked into a directory."""

import contextlib
import io
import os
import resource
import stat
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sandrun_sandbox import unpack as module
from sandrun_sandbox.unpack import OLD_TIME_NS, UnpackError
from sandrun_shared import orders
from sandrun_shared.jobs import UploadKind

Entry = tuple[str, dict[str, object], bytes]


@contextlib.contextmanager
def memfd(data: bytes) -> Iterator[int]:
    fd = os.memfd_create("upload")
    os.write(fd, data)  # the offset is left at the end, as a careless sender would
    yield fd
    os.close(fd)


@pytest.fixture
def work(tmp_path: Path) -> Path:
    (tmp_path / "secret").write_text("keep")
    work = tmp_path / "work"
    work.mkdir()
    return work


def unpack(work: Path, kind: str, data: bytes, **limits: int | bytes) -> dict[bytes, tuple[int, int]]:
    fd = os.open(work, os.O_RDONLY | os.O_DIRECTORY)
    before = len(os.listdir("/proc/self/fd"))
    try:
        with memfd(data) as upload:
            made = module.unpack(kind, upload, fd, **limits)  # type: ignore[arg-type]
            fields = made.split(b"\0")
        assert len(os.listdir("/proc/self/fd")) == before
    finally:
        os.close(fd)
        assert (work.parent / "secret").read_text() == "keep"
        assert sorted(os.listdir(work.parent)) == ["secret", "work"]
    assert fields.pop() == b""
    return dict(
        zip(fields[::3], zip(map(int, fields[1::3]), map(int, fields[2::3]), strict=True), strict=True)
    )


def tar(*entries: Entry, mode: str = "w", format: int = tarfile.PAX_FORMAT) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode, format=format, errors="surrogateescape") as archive:  # type: ignore[call-overload]
        for name, attributes, data in entries:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            member.mtime = 1_600_000_000
            for key, value in attributes.items():
                setattr(member, key, value)
            archive.addfile(member, io.BytesIO(data))
    return out.getvalue()


def file(name: str, data: bytes = b"data", **attributes: object) -> Entry:
    return name, attributes, data


def link(name: str, target: str) -> Entry:
    return name, {"type": tarfile.SYMTYPE, "linkname": target}, b""


def hard(name: str, target: str) -> Entry:
    return name, {"type": tarfile.LNKTYPE, "linkname": target}, b""


def folder(name: str, mode: int = 0o755) -> Entry:
    return name, {"type": tarfile.DIRTYPE, "mode": mode}, b""


def zipped(*entries: tuple[str, int, bytes], when: tuple[int, ...] = (2021, 5, 6, 7, 8, 10)) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, mode, data in entries:
            member = zipfile.ZipInfo(name, when)  # type: ignore[arg-type]
            member.create_system = 3
            member.external_attr = mode << 16
            archive.writestr(member, data)
    return out.getvalue()


def test_a_bundle(work: Path) -> None:
    files = {
        "main.py": b"print()",
        "a/b/c.txt": b"x" * 300_000,
        "empty": b"",
        "a/d": bytes(70_000),
        "z": b"\0" * 9,
    }
    files |= {f"n{number}": b"%d" % number for number in range(9000)}
    files |= {"deep/" * 63 + "x" * 250: b"end"}
    made = unpack(work, "bundle", orders.encode_bundle(files))
    for path, data in files.items():
        assert (work / path).read_bytes() == data
        assert (work / path).stat().st_mtime_ns == OLD_TIME_NS
    assert made == {path.encode(): (OLD_TIME_NS, len(data)) for path, data in files.items()}


def test_an_empty_upload_bundles_nothing(work: Path) -> None:
    assert unpack(work, "bundle", b"") == {}


@pytest.mark.parametrize(
    "data", [b"a", b"a\0", b"a\x00x\0", b"a\x009\0short", b"a\x00-1\0", b"x" * 9000, b"a\0\0"]
)
def test_a_bundle_that_is_none(work: Path, data: bytes) -> None:
    with pytest.raises(UnpackError):
        unpack(work, "bundle", data)


@pytest.mark.parametrize("kind", [kind for kind in UploadKind if kind.startswith("tar")])
def test_a_tar(work: Path, kind: str) -> None:
    mode = "w:" + kind.partition(".")[2]
    made = unpack(
        work,
        str(kind),
        tar(
            folder("./", 0o700), folder("d", 0o3500), file("./d/s.sh", mode=0o6755), file("r", mode=0o0),
            hard("copy", "./d/s.sh"), link("d/up", "../r"), link("here", "d"),
            file("new/x", b"y" * 2_500_000),
            mode=mode,
        ),
    )  # fmt: skip
    assert stat.S_IMODE((work / "d/s.sh").stat().st_mode) == 0o755
    assert stat.S_IMODE((work / "d").stat().st_mode) == 0o700
    assert stat.S_IMODE((work / "r").stat().st_mode) == 0o600
    assert (work / "copy").read_bytes() == b"data"
    assert (work / "copy").stat().st_nlink == 1
    assert (work / "d/up").readlink() == Path("../r")
    assert (work / "here").is_symlink()
    assert (work / "new/x").stat().st_size == 2_500_000
    when = 1_600_000_000 * 10**9
    assert made == {b"d/s.sh": (when, 4), b"r": (when, 4), b"copy": (when, 4), b"new/x": (when, 2_500_000)}
    assert all((work / os.fsdecode(path)).stat().st_mtime_ns == mtime for path, (mtime, _) in made.items())


def test_a_later_member_replaces_an_earlier_one(work: Path) -> None:
    made = unpack(
        work,
        "tar",
        tar(
            file("a", b"first", mode=0o777),
            file("a", b"2"),
            file("b"),
            link("b", "a"),
            link("c", "b"),
            file("c"),
        ),
    )
    assert (work / "a").read_bytes() == b"2"
    assert (work / "a").stat().st_mode & 0o777 == 0o644
    assert (work / "b").readlink() == Path("a")
    assert not (work / "c").is_symlink()
    assert set(made) == {b"a", b"c"}


def test_odd_names(work: Path) -> None:
    for form in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        made = unpack(work, "tar", tar(file("\udcff é"), file("l" * 250 + "/" + "m" * 250), format=form))
        assert b"\xff \xc3\xa9" in made
    assert (work / "\udcff é").exists()


@pytest.mark.parametrize("mtime", ["nan", "1e400", "-5", "1e300"])
def test_odd_times(work: Path, mtime: str) -> None:
    made = unpack(work, "tar", tar(file("a", pax_headers={"mtime": mtime})))
    assert made == {b"a": (OLD_TIME_NS, 4)}


@pytest.mark.parametrize(
    "entries",
    [
        [file("../x")], [file("/x")], [file("a/../../x")], [file("a/..")], [file("")], [file("./")],
        [file("n" * 256)],
        [file("d/" * 65 + "x")], [folder("d/" * 3000)], [folder("..")], [folder("/tmp/x")],
        [link("l", "/etc")], [link("l", "..")], [link("l", "../secret")], [link("a/l", "../../x")],
        [link("l", "")],
        [link("l", "a/../..")], [folder("a/b"), link("a/b/x", "../.."), link("y", "a/b/x/..")],
        [link("../l", "x")], [link(".", "x")],
        [link("d", "e"), link("d/x", "y")], [folder("d"), link("d", "e")],
        [hard("h", "../secret")], [hard("h", "/etc/passwd")], [hard("h", "missing")], [hard("h", "h")],
        [link("l", "x"), hard("h", "l")], [folder("d"), hard("h", "d")], [file("h"), hard("h", "h")],
        [file("d"), file("d/x")], [file("d"), folder("d")], [folder("d"), file("d")],
        [("f", {"type": tarfile.FIFOTYPE}, b"")], [("f", {"type": tarfile.CHRTYPE, "devmajor": 1}, b"")],
        [("f", {"type": tarfile.BLKTYPE}, b"")], [("f", {"type": b"Z"}, b"")],
    ],
)  # fmt: skip
def test_a_hostile_tar_is_refused(work: Path, entries: list[Entry]) -> None:
    with pytest.raises(UnpackError) as caught:
        unpack(work, "tar", tar(*entries))
    assert not caught.value.disk_full


def test_a_link_is_never_written_through(work: Path) -> None:
    with pytest.raises(UnpackError):
        unpack(work, "tar", tar(folder("real"), link("l", "real"), file("l/x")))
    assert not (work / "real/x").exists()


def test_a_link_already_there_is_not_followed(work: Path) -> None:
    (work / "l").symlink_to("..")
    with pytest.raises(UnpackError):
        unpack(work, "tar", tar(file("l/secret", b"pwned")))
    with pytest.raises(UnpackError):
        unpack(work, "bundle", orders.encode_bundle({"l/secret": b"pwned"}))
    (work / "s").symlink_to("../secret")
    unpack(work, "bundle", orders.encode_bundle({"s": b"mine"}))
    assert not (work / "s").is_symlink()


@pytest.mark.parametrize("kind", list(UploadKind))
def test_noise_is_refused(work: Path, kind: str) -> None:
    for data in (
        b"\x01" * 5000,
        b"\x1f\x8b\x08" + b"z" * 600,
        b"BZh9" + b"z" * 600,
        b"\xfd7zXZ\0" + b"z" * 600,
    ):
        with pytest.raises(UnpackError):
            unpack(work, kind, data)


@pytest.mark.parametrize(("kind", "mode"), [("tar", "w"), ("tar.gz", "w:gz"), ("tar.xz", "w:xz")])
def test_a_cut_tar_is_refused(work: Path, kind: str, mode: str) -> None:
    data = tar(file("a", os.urandom(100_000)), mode=mode)
    with pytest.raises(UnpackError):
        unpack(work, kind, data[: len(data) // 2])


def test_headers_nested_a_thousand_times(work: Path) -> None:
    long = tarfile.TarInfo("././@LongLink")
    long.type, long.size = tarfile.GNUTYPE_LONGNAME, 5
    block = long.tobuf(tarfile.GNU_FORMAT) + b"name\0".ljust(512, b"\0")
    with pytest.raises(UnpackError):
        unpack(work, "tar", block * 5000)


def test_a_zip(work: Path) -> None:
    made = unpack(
        work,
        "zip",
        zipped(
            ("d/", 0o40755, b""), ("./d/s.sh", 0o106755, b"run"), ("plain", 0, b"p"),
            ("é/x", 0o100644, b"q" * 3_000_000), ("l", 0o120777, b"d/s.sh"), ("d/l", 0o120777, b"../plain"),
        ),
    )  # fmt: skip
    when = 1_620_284_890 * 10**9
    assert made == {b"d/s.sh": (when, 3), b"plain": (when, 1), "é/x".encode(): (when, 3_000_000)}
    assert stat.S_IMODE((work / "d/s.sh").stat().st_mode) == 0o755
    assert (work / "l").read_bytes() == b"run"
    assert (work / "d/l").read_bytes() == b"p"


@pytest.mark.parametrize(
    "entry",
    [
        ("../x", 0o100644, b""), ("/x", 0o100644, b""), ("a/../../x", 0, b""),
        ("l", 0o120777, b"/etc/passwd"),
        ("l", 0o120777, b"../secret"), ("l", 0o120777, b"x" * 9000), ("l", 0o120777, b"a\0b"),
        ("p", 0o10644, b""),
        ("c", 0o20644, b""), ("../", 0o40755, b""), ("n" * 300, 0, b""),
        ("s/", 0o120777, b"plain"), ("d/", 0o40755, b"data"), ("", 0o100644, b"x"), ("a\nb", 0, b""),
    ],
)  # fmt: skip
def test_a_hostile_zip_is_refused(work: Path, entry: tuple[str, int, bytes]) -> None:
    with pytest.raises(UnpackError):
        unpack(work, "zip", zipped(entry))


def test_a_zip_with_a_password_or_an_odd_time(work: Path) -> None:
    data = bytearray(zipped(("a", 0, b"x"), when=(1980, 1, 1, 0, 0, 0)))
    directory = data.index(b"PK\x01\x02")
    data[directory + 12 : directory + 16] = bytes(4)  # month 0, day 0
    assert unpack(work, "zip", bytes(data)) == {b"a": (OLD_TIME_NS, 1)}
    data[directory + 8] |= 1
    data[6] |= 1
    with pytest.raises(UnpackError):
        unpack(work, "zip", bytes(data))


def test_more_than_the_limits(work: Path) -> None:
    many = orders.encode_bundle({str(number): b"12345" for number in range(10)})
    for limits in ({"max_entries": 9}, {"max_bytes": 49}):
        with pytest.raises(UnpackError) as caught:
            unpack(work, "bundle", many, **limits)
        assert caught.value.disk_full
    with pytest.raises(UnpackError) as caught:
        unpack(work, "tar.gz", tar(file("bomb", bytes(50 << 20)), mode="w:gz"), max_bytes=1 << 20)
    assert caught.value.disk_full
    assert (work / "bomb").stat().st_size <= 1 << 20


@pytest.mark.parametrize(
    ("kind", "make"),
    [
        ("bundle", lambda data: orders.encode_bundle({"a": data})),
        ("tar", lambda data: tar(file("a", data))),
        ("zip", lambda data: zipped(("a", 0, data))),
    ],
)
def test_a_full_disk_is_told_from_a_bad_archive(
    work: Path, kind: str, make: Callable[[bytes], bytes]
) -> None:
    data = make(bytes(3_000_000))
    with memfd(data) as upload:
        child = os.fork()
        if child == 0:
            code = 1
            with contextlib.suppress(BaseException):
                resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
                try:
                    module.unpack(kind, upload, os.open(work, os.O_RDONLY))
                except UnpackError as error:
                    code = 0 if error.disk_full else 2
            os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_an_unknown_kind(work: Path) -> None:
    with pytest.raises(UnpackError):
        unpack(work, "rar", b"")


def test_the_only_folder_at_the_top_becomes_the_root(work: Path) -> None:
    entries = (folder("top"), file("top/main.py"), file("top/top/x", b"12"), link("top/link", "main.py"))
    made = unpack(work, "tar", tar(*entries), entrypoint=b"./main.py")
    assert sorted(made) == [b"main.py", b"top/x"]
    assert sorted(os.listdir(work)) == ["link", "main.py", "top"]
    assert (work / "link").read_bytes() == b"data"
    assert made[b"top/x"] == (1_600_000_000 * 10**9, 2)


@pytest.mark.parametrize(
    ("entrypoint", "entries"),
    [
        (b"main.py", (file("main.py"), file("top/x"))),
        (b"main.py", (file("top/main.py"), file("x"))),
        (b"main.py", (file("top/main.py"), folder("empty"))),
        (b"main.py", (file("top/main.py"), link("x", "top"))),
        (b"main.py", (file("top/below/main.py"),)),
        (b"top/main.py", (file("top/main.py"),)),
        (b"top", (folder("top/top"),)),
        (b"", (file("top/main.py"),)),
    ],
    ids=str,
)
def test_any_other_root_stays(work: Path, entrypoint: bytes, entries: tuple[Entry, ...]) -> None:
    tops = sorted({name.partition("/")[0] for name, _, _ in entries})
    unpack(work, "tar", tar(*entries), entrypoint=entrypoint)
    assert sorted(os.listdir(work)) == tops
