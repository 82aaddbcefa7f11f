"""Servers of this machine reached with the standard library alone.

Loading httpx takes as long as some twenty jobs. It is for servers elsewhere, which have proxies and
certificates.
"""

import contextlib
import http.client
import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode, urlsplit

from sandrun_client.drivers import Opened
from sandrun_client.errors import ConnectionFailed, UnexpectedAnswer
from sandrun_client.exchange import Progress, Request, Upload

PIECE = 1 << 16


@dataclass
class _Opened:
    status: int
    headers: Mapping[str, str]
    pieces: Iterator[bytes]
    close: Callable[[], None]


class PlainTransport:
    """Reaches an http:// server of this machine, each time by a new connection."""

    def __init__(self, url: str, timeout: float, headers: Mapping[str, str]) -> None:
        parts = urlsplit(url)
        self._url = url
        self._host, self._port, self._path = parts.hostname or "", parts.port or 80, parts.path.rstrip("/")
        self._timeout = timeout
        self._headers = headers
        self._sent = False

    def open(self, request: Request, progress: Progress | None) -> Opened:
        """Send a request, and read the head of its answer."""
        self._sent = False
        connection = http.client.HTTPConnection(self._host, self._port, timeout=self._timeout)
        try:
            connection.connect()
            self._sent = True
            if request.read_seconds is not None:
                connection.sock.settimeout(request.read_seconds)
            query = f"?{urlencode(request.params)}" if request.params else ""
            body, headers = _body(request, progress)
            headers = {"Accept-Encoding": "identity", **self._headers, **request.headers, **headers}
            connection.request(request.method, f"{self._path}{request.path}{query}", body, headers)
            response = connection.getresponse()
        except BaseException:
            connection.close()
            raise

        def close() -> None:
            response.close()
            connection.close()

        head = {key.lower(): value for key, value in response.getheaders()}
        return _Opened(response.status, head, _pieces(response), close)

    @contextlib.contextmanager
    def mapped(self) -> Iterator[None]:
        """Errors of the system and of http.client as ours."""
        try:
            yield
        except (OSError, http.client.IncompleteRead, http.client.RemoteDisconnected) as error:
            what = f"The connection to {self._url} broke" if self._sent else f"{self._url} cannot be reached"
            reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
            raise ConnectionFailed(f"{what}: {reason}.", sent=self._sent, host=self._host) from error
        except http.client.HTTPException as error:
            text = str(error) or type(error).__name__
            raise UnexpectedAnswer(f"The answer of {self._url} cannot be read: {text}") from error


def _pieces(response: http.client.HTTPResponse) -> Iterator[bytes]:
    while data := response.read1(PIECE):
        yield data
    if response.length:  # read1 takes an early end for the end
        raise http.client.IncompleteRead(b"", response.length)


def _body(request: Request, progress: Progress | None) -> tuple[Any, dict[str, str]]:
    if request.upload is not None:
        boundary = os.urandom(16).hex()
        before, after = _parts(request.upload, boundary)
        request.upload.file.seek(0, 2)
        total = len(before) + request.upload.file.tell() + len(after)
        request.upload.file.seek(0)
        headers = {"Content-Type": f"multipart/form-data; boundary={boundary}", "Content-Length": str(total)}
        return _counted(before, request.upload, after, total, progress), headers
    if request.json is not None:
        return json.dumps(request.json).encode(), {"Content-Type": "application/json"}
    return None, {}


def _parts(upload: Upload, boundary: str) -> tuple[bytes, bytes]:
    """What comes before the file, and after it (RFC 7578)."""
    escaped = upload.name.replace('"', "%22").replace("\r", "%0D").replace("\n", "%0A")
    before = ""
    if upload.manifest is not None:
        before += f'--{boundary}\r\nContent-Disposition: form-data; name="manifest"\r\n'
        before += f"Content-Type: application/json\r\n\r\n{json.dumps(upload.manifest)}\r\n"
    before += f'--{boundary}\r\nContent-Disposition: form-data; name="files"; filename="{escaped}"\r\n'
    before += "Content-Type: application/octet-stream\r\n\r\n"
    return before.encode("utf-8", "surrogateescape"), f"\r\n--{boundary}--\r\n".encode()


def _counted(
    before: bytes, upload: Upload, after: bytes, total: int, progress: Progress | None
) -> Iterator[bytes]:
    def pieces() -> Iterator[bytes]:
        yield before
        while data := upload.file.read(PIECE):
            yield data
        yield after

    done = 0
    for piece in pieces():
        # Told before: the last piece is sent once the next one is asked for.
        if progress is not None:
            progress(done, total)
        yield piece
        done += len(piece)
    if progress is not None:
        progress(done, total)
