"""The patience of a connection, against a clock that the test moves."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
import uvicorn
from uvicorn.server import ServerState

from sandrun_api.edge.deadlines import Deadline
from sandrun_api.edge.protocols import (
    LINGER_SECONDS,
    SURPLUS_SECONDS,
    SURPLUS_UPLOADS,
    HttpProtocol,
    WebSocketProtocol,
)
from sandrun_shared.settings import Api

pytestmark = pytest.mark.anyio
LIMITS = Api(head_seconds=10, body_seconds=30, body_bytes_per_second=100, send_seconds=20, idle_seconds=15)
UPGRADE = (
    b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)


class Timer:
    def __init__(self, at: float, call: Callable[..., object], arguments: tuple[object, ...]) -> None:
        self.at, self.call, self.arguments = at, call, arguments
        self.cancelled = False

    def when(self) -> float:
        return self.at

    def cancel(self) -> None:
        self.cancelled = True


class Clock:
    """An event loop whose time passes when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.timers: list[Timer] = []
        self.create_task = asyncio.get_running_loop().create_task

    def time(self) -> float:
        return self.now

    def call_at(self, at: float, call: Callable[..., object], *arguments: object) -> Timer:
        self.timers.append(Timer(at, call, arguments))
        return self.timers[-1]

    def call_later(self, seconds: float, call: Callable[..., object], *arguments: object) -> Timer:
        return self.call_at(self.now + seconds, call, *arguments)

    @property
    def pending(self) -> list[Timer]:
        return [timer for timer in self.timers if not timer.cancelled]

    def pass_seconds(self, seconds: float) -> None:
        end = self.now + seconds
        while due := [timer for timer in self.pending if timer.at <= end]:
            timer = min(due, key=Timer.when)
            self.timers.remove(timer)
            self.now = max(self.now, timer.at)
            timer.call(*timer.arguments)
        self.now = end


class Wire(asyncio.Transport):
    """A transport whose peer takes nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.protocol: Any = None
        self.is_closed = self.is_cut = self.is_ended = False

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def get_write_buffer_size(self) -> int:
        return 0

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.is_ended = True

    def write(self, data: Any) -> None:
        self.written += data

    def close(self) -> None:
        self.is_closed = True

    def abort(self) -> None:
        self.is_closed = self.is_cut = True

    def is_closing(self) -> bool:
        return self.is_closed

    def get_protocol(self) -> Any:
        return self.protocol

    def set_protocol(self, protocol: Any) -> None:
        self.protocol = protocol

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return Socket() if name == "socket" else default

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass


class Socket:
    def getpeername(self) -> tuple[str, int]:
        return ("127.0.0.1", 1)

    getsockname = getpeername

    def setsockopt(self, *_: object) -> None:
        pass


async def application(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        while (await receive())["type"] != "websocket.disconnect":
            pass
        return
    message = {"more_body": scope["path"] == "/reads"}
    while message.get("more_body"):
        message = await receive()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


class Connection:
    """One connection: what is sent, what time passes, what was answered."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.wire = Wire()
        config = uvicorn.Config(
            application,
            ws=lambda **more: WebSocketProtocol(**more, _loop=self.clock, limits=LIMITS),  # type: ignore[arg-type]
            timeout_keep_alive=LIMITS.idle_seconds,  # type: ignore[arg-type]
            h11_max_incomplete_event_size=LIMITS.head_bytes,
            log_level="critical",
        )
        self.state = ServerState()
        self.wire.protocol = HttpProtocol(config, self.state, {}, self.clock, limits=LIMITS)  # type: ignore[arg-type]
        self.wire.protocol.connection_made(self.wire)

    async def send(self, data: bytes, seconds: float = 0) -> "Connection":
        self.wire.protocol.data_received(data)
        await self.settle()
        self.clock.pass_seconds(seconds)
        return self

    async def settle(self) -> None:
        for _ in range(10):
            await asyncio.sleep(0)

    async def lose(self) -> None:
        self.wire.protocol.connection_lost(None)
        await self.settle()

    @property
    def status(self) -> int | None:
        return int(self.wire.written.split()[1]) if self.wire.written else None


async def test_a_deadline_moves_without_a_timer_for_each_move() -> None:
    clock, passed = Clock(), list[float]()
    deadline = Deadline(clock, lambda: passed.append(clock.now))  # type: ignore[arg-type]
    for _ in range(100):
        deadline.set(10)
        clock.pass_seconds(1)
    assert len(clock.pending) == 1
    assert passed == []
    clock.pass_seconds(9)
    assert passed == [1000 + 99 + 10]
    deadline.set(10)
    deadline.set(1)
    clock.pass_seconds(1)
    assert len(passed) == 2
    deadline.set(1)
    deadline.clear()
    clock.pass_seconds(100)
    assert len(passed) == 2
    assert clock.pending == []


async def test_who_says_nothing_is_shown_the_door() -> None:
    connection = Connection()
    connection.clock.pass_seconds(9.9)
    assert not connection.wire.is_closed
    connection.clock.pass_seconds(0.2)
    assert connection.wire.is_closed
    assert connection.status is None
    assert not connection.wire.is_cut
    connection.clock.pass_seconds(LINGER_SECONDS)
    assert connection.wire.is_cut


async def test_a_head_that_drips_is_not_waited_for() -> None:
    connection = Connection()
    head = b"GET / HTTP/1.1\r\nHost: x\r\nX: yyyyyyyyyyyyyyyyyyyyyyyyyyyyyy"
    for number in range(9):
        await connection.send(head[number : number + 1], 1)
        assert not connection.wire.is_closed
    await connection.send(b"x", 1.1)
    assert connection.status == 408
    assert connection.wire.is_ended


async def test_a_second_head_has_its_own_time() -> None:
    connection = Connection()
    await connection.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", 14)
    assert connection.status == 200
    await connection.send(b"G", 9.9)
    assert not connection.wire.is_closed
    connection.wire.written = b""
    connection.clock.pass_seconds(0.2)
    assert connection.status == 408


async def test_an_idle_connection_is_closed() -> None:
    connection = await Connection().send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", 14.9)
    assert not connection.wire.is_closed
    connection.clock.pass_seconds(0.2)
    assert connection.wire.is_closed
    connection.clock.pass_seconds(LINGER_SECONDS)
    assert connection.wire.is_cut


async def test_a_body_may_be_long_but_not_slow() -> None:
    connection = Connection()
    await connection.send(b"POST /reads HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n")
    for _ in range(60):
        await connection.send(b"x" * 100, 1)  # as slow as is allowed, for longer than the limit
    assert not connection.wire.is_closed
    for _ in range(31):
        await connection.send(b"x", 1)
    assert connection.status == 408
    await connection.lose()


async def test_a_burst_buys_no_time_for_later() -> None:
    connection = Connection()
    await connection.send(
        b"POST /reads HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n" + b"x" * 50_000
    )
    await connection.send(b"x" * 50_000, 30.1)
    assert connection.status == 408
    await connection.lose()


BODY = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10000000000\r\n%b\r\nx"
CHUNKED = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"


async def test_the_rest_of_an_answered_body_is_not_waited_for() -> None:
    connection = await Connection().send(BODY % b"")
    assert connection.status == 200
    for _ in range(60):
        await connection.send(b"x" * 100, 1)  # as slow as is allowed, for longer than the limit
    assert not connection.wire.is_closed
    for _ in range(31):
        await connection.send(b"x", 1)
    assert connection.wire.is_cut


async def test_who_is_still_sending_keeps_its_answer() -> None:
    connection = await Connection().send(BODY % b"Connection: close\r\n")
    assert connection.status == 200
    assert connection.wire.is_ended  # our direction: it reads on
    for _ in range(60):
        await connection.send(b"x" * 100, 1)
    assert not connection.wire.is_closed
    connection.clock.pass_seconds(31)
    assert connection.wire.is_closed
    assert not connection.wire.is_cut
    await connection.lose()
    assert connection.clock.pending == []


async def test_a_connection_ends_when_the_body_has_come() -> None:
    connection = await Connection().send(CHUNKED + b"5\r\nab")
    assert connection.wire.is_ended
    await connection.send(b"cde\r\n")
    assert not connection.wire.is_closed
    await connection.send(b"0\r\n\r\n")
    assert connection.wire.is_closed
    assert not connection.wire.is_cut


@pytest.mark.parametrize("header", [b"", b"Connection: close\r\n"])
async def test_what_nobody_reads_has_an_end(header: bytes) -> None:
    by_bytes = await Connection().send(BODY % header)
    piece = b"x" * (16 << 20)
    for _ in range(SURPLUS_UPLOADS * LIMITS.upload_bytes // len(piece)):
        await by_bytes.send(piece)
    assert not by_bytes.wire.is_closed
    await by_bytes.send(piece)
    assert by_bytes.wire.is_closed
    by_time = await Connection().send(BODY % header)
    for _ in range(int(SURPLUS_SECONDS) - 1):
        await by_time.send(b"x" * 100, 1)
    assert not by_time.wire.is_closed
    await by_time.send(b"x" * 100, 2)
    assert by_time.wire.is_closed


async def test_an_application_hears_that_its_request_was_refused() -> None:
    connection = await Connection().send(b"POST /reads HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n")
    assert connection.state.tasks
    connection.clock.pass_seconds(31)
    assert (connection.status, connection.wire.is_closed) == (408, False)
    await connection.settle()
    assert not connection.state.tasks


async def test_a_parting_connection_does_not_delay_the_servers_end() -> None:
    connection = await Connection().send(BODY % b"Connection: close\r\n")
    connection.wire.protocol.shutdown()
    assert connection.wire.is_closed


async def test_a_reader_that_takes_nothing_is_cut_off() -> None:
    connection = await Connection().send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    connection.wire.protocol.pause_writing()
    connection.clock.pass_seconds(14)
    connection.wire.protocol.resume_writing()
    connection.wire.protocol.pause_writing()
    connection.clock.pass_seconds(0.5)
    assert not connection.wire.is_cut
    connection.clock.pass_seconds(20)
    assert connection.wire.is_cut


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"y" * LIMITS.head_bytes, 431),
        (b"GET /" + b"y" * LIMITS.head_bytes, 431),
        (b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", 501),
        (b"POST /reads HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nz\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
    ],
)
async def test_what_is_no_request_is_told_so(data: bytes, status: int) -> None:
    connection = await Connection().send(data)
    assert connection.status == status
    assert b"application/json" in connection.wire.written
    assert b"connection: close" in connection.wire.written
    assert connection.wire.is_ended
    assert not connection.wire.is_closed
    connection.clock.pass_seconds(LINGER_SECONDS)
    assert connection.wire.is_closed
    await connection.lose()


async def test_nothing_is_left_of_a_lost_connection() -> None:
    connection = Connection()
    await connection.send(b"POST /reads HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n")
    connection.wire.protocol.pause_writing()
    await connection.lose()
    assert connection.clock.pending == []


async def test_a_slow_reader_of_a_websocket_is_told_and_then_cut_off() -> None:
    connection = await Connection().send(UPGRADE)
    assert connection.status == 101
    connection.wire.protocol.pause_writing()
    connection.clock.pass_seconds(19.9)
    connection.wire.written = b""
    connection.clock.pass_seconds(0.2)
    reason = b"too slow"
    assert connection.wire.written.endswith(bytes([0x88, 2 + len(reason), 0x03, 0xF5]) + reason)
    await connection.settle()
    assert not connection.state.tasks  # the application heard of it
    assert not connection.wire.is_cut
    connection.clock.pass_seconds(LINGER_SECONDS)
    assert connection.wire.is_cut
    await connection.lose()
    assert connection.clock.pending == []


async def test_pings_of_a_client_that_does_not_read_are_not_answered() -> None:
    ping = bytes([0x89, 0x80, 0, 0, 0, 0])
    connection = await Connection().send(UPGRADE)
    before = len(connection.wire.written)
    await connection.send(ping * 10)
    assert len(connection.wire.written) == before + 20
    connection.wire.protocol.pause_writing()
    await connection.send(ping * 1000)
    assert len(connection.wire.written) == before + 20
    connection.wire.protocol.resume_writing()
    await connection.send(ping)
    assert len(connection.wire.written) == before + 22
    await connection.lose()
