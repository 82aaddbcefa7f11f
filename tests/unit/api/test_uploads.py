"""Multipart bodies, however they are cut."""

import asyncio
import gzip
import io
import tarfile
import zipfile
from collections.abc import AsyncIterator

import pytest

from sandrun_api.admission.budget import MemoryBudget, Reservation
from sandrun_api.errors import ApiError
from sandrun_api.uploads import receive as uploads
from sandrun_api.uploads.contents import MANIFEST_BYTES
from sandrun_shared.jobs import UploadKind
from sandrun_shared.settings import Settings

pytestmark = pytest.mark.anyio
TYPE = "multipart/form-data; boundary=edge"


def part(name: str, content: bytes, file_name: str | None = None) -> bytes:
    extra = f'; filename="{file_name}"' if file_name is not None else ""
    head = f'--edge\r\nContent-Disposition: form-data; name="{name}"{extra}\r\n\r\n'
    return head.encode() + content + b"\r\n"


END = b"--edge--\r\n"
BODY = (
    part("files", b"print(1)\r\n--edg\n", "src/a.py")
    + part("files", b"", "b")
    + part("manifest", b"{}")
    + END
)


async def chunks(*data: bytes) -> AsyncIterator[bytes]:
    for piece in data:
        yield piece


async def receive(*data: bytes, budget: MemoryBudget | None = None, kind: str = TYPE) -> uploads.Upload:
    reservation = Reservation(budget or MemoryBudget(1 << 30))
    return await uploads.receive(
        kind, None, chunks(*data), Settings(), reservation=reservation, blocking=asyncio.to_thread
    )


def files_of(upload: uploads.Upload) -> dict[bytes, bytes]:
    data, found = upload.memfd.read_at(0, upload.memfd.size), {}
    while data:
        path, size, data = data.split(b"\0", 2)
        found[path], data = data[: int(size)], data[int(size) :]
    return found


async def test_split_at_every_byte() -> None:
    for cut in range(len(BODY) + 1):
        upload = await receive(BODY[:cut], BODY[cut:])
        assert files_of(upload) == {b"src/a.py": b"print(1)\r\n--edg\n", b"b": b""}
        assert upload.manifest == b"{}"
        assert upload.contents.files == {"src/a.py", "b"}
        upload.close()


async def test_byte_by_byte_is_the_same() -> None:
    whole, pieces = await receive(BODY), await receive(*(bytes([byte]) for byte in BODY))
    assert whole.sha256_hex == pieces.sha256_hex
    whole.close()
    pieces.close()


async def test_cut_anywhere_is_refused_and_leaves_nothing() -> None:
    budget = MemoryBudget(1 << 30)
    for end in range(len(BODY) - 4):
        with pytest.raises(ApiError):
            await receive(BODY[:end], budget=budget)
        assert budget.used_bytes == 0


async def test_one_archive_is_an_archive_and_two_are_files() -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        archive.addfile(tarfile.TarInfo("main.py"))
    data = packed.getvalue()
    one = await receive(part("files", data, "a.tgz") + END)
    assert (one.kind, one.contents.files) == (UploadKind.tar_gz, {"main.py"})
    two = await receive(part("files", data, "a.tgz") + part("files", b"x", "b.py") + END)
    assert (two.kind, files_of(two)) == (UploadKind.bundle, {b"a.tgz": data, b"b.py": b"x"})
    one.close()
    two.close()


@pytest.mark.parametrize(
    "body",
    [
        part("files", gzip.compress(b"no tar"), "a.tar.gz") + END,
        part("files", b"text", "a.zip") + END,
        part("files", b"x", "../a") + END,
        part("files", b"x", "/a") + END,
        part("files", b"x", "a") + part("files", b"x", "a/b") + END,
        part("files", b"x") + END,
        part("other", b"x", "a") + END,
        part("manifest", b"{}") + END,
        part("files", b"x", "a") + part("manifest", b"{}") + part("manifest", b"{}") + END,
        b"",
        b"nonsense",
    ],
)
async def test_bad_bodies(body: bytes) -> None:
    budget = MemoryBudget(1 << 30)
    with pytest.raises(ApiError) as caught:
        await receive(body, budget=budget)
    assert caught.value.status == 400
    assert budget.used_bytes == 0


async def test_manifest_too_large() -> None:
    with pytest.raises(ApiError) as caught:
        await receive(part("manifest", b" " * (MANIFEST_BYTES + 1)) + END)
    assert caught.value.status == 413


async def test_a_manifest_is_held_within_the_budget() -> None:
    budget = MemoryBudget(1 << 20)
    body = part("files", b"x", "a") + part("manifest", b" " * (1 << 19)) + END
    upload = await receive(body, budget=budget)
    assert budget.used_bytes == upload.memfd.size + (1 << 19) + upload.contents.held_bytes
    assert upload.check_bytes == (1 << 19) + upload.contents.held_bytes
    with pytest.raises(ApiError) as caught:
        await receive(body, budget=budget)
    assert caught.value.status == 503
    upload.close()
    assert budget.used_bytes == 0


@pytest.mark.parametrize("is_archive", [False, True])
async def test_a_job_json_is_held_within_the_budget(is_archive: bool) -> None:
    budget = MemoryBudget(1 << 21)
    data = b" " * (1 << 19)
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("job.json", data)
    name, file = ("a.zip", written.getvalue()) if is_archive else ("job.json", data)
    upload = await receive(part("files", file, name) + END, budget=budget)
    assert upload.manifest == data
    assert budget.used_bytes == upload.memfd.size + upload.check_bytes
    assert upload.check_bytes > len(data)
    budget.limit_bytes = budget.used_bytes + len(data) - 1
    with pytest.raises(ApiError) as caught:
        await receive(part("files", file, name) + END, budget=budget)
    assert caught.value.status == 503
    upload.close()
    assert budget.used_bytes == 0


def head(*lines: str) -> bytes:
    return "\r\n".join(lines).encode("utf-8", "surrogateescape") + b"\r\n\r\n"


def one(*lines: str, data: bytes = b"x") -> bytes:
    """A body with one part, whose head is these lines."""
    return b"--edge\r\n" + head(*lines) + data + b"\r\n--edge--"


NAMED = 'Content-Disposition: form-data; name="files"; filename='


@pytest.mark.parametrize(
    ("lines", "name"),
    [
        ([NAMED + '"a.py"'], "a.py"),
        ([NAMED + "a.py"], "a.py"),
        ([NAMED + "src/a.py"], "src/a.py"),
        (["content-disposition:form-data;name=files;filename=a.py"], "a.py"),
        (["CONTENT-DISPOSITION: Form-Data; NAME=files; FileName=a.py"], "a.py"),
        (['Content-Disposition: form-data ; name = "files" ;filename\t=\t"a.py" ; '], "a.py"),
        (["Content-Disposition: form-data;", ' name="files";', '\tfilename="a.py"'], "a.py"),
        (["Content-Disposition:", ' form-data; name="files"; filename="a.py"'], "a.py"),
        ([NAMED + '"a b;c=d.py"'], "a b;c=d.py"),
        # Quoted pairs, and backslashes that do not quote (curl; browsers).
        ([NAMED + r'"a\"b\\c.py"'], 'a"b\\c.py'),
        ([NAMED + r'"a\b.py"'], r"a\b.py"),
        ([NAMED + '"C:\\\\dir\\\\a.py"'], "a.py"),
        ([NAMED + r'"C:\dir\a.py"'], "a.py"),
        # Browsers percent-encode what a quoted string cannot hold, and nothing else.
        ([NAMED + '"a%22b.py"'], 'a"b.py'),
        ([NAMED + '"a%20b%41.py"'], "a%20b%41.py"),
        # Other scripts as they are, and in the extended form, which wins.
        ([NAMED + '"né.py"'], "né.py"),
        ([NAMED + "né.py"], "né.py"),
        ([NAMED + "\"a.py\"; filename*=UTF-8''n%C3%A9.py"], "né.py"),
        ([NAMED[:-9] + "filename*=utf-8'fr'n%C3%A9.py"], "né.py"),
        ([NAMED[:-9] + "filename*=ISO-8859-1''n%E9.py"], "né.py"),
        (["Content-Disposition: form-data; name*=UTF-8''files; filename=a"], "a"),
        # Bytes that are no UTF-8.
        ([NAMED + '"a\udcff"'], "a\udcff"),
        # Other fields.
        ([NAMED + "a", "Content-Type: text/plain; charset=koi8-r", "X-Other:"], "a"),
        *(
            ([NAMED + "a", f"Content-Transfer-Encoding: {encoding}"], "a")
            for encoding in ("7bit", "8bit", "Binary", "BINARY")
        ),
    ],
)
async def test_each_allowed_form_of_a_part(lines: list[str], name: str) -> None:
    upload = await receive(one(*lines))
    assert upload.contents.files == {name}
    assert files_of(upload) == {name.encode("utf-8", "surrogateescape"): b"x"}
    upload.close()


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (
            ['Content-Disposition: form-data; name="file"; filename="a"'],
            "'file', is named neither 'files' nor 'manifest'",
        ),
        (['Content-Disposition: form-data; name="files[]"; filename="a"'], "'files[]', is named"),
        (['Content-Disposition: form-data; name=""; filename="a"'], "'', is named"),
        (["Content-Disposition: form-data"], "not form-data with a name"),
        (['Content-Disposition: attachment; name="files"; filename="a"'], "not form-data"),
        ([NAMED + '""'], "no filename"),
        (['Content-Disposition: form-data; name="files"'], "no filename"),
        ([NAMED + 'a; filename="b"'], "'filename' twice"),
        ([NAMED + "a; filename*=UTF-8''b; filename*=UTF-8''c"], "'filename*' twice"),
        ([NAMED + '"a'], "not name=value"),
        ([NAMED + "a; b"], "not name=value"),
        ([NAMED[:-9] + "filename*=koi8-r''a"], "RFC 8187"),
        ([NAMED[:-9] + "filename*=UTF-8''%zz"], "RFC 8187"),
        ([NAMED[:-9] + "filename*=a"], "RFC 8187"),
        ([NAMED[:-9] + "filename*0=a; filename*1=b"], "RFC 2231"),
        ([NAMED + '"a%0Ab"'], "control character"),
        (["X: y"], "no Content-Disposition"),
        ([NAMED + "a", NAMED + "b"], "two header fields 'content-disposition'"),
        ([NAMED + "a", "no field"], "no header field"),
        ([NAMED + "a", "X: " + "y" * (17 << 10)], "more than 16 KiB of header fields"),
        (
            [NAMED + "a", "Content-Transfer-Encoding: base64"],
            "'files' has the Content-Transfer-Encoding 'base64'",
        ),
        ([NAMED + "a", "Content-Transfer-Encoding: quoted-printable"], "'quoted-printable'"),
        ([NAMED + "a", "Content-Encoding: gzip"], "the Content-Encoding 'gzip'"),
        (
            ['Content-Disposition: form-data; name="manifest"', "Content-Type: text/plain; charset=koi8-r"],
            "in the charset 'koi8-r'",
        ),
    ],
)
async def test_parts_that_are_refused(lines: list[str], said: str) -> None:
    with pytest.raises(ApiError) as caught:
        await receive(one(*lines))
    assert caught.value.status == 400
    assert said in caught.value.reason


@pytest.mark.parametrize(
    "boundary",
    ["edge", "0123456789'()+_,-./:=?" * 3 + "abcd", "a b", "----WebKitFormBoundary" + "x" * 48, "a" * 256],
)
async def test_boundaries(boundary: str) -> None:
    body = BODY.replace(b"--edge", f"--{boundary}".encode())
    for kind in (f'multipart/form-data; boundary="{boundary}"', f"Multipart/Form-Data;Boundary={boundary}"):
        if '"' in kind or " " not in boundary:
            upload = await receive(body, kind=kind)
            assert upload.contents.files == {"src/a.py", "b"}
            upload.close()


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        ("", 415),
        ("multipart/mixed; boundary=edge", 415),
        ("multipart/form-data", 400),
        ("multipart/form-data; boundary=", 400),
        ('multipart/form-data; boundary="edge "', 400),
        ("multipart/form-data; boundary=" + "a" * 257, 400),
        ("multipart/form-data; boundary=a; boundary=b", 400),
        ("multipart/form-data; boundary", 400),
    ],
)
async def test_no_boundaries(kind: str, status: int) -> None:
    with pytest.raises(ApiError) as caught:
        await receive(BODY, kind=kind)
    assert caught.value.status == status


PART = part("files", b"x", "a")


@pytest.mark.parametrize(
    ("body", "data"),
    [
        (b"for those who cannot read this\r\n--edg\r\n --edge\r\n" + PART + END, b"x"),  # a preamble
        (b"\r\n" + PART + END, b"x"),
        (PART + END + b"\r\nan epilogue\r\n--edge\r\n", b"x"),
        (PART + b"--edge--", b"x"),
        (PART.replace(b"--edge", b"--edge \t ") + b"--edge-- \t\r\n", b"x"),  # transport padding
        (part("files", b"\r\n--edgy\r\n--edge.\r\n--edge -\r\n--edge-x\r", "a") + END, None),
        (part("files", b"\r\n\r\n", "a") + END, b"\r\n\r\n"),
        (part("files", b"", "a") + END, b""),
        (part("files", b"", "a")[:-2] + END, b""),  # no body at all (RFC 2046, 5.1.1)
        (part("_charset_", b"UTF-8") + PART + END, b"x"),
    ],
)
async def test_each_allowed_form_of_a_body(body: bytes, data: bytes | None) -> None:
    expected = b"\r\n--edgy\r\n--edge.\r\n--edge -\r\n--edge-x\r" if data is None else data
    for pieces in ([body], [bytes([byte]) for byte in body], [body[:7], body[7:]]):
        upload = await receive(*pieces)
        assert files_of(upload) == {b"a": expected}
        upload.close()


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (PART, "its last boundary is missing"),
        (b"text", "its first boundary is missing"),
        (b"--edge--", "no part named 'files'"),
        (b"--edge\n" + PART[8:], "first boundary is missing"),
        (PART + part("files", b"y", "./a") + END, "two files 'a'"),
        (part("_charset_", b"koi8-r") + PART + END, "_charset_"),
        (part("_charset_", b"utf-8") * 2 + PART + END, "'_charset_', is named"),
        (b"--edge\r\n\r\nx\r\n--edge--", "no Content-Disposition"),
        (b"--edge" + b" " * 1025 + b"\r\n" + PART[8:], "first boundary is missing"),
    ],
)
async def test_bodies_that_say_what_is_wrong(body: bytes, said: str) -> None:
    for pieces in ([body], [bytes([byte]) for byte in body]):
        with pytest.raises(ApiError) as caught:
            await receive(*pieces)
        assert caught.value.status == 400
        assert said in caught.value.reason


async def test_a_manifest_and_a_job_json() -> None:
    both = await receive(part("files", b"{}", "job.json") + part("manifest", b"[]") + END)
    assert (both.manifest, len(both.notes)) == (b"[]", 1)
    assert "job.json" in both.notes[0]
    alone = await receive(part("files", b"{}", "job.json") + END)
    assert (alone.manifest, alone.notes) == (b"{}", ())
    both.close()
    alone.close()
