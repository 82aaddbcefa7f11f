"""When a request is sent again, and when it is not: operations without a network."""

import email.utils
import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import pytest

from sandrun_client import errors, jobs
from sandrun_client.exchange import Policy, Reply, Request, Send, Sleep, ask, refusal_of

POLICY = Policy(retries=3, max_wait_seconds=60, jitter=lambda: 1.0)
OK = Reply(200, {}, b"{}")
GET, POST = Request("GET", "/"), Request("POST", "/run")


def drive(flow: Any, answers: Iterable[Any]) -> tuple[Any, list[float], list[Send]]:
    """What the operation gives for these answers, how long it slept, what it sent."""
    naps: list[float] = []
    sent: list[Send] = []
    waiting = iter(answers)
    resume: Callable[[], Any] = partial(next, flow)
    while True:
        try:
            effect = resume()
        except StopIteration as stop:
            return stop.value, naps, sent
        if isinstance(effect, Sleep):
            naps.append(effect.seconds)
            resume = partial(flow.send, None)
            continue
        sent.append(effect)
        answer = next(waiting)
        resume = partial(flow.throw if isinstance(answer, Exception) else flow.send, answer)


@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_is_obeyed_even_for_what_must_not_run_twice(status: int) -> None:
    answers = [Reply(status, {"retry-after": "7"}), Reply(status, {"retry-after": "0"}), OK]
    assert drive(ask(POLICY, POST), answers)[:2] == (OK, [7, 0])


def test_retry_after_may_be_a_date() -> None:
    date = email.utils.formatdate(time.time() + 30, usegmt=True)
    assert 20 < (refusal_of(Reply(503, {"retry-after": date})).retry_after or 0) <= 30
    past = email.utils.formatdate(0, usegmt=True)
    assert refusal_of(Reply(503, {"retry-after": past})).retry_after == 0
    assert refusal_of(Reply(503, {"retry-after": "soon"})).retry_after is None


def test_a_wait_that_is_too_long_is_the_callers_to_decide() -> None:
    with pytest.raises(errors.RateLimited) as caught:
        drive(ask(POLICY, GET), [Reply(429, {"retry-after": "61"})])
    assert caught.value.retry_after == 61


def test_delays_grow_and_have_a_bound() -> None:
    away = errors.ConnectionFailed("away")
    patient = Policy(retries=6, jitter=lambda: 1.0)
    assert drive(ask(patient, GET), [away] * 6 + [OK])[1] == [0.5, 1, 2, 4, 8, 8]
    assert drive(ask(Policy(retries=1, jitter=lambda: 0.0), GET), [away, OK])[1] == [0.25]


def test_attempts_have_an_end() -> None:
    with pytest.raises(errors.ConnectionFailed):
        drive(ask(POLICY, GET), [errors.ConnectionFailed("away")] * 4)


def test_what_broke_while_it_was_served_is_sent_again_only_if_that_is_safe() -> None:
    cut = errors.ConnectionFailed("cut", sent=True)
    assert drive(ask(POLICY, GET), [cut, OK])[0] is OK
    with pytest.raises(errors.ConnectionFailed):
        drive(ask(POLICY, POST), [cut])
    assert drive(ask(POLICY, POST), [errors.ConnectionFailed("refused", sent=False), OK])[0] is OK


@pytest.mark.parametrize("status", [502, 504])
def test_a_gateway_that_failed_may_have_passed_the_request_on(status: int) -> None:
    assert drive(ask(POLICY, GET), [Reply(status, {}), OK])[0] is OK
    with pytest.raises(errors.Unavailable):
        drive(ask(POLICY, POST), [Reply(status, {})])


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (302, errors.InvalidRequest),
        (400, errors.InvalidRequest),
        (404, errors.UnknownJob),
        (409, errors.Conflict),
        (413, errors.InvalidRequest),
        (500, errors.ServerFailed),
    ],
)
def test_other_errors_are_final(status: int, kind: type[errors.Refused]) -> None:
    body = b'{"error":"Wrong","reason":"It is.","errors":[{"pointer":"/a","detail":"b"},3]}'
    with pytest.raises(kind) as caught:
        drive(ask(POLICY, GET), [Reply(status, {}, body)])
    assert caught.value.status == status
    assert caught.value.errors == (errors.Fault("/a", "b"),)


@pytest.mark.parametrize("body", [b"", b"<html>", b"[1]", b'{"errors": 3}'])
def test_an_error_that_is_not_ours_is_one_too(body: bytes) -> None:
    error = refusal_of(Reply(502, {}, body))
    assert isinstance(error, errors.Unavailable)
    assert "502" in str(error)


def test_all_attempts_of_a_submission_have_one_key() -> None:
    flow = jobs.submit_code(
        POLICY,
        code="1",
        files={},
        name=None,
        options={},
        progress=None,
        idempotency_key=None,
    )
    taken = Reply(200, {}, b'{"job_id":"j","queue_position":null}')
    job, _, sent = drive(flow, [errors.ConnectionFailed("cut"), Reply(502, {}), taken])
    keys = [send.request.headers["Idempotency-Key"] for send in sent]
    assert job.job_id == "j"
    assert len(keys) == 3
    assert len(set(keys)) == 1
    assert len(keys[0]) >= 32
