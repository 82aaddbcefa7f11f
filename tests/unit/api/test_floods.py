"""Floods are counted within bounds: of clients, of lines, of time."""

import logging

import pytest

from sandrun_api.admission.floods import CLIENTS, FLOOD, LINES, Floods
from support.clocks import FakeClock


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """What is logged."""
    caplog.set_level(logging.WARNING)
    return caplog


def refuse(floods: Floods, client: str, times: int) -> None:
    for _ in range(times):
        floods.refused(client, "jobs")


def test_a_line_a_minute(lines: pytest.LogCaptureFixture) -> None:
    clock = FakeClock()
    floods = Floods(clock)
    refuse(floods, "a", 3 * FLOOD)
    assert len(lines.records) == 1
    clock.advance(60)
    refuse(floods, "a", FLOOD - 1)
    assert len(lines.records) == 1
    refuse(floods, "a", 1)
    assert len(lines.records) == 2


def test_many_clients_write_few_lines_and_are_forgotten(lines: pytest.LogCaptureFixture) -> None:
    floods = Floods(FakeClock())
    for number in range(CLIENTS + 10):
        refuse(floods, str(number), FLOOD if number < 2 * LINES else 1)
    assert len(lines.records) == LINES
    assert len(floods._counts) == CLIENTS
    assert "0" not in floods._counts
