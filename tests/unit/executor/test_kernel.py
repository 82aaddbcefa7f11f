"""Parsing what the kernel reports about itself."""

import pytest

from sandrun_executor import kernel


@pytest.mark.parametrize(
    ("release", "version", "noswap"),
    [
        ("5.14.0-rc1+", (5, 14), False),
        ("6.3.13", (6, 3), False),
        ("6.4-rc1", (6, 4), True),
        ("6.18.0-1-amd64", (6, 18), True),
        ("10.0", (10, 0), True),
        ("6", (0, 0), False),
        ("odd", (0, 0), False),
    ],
)
def test_version(release: str, version: tuple[int, int], noswap: bool) -> None:
    assert kernel.version(release) == version
    assert kernel.has_noswap(release) is noswap


def test_core_dumps_that_go_to_a_program() -> None:
    assert kernel.pipes_cores("|/usr/share/apport/apport -p%p\n")
    assert not kernel.pipes_cores("core\n")
    assert not kernel.pipes_cores("")
