"""Multipart bodies, however they are cut."""

import asyncio
import gzip
import io
import tarfile
from collections.abc import AsyncIterator

import pytest

from sandrun_api import uploads
from sandrun_api.budget import MemoryBudget, Reservation
from sandrun_api.errors import ApiError
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


async def receive(*data: bytes, budget: MemoryBudget | None = None) -> uploads.Upload:
    reservation = Reservation(budget or MemoryBudget(1 << 30))
    return await uploads.receive(
        TYPE, None, chunks(*data), Settings(), reservation=reservation, blocking=asyncio.to_thread
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
        await receive(part("manifest", b" " * (257 << 10)) + END)
    assert caught.value.status == 413
