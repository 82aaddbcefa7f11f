"""The offsets of a sandbox's clocks (time_namespaces(7))."""

import os
import time
from pathlib import Path

import pytest

from sandrun_sandbox import init
from sandrun_sandbox import linux_unsafe as linux

HOST = {
    time.CLOCK_MONOTONIC: 5_000_000.9,
    time.CLOCK_MONOTONIC_RAW: 4_999_870.2,
    time.CLOCK_BOOTTIME: 5_400_000.5,
}


def test_no_clock_begins_below_zero(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """NTP has slewed CLOCK_MONOTONIC 130 seconds ahead of the raw one, which has the same offset."""
    written = tmp_path / "timens_offsets"
    written.touch()
    opened = os.open
    monkeypatch.setattr(linux, "unshare", lambda _flags: None)
    monkeypatch.setattr(time, "clock_gettime", HOST.__getitem__)
    monkeypatch.setattr(os, "open", lambda path, flags: opened(written, flags))
    init._new_clock()
    offsets = {name: int(seconds) for name, seconds, _ in map(str.split, written.read_text().splitlines())}
    assert 0 <= HOST[time.CLOCK_MONOTONIC_RAW] + offsets["monotonic"] < 1
    assert 0 <= HOST[time.CLOCK_MONOTONIC] + offsets["monotonic"] < 132
    assert 0 <= HOST[time.CLOCK_BOOTTIME] + offsets["boottime"] < 1
