"""Windows, accounts and the times they name, under a clock that the test moves."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandrun_api.admission.quotas import CPU_GRAIN, HOUR, MINUTE, SECOND, Ledger, Window
from sandrun_api.admission.ratelimits import fields
from sandrun_shared.settings import Quota
from support.clocks import FakeClock

CLIENT = "a"


@pytest.fixture
def clock() -> FakeClock:
    """Moved by the test."""
    return FakeClock()


def nobody(_: str) -> bool:
    return False


def test_cpu_of_any_minute(clock: FakeClock) -> None:
    ledger = Ledger(Quota(), clock)
    ledger.submitted(CLIENT)
    for _ in range(10):  # a second of each of ten
        assert ledger.shortage(CLIENT) is None
        ledger.charge(CLIENT, 1.0)
        clock.advance(1)
    shortage = ledger.shortage(CLIENT)
    assert shortage is not None
    assert shortage.reason == "CPU quota exhausted (10.0/10.0 seconds used)"
    assert shortage.retry_after == 50
    assert ledger.shortage("b") is None
    clock.advance(shortage.retry_after - 1)
    assert ledger.shortage(CLIENT) is not None
    clock.advance(1)
    assert ledger.shortage(CLIENT) is None


def test_submissions_of_any_hour(clock: FakeClock) -> None:
    ledger = Ledger(Quota(), clock)
    for _ in range(20):
        assert ledger.shortage(CLIENT) is None
        ledger.submitted(CLIENT)
        clock.advance(7.25)
    shortage = ledger.shortage(CLIENT)
    assert shortage is not None
    assert "20/20" in shortage.reason
    clock.advance(shortage.retry_after - 1)
    assert ledger.shortage(CLIENT) is not None
    clock.advance(1)
    assert ledger.shortage(CLIENT) is None
    assert ledger.usage(CLIENT).submissions == 19


def test_the_longer_of_two_waits_is_named(clock: FakeClock) -> None:
    ledger = Ledger(Quota(jobs_per_hour=1), clock)
    ledger.submitted(CLIENT)
    clock.advance(3590)
    ledger.charge(CLIENT, 11)
    shortage = ledger.shortage(CLIENT)
    assert shortage is not None
    assert (shortage.retry_after, shortage.reason[:3]) == (60, "CPU")
    clock.advance(60)
    assert ledger.shortage(CLIENT) is None


moments = st.lists(
    st.tuples(st.integers(0, 20 * SECOND), st.integers(0, 4 * SECOND)), min_size=1, max_size=60
)


@given(moments)
def test_the_time_named_is_right_and_no_minute_has_more(charges: list[tuple[int, int]]) -> None:
    clock = FakeClock()
    ledger = Ledger(Quota(), clock)
    for pause, amount in charges:
        clock.nanoseconds += pause
        ledger.charge(CLIENT, amount / SECOND)
    shortage = ledger.shortage(CLIENT)
    if shortage is None:
        return
    assert 1 <= shortage.retry_after <= 61
    clock.advance(shortage.retry_after - 1)
    assert ledger.shortage(CLIENT) is not None
    clock.advance(1)
    assert ledger.shortage(CLIENT) is None


@given(moments)
def test_a_window_never_forgets_early_and_stays_small(charges: list[tuple[int, int]]) -> None:
    window = Window(MINUTE, CPU_GRAIN)
    now, exact = 0, []
    for pause, amount in charges:
        now += pause
        window.add(now, amount)
        exact.append((now, amount))
        true = sum(amount for moment, amount in exact if moment > now - MINUTE)
        late = sum(amount for moment, amount in exact if moment > now - MINUTE - CPU_GRAIN)
        assert true <= window.total(now) <= late
    assert len(window._entries) <= MINUTE // CPU_GRAIN + 2


def test_a_window_under_steady_charges_moves_on() -> None:
    window = Window(MINUTE, CPU_GRAIN)
    for tenth in range(6000):
        window.add(tenth * SECOND // 10, 1)
    assert 600 <= window.total(5999 * SECOND // 10) <= 603
    assert window.total(HOUR) == 0


def test_an_hour_of_silence_forgets_the_address(clock: FakeClock) -> None:
    ledger = Ledger(Quota(), clock)
    ledger.submitted("a")
    clock.advance(10)
    ledger.submitted("b")
    assert ledger.forget_idle(nobody) == 3590
    clock.advance(3590)
    assert ledger.forget_idle(nobody) == 10
    assert len(ledger) == 1
    clock.advance(10)
    assert ledger.forget_idle(lambda client: client == "b") == 3600
    clock.advance(3600)
    assert ledger.forget_idle(nobody) is None
    assert len(ledger) == 0


def test_addresses_are_bounded_and_none_with_a_job_goes(clock: FakeClock) -> None:
    ledger = Ledger(Quota(addresses=2), clock)
    for client in ("a", "b"):
        assert ledger.has_room(client, nobody)
        ledger.submitted(client)
    assert ledger.has_room("a", lambda _: True)
    assert not ledger.has_room("c", lambda _: True)
    assert ledger.has_room("c", lambda client: client == "a")
    assert (ledger.usage("a").submissions, ledger.usage("b").submissions) == (1, 0)


def test_nothing_is_limited_but_counted(clock: FakeClock) -> None:
    quota = Quota(cpu_seconds_per_minute=0, concurrent_jobs=0, jobs_per_hour=0, queued_jobs=0)
    ledger = Ledger(quota, clock)
    for _ in range(1000):
        ledger.submitted(CLIENT)
        ledger.charge(CLIENT, 5)
    assert ledger.shortage(CLIENT) is None
    assert (ledger.usage(CLIENT).submissions, ledger.usage(CLIENT).cpu_seconds) == (1000, 5000)
    assert fields(quota, ledger, CLIENT, 1000) == {}


def test_rate_limit_fields(clock: FakeClock) -> None:
    ledger = Ledger(Quota(), clock)
    policy = '"cpu";q=10;qu="cpu-seconds";w=60, "jobs";q=20;w=3600, "queue";q=10;qu="concurrent-requests"'
    assert fields(Quota(), ledger, CLIENT, 0) == {
        "RateLimit-Policy": policy,
        "RateLimit": '"cpu";r=10, "jobs";r=20, "queue";r=10',
    }
    ledger.submitted(CLIENT)
    ledger.charge(CLIENT, 9.5)
    assert fields(Quota(), ledger, CLIENT, 10)["RateLimit"] == '"cpu";r=1, "jobs";r=19, "queue";r=0;t=10'
    ledger.charge(CLIENT, 0.7)
    clock.advance(15.5)
    assert fields(Quota(), ledger, CLIENT, 1)["RateLimit"] == '"cpu";r=0;t=45, "jobs";r=19, "queue";r=9'


def test_a_quota_of_half_a_second_is_still_an_integer(clock: FakeClock) -> None:
    quota = Quota(cpu_seconds_per_minute=0.5, jobs_per_hour=0, queued_jobs=0)
    ledger = Ledger(quota, clock)
    ledger.charge(CLIENT, 0.1)
    assert fields(quota, ledger, CLIENT, 0) == {
        "RateLimit-Policy": '"cpu";q=500;qu="cpu-milliseconds";w=60',
        "RateLimit": '"cpu";r=400',
    }
