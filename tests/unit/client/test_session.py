"""Giving a run up at awkward moments, waiting, and output that was cut: what is said, and that no job is left."""

import os
import signal
from collections.abc import Callable

import httpx
import pytest

from sandrun_client import ConnectionFailed
from sandrun_client.cli import terminal
from sandrun_client.cli.programs import Program
from sandrun_client.cli.session import Run
from sandrun_client.cli.signals import Interrupted, Signals
from sandrun_client.drivers import SyncDriver
from sandrun_client.exchange import Policy
from sandrun_client.http_httpx import HttpxTransport
from support import http_answers as answer

Handler = Callable[[httpx.Request], httpx.Response]
RUN = Run(Program(None, {}, code=b"print(1)"), None, json=False, keep=False)


def once(handler: Handler, run: Run = RUN, *, retries: int = 0) -> int:
    """The exit status of a run before a server that is a function, with signals as the command has them."""
    policy = Policy(retries=retries, on_wait=terminal.say_waiting)
    with (
        httpx.Client(base_url="http://server.test", transport=httpx.MockTransport(handler)) as http,
        Signals() as signals,
    ):
        return SyncDriver(HttpxTransport(http)).run(run.once(policy, signals))


def stopped(number: int = signal.SIGTERM) -> None:
    """What a supervisor does."""
    os.kill(os.getpid(), number)


def test_given_up_when_the_upload_is_sent_but_not_answered() -> None:
    """Only the answer tells which job it was, so it is waited for."""
    seen: list[str] = []

    def handler(request: httpx.Request) -> httpx.Response:
        seen.append(f"{request.method} {request.url.path}")
        if request.method == "DELETE":
            return httpx.Response(204)
        request.read()
        stopped()
        return httpx.Response(200, json={"job_id": "j", "queue_position": None})

    with pytest.raises(Interrupted) as ended:
        once(handler)
    assert ended.value.number == signal.SIGTERM
    assert seen == ["POST /submit", "DELETE /jobs/j"]


def test_given_up_before_the_upload_is_sent() -> None:
    seen: list[str] = []

    def handler(request: httpx.Request) -> httpx.Response:
        seen.append(request.method)
        stopped()
        return httpx.Response(500)

    with pytest.raises(Interrupted):
        once(handler)
    assert seen == ["POST"]


def test_given_up_while_it_runs() -> None:
    seen: list[str] = []

    def handler(request: httpx.Request) -> httpx.Response:
        seen.append(f"{request.method} {request.url.path}")
        if request.method == "POST":
            return httpx.Response(200, json={"job_id": "j", "queue_position": None})
        if request.method == "GET":
            stopped(signal.SIGINT)
        return httpx.Response(204)

    with pytest.raises(Interrupted):
        once(handler)
    assert seen == ["POST /submit", "GET /logs/j/events", "DELETE /jobs/j"]


def test_a_second_signal_does_not_wait_for_the_server() -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        if request.method == "POST":
            return httpx.Response(200, json={"job_id": "j", "queue_position": None})
        stopped(signal.SIGINT)
        return httpx.Response(204)

    with pytest.raises(KeyboardInterrupt):
        once(handler)


def test_given_up_while_it_waits_for_its_turn(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """At once, although the upload is sent: it was refused, and there is no job to learn of."""
    monkeypatch.setattr("sandrun_client.drivers.time.sleep", lambda _: stopped(signal.SIGINT))
    seen: list[bytes] = []

    def handler(request: httpx.Request) -> httpx.Response:
        seen.append(request.read())
        return answer.refusal(429, "CPU quota exhausted", Retry_After="59")

    with pytest.raises(Interrupted):
        once(handler, retries=1)
    assert len(seen) == 1
    said = capsys.readouterr().err
    assert "waiting 59 s, at " in said
    assert "CPU quota exhausted; Ctrl-C stops" in said


def test_waiting_for_an_answer_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(terminal.Patience, "SECONDS", 0.0)

    def handler(request: httpx.Request) -> httpx.Response:
        timer = terminal.Patience._current
        assert timer is not None
        timer.join(30)  # it has spoken
        return answer.refusal(400, "no")

    with pytest.raises(Exception, match="no"):
        once(handler)
    assert "waiting for the server's answer; Ctrl-C stops" in capsys.readouterr().err


def test_what_comes_at_once_is_not_waited_for(capsys: pytest.CaptureFixture[str]) -> None:
    with terminal.Patience("waiting"):
        pass
    assert terminal.Patience._current is None
    assert capsys.readouterr().err == ""


def test_a_server_that_is_gone_may_still_run_the_job(capsys: pytest.CaptureFixture[str]) -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        if request.method == "POST":
            return httpx.Response(200, json={"job_id": "j", "queue_position": 3})
        raise httpx.ReadError("gone")

    with pytest.raises(ConnectionFailed):
        once(handler)
    said = capsys.readouterr().err
    assert "waiting, at position 3" in said
    assert "sandrun logs -f j" in said


def finished(printed: str, truncated: bool, **logs: object) -> Handler:
    """A server whose job prints this and is over; logs are members of its answer about them."""

    def handler(request: httpx.Request) -> httpx.Response:
        if request.method == "POST":
            return httpx.Response(200, json={"job_id": "j", "queue_position": None})
        if request.method == "DELETE":
            return httpx.Response(204)
        if request.url.path == "/logs/j":
            return httpx.Response(200, json={**answer.logs(), "truncated": truncated, **logs})
        ended = answer.status("j", "failed", verdict="nonzero_exit", exit_code=7)
        return httpx.Response(200, content=answer.output_event(3, printed) + answer.finished_event(6, ended))

    return handler


def test_a_job_that_left_nothing_is_deleted(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    seen: list[str] = []
    inner = finished("hi", False)

    def handler(request: httpx.Request) -> httpx.Response:
        seen.append(f"{request.method} {request.url.path}")
        return inner(request)

    assert once(handler) == 7
    assert seen == ["POST /submit", "GET /logs/j/events", "DELETE /jobs/j"]
    assert capfdbinary.readouterr().out == b"hi"


@pytest.mark.parametrize("cut", [True, False])
def test_output_that_was_cut_is_told_loudly(capfd: pytest.CaptureFixture[str], cut: bool) -> None:
    terminal.set_quiet(True)  # it is no chatter
    try:
        status = once(finished("y" * (1 << 20), cut, stdout_bytes=25_000_000))
    finally:
        terminal.set_quiet(False)
    captured = capfd.readouterr()
    assert status == 7
    assert len(captured.out) == 1 << 20
    said = "OUTPUT CUT: this is the first 1.0 MB; the program printed 25 MB, and the rest is lost."
    assert (said in captured.err) is cut
    assert captured.err.count("\n") == int(cut)


@pytest.mark.parametrize("cut", [True, False])
def test_output_that_was_cut_in_json(capfd: pytest.CaptureFixture[str], cut: bool) -> None:
    import json

    run = Run(RUN.program, None, json=True, keep=False)
    assert once(finished("y" * (1 << 20), cut), run) == 7
    assert json.loads(capfd.readouterr().out)["truncated"] is cut
