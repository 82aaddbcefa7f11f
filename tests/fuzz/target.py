"""What the fuzzer runs: a property, and the inputs for which it must hold."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from hypothesis import given
from hypothesis.strategies import SearchStrategy


@dataclass(frozen=True)
class Target:
    """check raises for an input that breaks the property; examples is how many the normal tests try."""

    name: str
    check: Callable[[Any], None]
    inputs: SearchStrategy[Any]
    examples: int = 100

    def test(self, count: Callable[[], None] = lambda: None) -> Callable[[], None]:
        """A test of hypothesis; count is called for each input."""

        def holds(value: Any) -> None:
            count()
            self.check(value)

        return given(self.inputs)(holds)
