"""An ordered list of steps and its report."""

import errno
from pathlib import Path

import pytest

from sandrun_sandbox import linux_unsafe as linux
from sandrun_sandbox.messages import Failed
from sandrun_sandbox.steps import StepError, run_steps


def fail(code: int | None) -> None:
    raise OSError(code, "told to nobody") if code is not None else OSError("no number")


def test_steps_run_in_order() -> None:
    done: list[str] = []
    run_steps([(name, lambda name=name: done.append(name)) for name in "abc"])  # type: ignore[misc]
    assert done == ["a", "b", "c"]


def test_first_failure_ends_the_list_and_is_named() -> None:
    done: list[str] = []
    steps = [
        ("first", lambda: done.append("first")),
        ("second", lambda: fail(errno.EPERM)),
        ("third", lambda: done.append("third")),
    ]
    with pytest.raises(StepError) as caught:
        run_steps(steps)
    assert caught.value.report == Failed("second", errno.EPERM)
    assert done == ["first"]


def test_failure_without_a_number() -> None:
    with pytest.raises(StepError) as caught:
        run_steps([("only", lambda: fail(None))])
    assert caught.value.report == Failed("only", 0)


def test_report_has_nothing_of_the_error() -> None:
    with pytest.raises(StepError) as caught:
        run_steps([("only", lambda: fail(2))])
    assert "told" not in repr(caught.value.report)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_a_bug_is_no_step_error() -> None:
    with pytest.raises(ZeroDivisionError):
        run_steps([("bug", lambda: 1 // 0)])


def test_a_process_has_the_name_of_its_step() -> None:
    comm = Path("/proc/thread-self/comm")
    names = []
    run_steps(
        [(name, lambda: names.append(comm.read_text())) for name in ("seccomp", "user_namespace")],
    )
    assert names == ["seccomp\n", "user_namespace\n"]
    assert comm.read_text().strip() == linux.own_name().decode()
