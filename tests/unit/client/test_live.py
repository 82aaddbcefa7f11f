"""Live output: events in pieces of any size, streams that break, bytes that are no text."""

import base64
import json
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandrun_client import ConnectionFailed, Output, Status, UnexpectedAnswer, UnknownJob
from sandrun_client.events import Event, EventParser
from support import http_answers as answer

Connect = Callable[..., Any]


def stream(*pieces: bytes) -> httpx.Response:
    return httpx.Response(200, content=b"".join(pieces), headers={"content-type": "text/event-stream"})


@given(st.lists(st.text()), st.data())
def test_events_arrive_in_any_pieces(texts: list[str], data: st.DataObject) -> None:
    wire = b"retry: 20\n\n" + b"".join(
        b": heartbeat\n\n" + answer.output_event(number, text) for number, text in enumerate(texts)
    )
    cuts = sorted(data.draw(st.lists(st.integers(0, len(wire)))))
    parser = EventParser()
    pieces = [wire[start:end] for start, end in zip([0, *cuts], [*cuts, len(wire)], strict=True)]
    events = [event for piece in pieces for event in parser.feed(piece)]
    assert [(event.id, event.data["data"]) for event in events] == list(enumerate(texts))
    assert parser.retry_seconds == 0.02


def test_events_of_another_server() -> None:
    parser = EventParser()
    assert list(parser.feed(b'event: x\r\nid: 5\r\ndata: {"a":\r\ndata: 1}\r\n\r\n')) == [
        Event("x", 5, {"a": 1})
    ]
    assert list(parser.feed(b"event: empty\n\nunknown: field\nid: no number\n\n")) == []
    with pytest.raises(UnexpectedAnswer):
        list(parser.feed(b"data: text\n\n"))


def test_output_as_it_comes(connect: Connect) -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        assert request.url.path == "/logs/j/events"
        assert "last-event-id" not in request.headers
        return stream(
            answer.output_event(2, "a\n"),
            answer.output_event(5, "é\n", "stderr"),
            answer.finished_event(8, answer.status("j")),
        )

    pieces = [Output("stdout", 2, b"a\n"), Output("stderr", 5, "é\n".encode())]
    assert connect(handler).stream_logs("j") == pieces
    *same, status = connect(handler).follow("j")
    assert same == pieces
    assert isinstance(status, Status)
    assert status.ok


def test_a_stream_that_breaks_goes_on_after_the_last_event(connect: Connect, naps: list[float]) -> None:
    streams = [
        httpx.Response(200, stream=answer.Cut(b"retry: 250\n\n", answer.output_event(1, "a"), b"id: 2\nda")),
        stream(answer.output_event(2, "b")),
        stream(answer.output_event(3, "c"), answer.finished_event(6, answer.status())),
    ]
    asked: list[str | None] = []

    def handler(request: httpx.Request) -> httpx.Response:
        asked.append(request.headers.get("last-event-id"))
        return streams.pop(0)

    assert b"".join(item.data for item in connect(handler).stream_logs("j")) == b"abc"
    assert asked == [None, "1", "2"]
    assert naps[0] == 0.25


def test_a_stream_that_always_breaks_is_given_up(connect: Connect, naps: list[float]) -> None:
    asked: list[str | None] = []

    def handler(request: httpx.Request) -> httpx.Response:
        asked.append(request.headers.get("last-event-id"))
        return httpx.Response(200, stream=answer.Cut(answer.output_event(1, "a") if len(asked) == 1 else b""))

    with pytest.raises(ConnectionFailed):
        connect(handler, retries=2).stream_logs("j")
    assert asked == [None, "1", "1"]


def test_a_finished_stream_is_not_followed_again(connect: Connect) -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/status/j":
            return httpx.Response(200, json=answer.status("j"))
        assert request.headers["last-event-id"] == "9"
        return httpx.Response(204)

    assert [item.job_id for item in connect(handler).follow("j", offset=9)] == ["j"]


def test_a_job_that_is_deleted_meanwhile(connect: Connect, naps: list[float]) -> None:
    answers = [stream(answer.output_event(1, "a")), answer.refusal(404)]
    with pytest.raises(UnknownJob):
        connect(lambda _: answers.pop(0)).stream_logs("j")


PRINTED = [("stdout", b"text\n"), ("stdout", b"\xff\xfe"), ("stderr", b"\xe2\x82"), ("stdout", b"more")]


def server_of(
    printed: list[tuple[str, bytes]],
) -> tuple[Callable[[httpx.Request], httpx.Response], list[int]]:
    """A server whose job printed this; and the offsets that were fetched from it."""
    fetched: list[int] = []

    def rest(name: str, offset: int) -> str:
        position, kept = 0, b""
        for stream_name, data in printed:
            if stream_name == name:
                kept += data[max(0, offset - position) :]
            position += len(data)
        return base64.b64encode(kept).decode()

    def events() -> Iterator[bytes]:
        position = 0
        for name, data in printed:
            position += len(data)
            yield answer.output_event(position, data.decode("utf-8", "replace"), name)
        yield answer.finished_event(position + 3, answer.status("j"))

    def handler(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/logs/j/events":
            return stream(*events())
        offset = int(request.url.params.get("offset", 0))
        fetched.append(offset)
        size = sum(len(data) for _, data in printed)
        return httpx.Response(
            200, json=answer.logs(rest("stdout", offset), rest("stderr", offset), "base64", size)
        )

    return handler, fetched


def test_bytes_that_are_no_text_come_exactly(connect: Connect) -> None:
    handler, fetched = server_of(PRINTED)
    items = connect(handler).stream_logs("j")
    for name in ("stdout", "stderr"):
        given = b"".join(item.data for item in items if item.stream == name)
        assert given == b"".join(data for stream_name, data in PRINTED if stream_name == name)
    assert fetched == [0]


def test_text_needs_no_second_request(connect: Connect) -> None:
    handler, fetched = server_of([("stdout", "größer\n".encode())])
    assert [item.text for item in connect(handler).stream_logs("j")] == ["größer\n"]
    assert fetched == []


@pytest.mark.parametrize("data", [{"type": "output"}, {"type": "output", "stream": "stdin", "data": "x"}, {}])
def test_events_without_sense_are_passed_over(connect: Connect, data: dict[str, str]) -> None:
    event = b"id: 1\ndata: %b\n\n" % json.dumps(data).encode()
    whole = stream(event, answer.finished_event(4, answer.status()))
    assert connect(lambda _: whole).stream_logs("j") == []
