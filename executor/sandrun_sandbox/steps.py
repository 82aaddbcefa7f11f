"""An ordered list of named steps; the first that fails says its name and errno, and nothing runs."""

from __future__ import annotations

from sandrun_sandbox import linux_unsafe as linux
from sandrun_sandbox.messages import Failed

TYPE_CHECKING = False  # as typing's, without importing it
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    Step = tuple[str, Callable[[], object]]


class StepError(Exception):
    """A step of the set-up failed; `report` is what goes to the executor."""

    def __init__(self, name: str, code: int) -> None:
        super().__init__(name, code)
        self.report = Failed(name, code)


def run_steps(steps: Iterable[Step]) -> None:
    """Run each step in order. Raises StepError.

    The process has the name of its step meanwhile: that of one that never returns can be read from outside.
    """
    for name, action in steps:
        linux.set_name(name)
        try:
            action()
        except OSError as error:
            raise StepError(name, error.errno or 0) from None
    linux.set_name()
