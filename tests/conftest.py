"""Rules for all tests: they leave no cgroup behind, and only those that apply here are collected."""

import signal
from collections.abc import Iterator

import hypothesis
import pytest

from sandrun_executor.cgroups import probe
from sandrun_executor.cgroups.driver import CgroupError
from sandrun_executor.cgroups.v1 import HierarchyV1
from support import machine

# A busy machine is no failure.
hypothesis.settings.register_profile(
    "sandrun", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("sandrun")

# A shell's background command ignores these, and so would everything that a test starts and then interrupts.
for _number, _handler in (
    (signal.SIGINT, signal.default_int_handler),
    (signal.SIGQUIT, signal.SIG_DFL),
    (signal.SIGHUP, signal.SIG_DFL),
):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, _handler)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect the tests of the other version of cgroups."""
    marked = {item: marker.args[0] for item in items if (marker := item.get_closest_marker("cgroup"))}
    if not marked:
        return
    try:
        version = "v1" if isinstance(probe.probe("version"), HierarchyV1) else "v2"
    except (CgroupError, OSError):
        return  # the tests say what is missing
    others = {item for item, wanted in marked.items() if wanted != version}
    items[:] = [item for item in items if item not in others]
    config.hook.pytest_deselected(items=[*others])


@pytest.fixture(scope="session", autouse=True)
def _no_cgroup_remains() -> Iterator[None]:
    """Check that no executor started by a test, however it ended, has left a cgroup."""
    yield
    left: set[str] = set()

    def none_left() -> bool:
        left.clear()
        left.update(machine.cgroups_of_all())
        return not left

    assert machine.eventually(none_left), f"tests left cgroups behind: {sorted(left)}"
