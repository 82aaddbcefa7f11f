"""Run an ordered list of named steps; the first to fail reports its name and errno, and ends the list."""

from __future__ import annotations

from sandrun_sandbox import linux_unsafe as linux
from sandrun_sandbox.messages import Failed

TYPE_CHECKING = False  # as typing's, without importing it
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    Step = tuple[str, Callable[[], object]]


class StepError(Exception):
    """A step of the set-up failed; `report` is sent to the executor."""

    def __init__(self, name: str, code: int) -> None:
        super().__init__(name, code)
        self.report = Failed(name, code)


def run_steps(steps: Iterable[Step]) -> None:
    """Run each step in order. Raises StepError.

    Meanwhile the process's name is that of the step, so that a hanging step can be read from outside.
    """
    for name, action in steps:
        linux.set_name(name)
        try:
            action()
        except OSError as error:
            raise StepError(name, error.errno or 0) from None
    linux.set_name()
