"""A job's output while it runs: server-sent events, resumed where they broke off."""

import hashlib
from collections.abc import Iterator

from sandrun_client import receipts
from sandrun_client.errors import ConnectionFailed
from sandrun_client.events import Event, EventParser
from sandrun_client.exchange import Close, Emit, Flow, Open, Policy, Read, Request, Sleep, ask, exchange
from sandrun_client.jobs import get_status, job_path, read
from sandrun_client.models import Logs, Output, Status, Stream

SILENCE_SECONDS = 60.0  # the server shows life every 15
STREAMS: tuple[Stream, Stream] = ("stdout", "stderr")
REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


def stream_logs(policy: Policy, job_id: str, offset: int = 0) -> Flow[Status]:
    """Emits Output until the job is finished, then gives its status.

    Raises UnknownJob when the job is deleted meanwhile, ConnectionFailed when the stream breaks off more
    often than the policy allows without anything new.
    """
    reader = _Reader(policy, job_id, offset)
    failures = 0
    while True:
        headers = {"Accept": "text/event-stream", "Accept-Encoding": "identity"}
        if reader.sequence:
            headers["Last-Event-ID"] = str(reader.sequence)
        request = Request(
            "GET", job_path("logs", job_id, "events"), headers=headers, read_seconds=SILENCE_SECONDS
        )
        reply = yield from exchange(policy, Open(request))
        if reply.status == 204:
            yield Close()
            return (yield from get_status(policy, job_id))
        before = reader.sequence
        try:
            status = yield from reader.follow()
        except ConnectionFailed as error:
            failure = error
        else:
            if status is not None:
                return status
            failure = ConnectionFailed("The live output broke off.")
        yield Close()
        failures = 1 if reader.sequence != before else failures + 1
        if failures > policy.retries:
            raise failure
        yield Sleep(reader.retry_seconds)


class _Reader:
    """Turns events into exact bytes.

    Events are text; where it has a replacement character, the bytes were none, and they are fetched from
    the logs, from then on for every event.
    """

    def __init__(self, policy: Policy, job_id: str, offset: int) -> None:
        self._policy = policy
        self._job_id = job_id
        self._position = offset  # of the logs, in bytes: where exact bytes are fetched from
        self._given = dict.fromkeys(STREAMS, 0)  # bytes after that position that were emitted
        self._exact = False
        self._digests = None if offset else {stream: hashlib.sha256() for stream in STREAMS}
        self.sequence = offset
        self.retry_seconds = 1.0

    def follow(self) -> Flow[Status | None]:
        """The status of the finished job, None for a stream that ended early."""
        parser = EventParser()
        while data := (yield Read()):
            for event in parser.feed(data):
                self.retry_seconds = parser.retry_seconds
                if event.name == "finished":
                    yield Close()
                    return self._status(event)
                if event.data.get("type") == "output":
                    yield from self._output(event)
                if event.id is not None:
                    self.sequence = event.id
            self.retry_seconds = parser.retry_seconds
        return None

    def _status(self, event: Event) -> Status:
        status = read(Status.of, event.data)
        if self._policy.verify_with is not None:
            receipt = receipts.check_status(status, self._policy.verify_with)
            for stream, digest in (self._digests or {}).items():
                receipts.check_stream(receipt, stream, digest.hexdigest())
        return status

    def _output(self, event: Event) -> Flow[None]:
        text, stream, sequence = str(event.data.get("data", "")), event.data.get("stream"), event.id or 0
        if stream not in STREAMS:
            return
        self._exact = self._exact or REPLACEMENT in text
        if not self._exact:
            data = text.encode()
            self._given[stream] += len(data)
            yield from self._emit(Output(stream, sequence, data))
        elif sequence > self._position:
            request = Request("GET", job_path("logs", self._job_id), {"offset": self._position})
            logs = read(Logs.of, (yield from ask(self._policy, request)).document())
            for item in self._new(logs, sequence):
                yield from self._emit(item)
            self._position = max(self._position, logs.next_offset)

    def _emit(self, item: Output) -> Flow[None]:
        if self._digests is not None:
            self._digests[item.stream].update(item.data)
        yield Emit(item)

    def _new(self, logs: Logs, sequence: int) -> Iterator[Output]:
        for stream, data in zip(STREAMS, (logs.stdout_bytes, logs.stderr_bytes), strict=True):
            fresh = data[self._given[stream] :]
            self._given[stream] = 0
            if fresh:
                yield Output(stream, sequence, fresh)


def follow(policy: Policy, job_id: str, offset: int = 0) -> Flow[None]:
    """Emits what `stream_logs` does, and then the status."""
    status = yield from stream_logs(policy, job_id, offset)
    yield Emit(status)
