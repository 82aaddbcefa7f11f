"""A multipart body gives the same upload, or the same refusal, however the network cuts it."""

import asyncio
import itertools
import tarfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

from fuzz.target import Target
from sandrun_api.admission.budget import MemoryBudget, Reservation
from sandrun_api.errors import ApiError
from sandrun_api.uploads import receive
from sandrun_shared.settings import Settings
from support.archive_strategies import FILE, by_tarfile
from support.tar_files import Entry

_EDGE = b"edge"
_ARCHIVE = by_tarfile(
    [Entry(b"main.py", FILE, b"print(1)"), Entry(b"job.json", FILE, b"{}")], tarfile.PAX_FORMAT
)
_names = st.sampled_from(
    [b"a", b"main.py", b"src/a.py", b"../x", b"/x", b"a.tar", b"a.zip", b"job.json", "né".encode(), b""]
)
_headers = st.one_of(
    st.builds(lambda name: b'Content-Disposition: form-data; name="files"; filename="%b"' % name, _names),
    st.sampled_from(
        [
            b'Content-Disposition: form-data; name="manifest"',
            b"Content-Disposition: form-data; name=files; filename*=UTF-8''n%C3%A9",
            b'Content-Disposition: form-data; name="other"',
            b'content-disposition:form-data;name="files";filename="b"\r\nContent-Type: text/plain',
            b"Content-Disposition: attachment",
            b"X: y",
            b": ",
            b"",
        ]
    ),
    st.binary(max_size=20),
)
_contents = st.sampled_from([b"", b"x", b"{}", b"\r\n", b"\r\n--edg", b"--edge", _ARCHIVE]) | st.binary(
    max_size=80
)
_ends = st.sampled_from(
    [b"--edge--\r\n", b"--edge--", b"--edge-", b"", b"--edge--\r\ntrailer", b"--edge\r\n"]
)


@dataclass(frozen=True)
class Body:
    """A body, and where it is cut."""

    data: bytes
    cuts: list[int]


@st.composite
def _body(draw: st.DrawFn) -> Body:
    data = draw(st.sampled_from([b"", b"", b"\r\n", b"preamble\r\n"]))
    for headers, content in draw(st.lists(st.tuples(_headers, _contents), max_size=4)):
        data += b"--" + _EDGE + b"\r\n" + headers + b"\r\n\r\n" + content + b"\r\n"
    data += draw(_ends)
    if draw(st.integers(0, 3)) == 0 and data:
        at = draw(st.integers(0, len(data) - 1))
        data = data[:at] + draw(st.binary(max_size=3)) + data[at + 1 :]
    cuts = draw(st.lists(st.integers(0, len(data)), max_size=12))
    return Body(data, sorted(cuts))


async def _received(pieces: list[bytes]) -> tuple[Any, ...]:
    async def body() -> AsyncIterator[bytes]:
        for piece in pieces:
            yield piece

    budget = MemoryBudget(1 << 30)
    try:
        upload = await receive.receive(
            "multipart/form-data; boundary=edge",
            None,
            body(),
            Settings(),
            reservation=Reservation(budget),
            blocking=asyncio.to_thread,
        )
    except ApiError as error:
        assert budget.used_bytes == 0
        return error.status, error.reason
    found = upload.kind, upload.sha256_hex, upload.manifest, upload.contents
    upload.close()
    assert budget.used_bytes == 0
    return found


def same_however_cut(body: Body) -> None:
    """Whole, cut here and there, and byte by byte."""
    edges = [0, *body.cuts, len(body.data)]
    pieces = [body.data[start:end] for start, end in itertools.pairwise(edges)]

    async def compare() -> None:
        whole = await _received([body.data])
        assert await _received(pieces) == whole
        if len(body.data) < 600:
            assert await _received([bytes([byte]) for byte in body.data]) == whole

    asyncio.run(compare())


TARGETS = [Target("multipart bodies", same_however_cut, _body(), 150)]
