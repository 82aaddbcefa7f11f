"""A job's output: limit, counts, order and back-pressure."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager

import pytest
from nacl.public import PrivateKey

from sandrun_executor.sandboxes import output as logs
from sandrun_executor.sandboxes.output import STDERR, STDOUT, LogPump
from sandrun_shared import framing
from sandrun_shared.jobs import Outcome, Verdict
from sandrun_shared.protocol import Finished, Output
from sandrun_shared.sealing import LogSealer, open_logs

SECONDS = 20.0


class Receiver:
    """Takes messages while it has room."""

    def __init__(self) -> None:
        self.messages: list[Output] = []
        self.room = True
        self.came = asyncio.Event()

    def deliver(self, output: Output) -> bool:
        framing.encode(output)  # raises when the message is too large to be sent
        self.messages.append(output)
        self.came.set()
        return self.room

    def text(self, stream: int) -> bytes:
        return b"".join(output.data for output in self.messages if output.stream == stream)

    async def until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            self.came.clear()
            await self.came.wait()


class Job:
    """The job's ends of the pipes, in this process."""

    def __init__(self, pump: LogPump) -> None:
        self.fds = {STDOUT: os.dup(pump.write_fds[0]), STDERR: os.dup(pump.write_fds[1])}
        for fd in self.fds.values():
            os.set_blocking(fd, False)

    def write(self, data: bytes, stream: int = STDOUT) -> int:
        """As much as the pipe takes."""
        try:
            return os.write(self.fds[stream], data)
        except BlockingIOError:
            return 0

    def end(self) -> None:
        while self.fds:
            os.close(self.fds.popitem()[1])


@asynccontextmanager
async def pumping(
    limit: int = 1 << 20, sealer: LogSealer | None = None
) -> AsyncIterator[tuple[LogPump, Receiver, Job]]:
    receiver = Receiver()
    pump = LogPump(limit, os.geteuid(), receiver.deliver, sealer=sealer)
    job = Job(pump)
    pump.start()
    try:
        yield pump, receiver, job
    finally:
        pump.close()
        job.end()


def bounded(test: Callable[[], Coroutine[None, None, None]]) -> Callable[[], None]:
    def run() -> None:
        asyncio.run(asyncio.wait_for(test(), SECONDS))

    run.__name__, run.__doc__ = test.__name__, test.__doc__
    return run


async def turns(count: int = 20) -> None:
    """Let the event loop poll a number of times."""
    loop = asyncio.get_running_loop()
    for _ in range(count):
        turn = loop.create_future()
        loop.call_soon(turn.set_result, None)
        await turn


async def written(job: Job, size: int, stream: int = STDOUT) -> None:
    left = size
    while left:
        left -= job.write(b"x" * min(left, 65536), stream)
        await turns(2)


@bounded
async def test_output_arrives_by_itself() -> None:
    async with pumping() as (pump, receiver, job):
        job.write(b"hello")
        await receiver.until(lambda: bool(receiver.messages))
        assert receiver.messages == [Output(STDOUT, b"hello")]
        assert pump.counts == {STDOUT: 5, STDERR: 0}
        assert not pump.truncated


@bounded
async def test_rest_of_a_short_job_is_drained() -> None:
    async with pumping() as (pump, receiver, job):
        job.write(b"out\0\xff")
        job.write(b"err", STDERR)
        job.end()
        assert pump.drain() == (Output(STDOUT, b"out\0\xff"), Output(STDERR, b"err"))
        assert receiver.messages == []
        assert pump.counts == {STDOUT: 5, STDERR: 3}


@bounded
async def test_nothing_printed() -> None:
    async with pumping() as (pump, _, job):
        job.end()
        await turns()
        assert pump.drain() == ()
        assert pump.counts == {STDOUT: 0, STDERR: 0}


@bounded
async def test_order_over_two_streams() -> None:
    async with pumping() as (pump, receiver, job):
        for index in range(6):
            job.write(b"%d" % index, STDOUT if index % 2 == 0 else STDERR)
            seen = index + 1
            while sum(pump.counts.values()) < seen:
                await turns(1)
        messages = [*receiver.messages, *pump.drain()]
        assert b"".join(message.data for message in messages) == b"012345"
        assert [message.stream for message in messages] == [STDOUT, STDERR] * 3


@bounded
async def test_limit_holds_for_both_streams_together() -> None:
    async with pumping(10) as (pump, receiver, job):
        job.write(b"12345678")
        while pump.counts[STDOUT] < 8:
            await turns(1)
        assert not pump.truncated
        job.write(b"abcdef", STDERR)
        job.write(b"more")
        job.end()
        messages = [*receiver.messages, *pump.drain()]
        kept = {s: b"".join(m.data for m in messages if m.stream == s) for s in (STDOUT, STDERR)}
        assert sum(map(len, kept.values())) == 10
        assert kept[STDOUT].startswith(b"12345678")
        assert pump.counts == {STDOUT: 12, STDERR: 6}
        assert pump.truncated


@bounded
async def test_exactly_the_limit_is_not_cut() -> None:
    async with pumping(5) as (pump, _, job):
        job.write(b"12345")
        job.end()
        assert [message.data for message in pump.drain()] == [b"12345"]
        assert not pump.truncated


@bounded
async def test_no_output_kept() -> None:
    async with pumping(0) as (pump, receiver, job):
        job.write(b"x")
        job.end()
        assert pump.drain() == ()
        assert receiver.messages == []
        assert pump.truncated
        assert pump.counts[STDOUT] == 1


@bounded
async def test_what_is_above_the_limit_is_counted_and_read() -> None:
    async with pumping(100) as (pump, receiver, job):
        await written(job, 1 << 20)
        while pump.counts[STDOUT] < 1 << 20:
            await turns(1)
        await receiver.until(lambda: len(receiver.text(STDOUT)) == 100)
        assert pump.truncated
        assert pump._pending == []


@bounded
async def test_messages_fit_a_frame() -> None:
    async with pumping(4 << 20) as (pump, receiver, job):
        await written(job, 1 << 20)
        await written(job, 1 << 19, STDERR)
        job.end()
        messages = [*receiver.messages, *pump.drain()]
        assert sum(len(message.data) for message in messages) == (1 << 20) + (1 << 19)
        assert max(len(framing.encode(message)) for message in messages) < framing.MAX_FRAME


@bounded
async def test_many_small_messages_fit_the_last_one() -> None:
    async with pumping() as (pump, receiver, _):
        for index in range(20_000):
            pump._take(index % 2 + 1, b"x")
            if pump._pending_bytes >= framing.CHUNK // 2:
                pump._flush()
        last = Finished(Outcome(Verdict.ok, detail="x" * 1000), pump.drain())
        assert len(framing.encode(last)) < framing.MAX_FRAME
        assert len(receiver.messages) + len(last.logs) == 20_000


@bounded
async def test_one_who_has_no_room_stops_the_reading() -> None:
    async with pumping(16 << 20) as (pump, receiver, job):
        receiver.room = False
        while not receiver.messages:
            job.write(b"x" * 65536)
            await turns(1)
        counted = pump.counts[STDOUT]
        filled = 0
        while taken := job.write(b"y" * 65536):
            filled += taken
        job.write(b"z", STDERR)
        await turns()
        assert pump.counts == {STDOUT: counted, STDERR: 0}
        assert len(receiver.messages) == 1
        assert pump._pending == []  # nothing grows while the job waits
        receiver.room = True
        pump.resume()
        await receiver.until(lambda: receiver.text(STDERR) == b"z")
        await receiver.until(lambda: len(receiver.text(STDOUT)) == counted + filled)


@bounded
async def test_resume_of_one_who_reads_changes_nothing() -> None:
    async with pumping() as (pump, receiver, job):
        pump.resume()
        job.write(b"once")
        await receiver.until(lambda: bool(receiver.messages))
        assert receiver.text(STDOUT) == b"once"


@bounded
async def test_resume_after_the_end_is_harmless() -> None:
    async with pumping() as (pump, receiver, job):
        job.write(b"last")
        job.end()
        await receiver.until(lambda: bool(receiver.messages))
        await turns()
        pump.resume()
        assert pump.drain() == ()
        pump.resume()
        pump.close()


@bounded
async def test_drain_does_not_wait_for_a_held_pipe() -> None:
    async with pumping() as (pump, _, job):
        job.write(b"before")
        assert [message.data for message in pump.drain()] == [b"before"]
        with pytest.raises(BrokenPipeError):
            os.write(job.fds[STDOUT], b"after")


@bounded
async def test_drain_without_room_passes_everything_on() -> None:
    async with pumping(1 << 20) as (pump, receiver, job):
        receiver.room = False
        filled = 0
        while taken := job.write(b"x" * 65536):
            filled += taken
        messages = [*pump.drain()]
        assert sum(len(m.data) for m in [*receiver.messages, *messages]) == filled


@bounded
async def test_descriptors_are_closed() -> None:
    before = os.listdir("/proc/self/fd")
    async with pumping() as (_pump, _, job):
        job.write(b"x")
        await turns()
    assert os.listdir("/proc/self/fd") == before
    LogPump(1, os.geteuid(), lambda output: True).close()
    assert os.listdir("/proc/self/fd") == before


@bounded
async def test_one_stream_may_end_before_the_other() -> None:
    async with pumping() as (pump, receiver, job):
        os.close(job.fds.pop(STDOUT))
        while STDOUT in pump._read_fds:
            await turns(1)
        job.write(b"still", STDERR)
        await receiver.until(lambda: receiver.text(STDERR) == b"still")


@bounded
async def test_with_a_sealer_nothing_leaves_in_the_clear() -> None:
    reader = PrivateKey.generate()
    async with pumping(sealer=LogSealer(reader.public_key)) as (pump, receiver, job):
        job.write(b"canary")
        await receiver.until(lambda: bool(receiver.messages))
        records, complete = open_logs(reader, receiver.text(STDOUT))
        assert (records, complete) == ([(STDOUT, b"canary")], False)
        job.write(b"error", STDERR)
        job.end()
        messages = [*receiver.messages, *pump.drain()]
        assert {message.stream for message in messages} == {STDOUT}
        text = b"".join(message.data for message in messages)
        assert b"canary" not in text
        assert open_logs(reader, text) == ([(STDOUT, b"canary"), (STDERR, b"error")], True)
        assert pump.counts == {STDOUT: 6, STDERR: 5}


@bounded
async def test_sealed_output_stays_within_the_limit_too() -> None:
    limit = 300_000
    reader = PrivateKey.generate()
    async with pumping(limit, LogSealer(reader.public_key)) as (pump, receiver, job):
        for number in range(200):  # changing streams is what costs most
            job.write(b"%d" % (number % 10), STDOUT if number % 2 else STDERR)
            while sum(pump.counts.values()) <= number:
                await turns(1)
        await written(job, 500_000)
        while sum(pump.counts.values()) < 500_200:
            await turns(1)
        job.end()
        text = receiver.text(STDOUT) + b"".join(output.data for output in pump.drain())
        assert len(text) <= limit
        assert pump.truncated
        records, complete = open_logs(reader, text)
        assert complete
        data = b"".join(data for _, data in records)
        assert data.startswith(b"0123456789")
        assert set(data[200:]) == set(b"x")
        assert len(data) > limit / 2 - 200 * 300


def test_what_is_only_counted_is_read_at_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    """A flood above the limit does not occupy the daemon, and all of it is counted."""
    monkeypatch.setattr(logs, "REST_SECONDS", 3600.0)

    async def flood() -> None:
        receiver = Receiver()
        pump = LogPump(4, os.getuid(), receiver.deliver)
        job = Job(pump)
        pump.start()
        job.write(b"first")
        await receiver.until(lambda: receiver.text(STDOUT) == b"firs")
        job.write(b"x" * 1000)
        for _ in range(10):
            await asyncio.sleep(0)
        assert pump.counts[STDOUT] == 5
        job.end()
        pump.drain()
        assert pump.counts[STDOUT] == 1005

    asyncio.run(flood())


@asynccontextmanager
async def _timeless(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[LogPump, Receiver, Job]]:
    """A pump that delivers small output when the test lets it."""
    monkeypatch.setattr(logs, "FLUSH_SECONDS", 3600.0)
    async with asyncio.timeout(SECONDS), pumping() as parts:
        yield parts


async def _bytewise(job: Job, count: int) -> None:
    for _ in range(count):
        assert job.write(b"x") == 1
        await turns(5)


def test_what_comes_byte_by_byte_is_not_read_byte_by_byte(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        async with _timeless(monkeypatch) as (pump, receiver, job):
            for collected in range(1, 4):
                await _bytewise(job, 200)
                # A read for each of the first bytes, and none for the others until those are passed on.
                assert pump.counts[STDOUT] == 200 * (collected - 1) + logs.LITTLE_READS - (collected > 1)
                assert pump._timer is not None
                pump._flush()
                await turns()
                assert pump.counts[STDOUT] == 200 * collected
            pump._flush()
            assert receiver.text(STDOUT) == b"x" * 600

    asyncio.run(scenario())


def test_what_gathers_waits_for_room(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        async with _timeless(monkeypatch) as (pump, receiver, job):
            await _bytewise(job, 10)
            receiver.room = False
            pump._flush()
            await _bytewise(job, 10)
            assert pump.counts[STDOUT] == logs.LITTLE_READS
            receiver.room = True
            pump.resume()
            await turns()
            assert pump.counts[STDOUT] == 20

    asyncio.run(scenario())


def test_much_output_does_not_gather(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        async with _timeless(monkeypatch) as (pump, _, job):
            for number in range(1, 200):
                assert job.write(b"x" * 2000) == 2000
                await turns(5)
                assert pump.counts[STDOUT] == 2000 * number

    asyncio.run(scenario())


def test_what_gathered_is_there_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        async with _timeless(monkeypatch) as (pump, receiver, job):
            await _bytewise(job, 100)
            job.end()
            assert [output.data for output in pump.drain()] == [b"x" * 100]
            assert receiver.messages == []
            await turns()

    asyncio.run(scenario())


def test_single_bytes_after_much_gather_too(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        async with _timeless(monkeypatch) as (pump, _, job):
            job.write(b"x" * 5000)
            await turns(5)
            await _bytewise(job, 20)
            assert pump.counts[STDOUT] == 5000 + logs.LITTLE_READS

    asyncio.run(scenario())
