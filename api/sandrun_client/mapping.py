"""Many programs, some at a time: what one of them meets leaves the results of the others alone."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import anyio

from sandrun_client.errors import ConnectionFailed, InvalidUpload, RateLimited, SandrunError
from sandrun_client.models import Result

Outcome = Result | SandrunError
OnResult = Callable[[int, Outcome], None]  # the program's number, and how it went
# After these no other program is tried: it would meet the same.
_FOR_ALL = (RateLimited, ConnectionFailed)


class Batch:
    """The programs that are still to be run, and the outcomes so far; for one thread, or behind one lock."""

    def __init__(
        self, programs: Iterable[Any], options: Mapping[str, Any], on_result: OnResult | None
    ) -> None:
        self._given = [_arguments(program, options) for program in programs]
        self._next = 0
        self._on_result = on_result
        self._stopped: SandrunError | None = None
        self.outcomes: list[Outcome | None] = [None] * len(self._given)

    def take(self) -> tuple[int, dict[str, Any]] | None:
        """The number and the arguments of the next program, None after the last one."""
        while self._next < len(self._given):
            number = self._next
            self._next += 1
            if self._stopped is None:
                return number, self._given[number]
            self.put(number, self._stopped)
        return None

    def put(self, number: int, outcome: Outcome) -> None:
        """Keep how a program went."""
        if isinstance(outcome, _FOR_ALL):
            self._stopped = self._stopped or outcome
        self.outcomes[number] = outcome
        if self._on_result is not None:
            self._on_result(number, outcome)

    def all(self) -> list[Outcome]:
        """Every outcome, in the order of the programs."""
        return [outcome for outcome in self.outcomes if outcome is not None]


def _arguments(program: Any, options: Mapping[str, Any]) -> dict[str, Any]:
    if isinstance(program, str):
        return {**options, "code": program}
    if isinstance(program, Mapping) and "code" in program:
        return {**options, **program}
    raise InvalidUpload("A program of `map` is code, or keywords of `run` with `code` among them.")


def checked(concurrency: int) -> int:
    """The number of programs at a time. Raises InvalidUpload for none."""
    if concurrency < 1:
        raise InvalidUpload("`concurrency` is at least 1.")
    return concurrency


def run_all(run: Callable[..., Result], batch: Batch, concurrency: int) -> list[Outcome]:
    """In threads, of which none outlives the call."""
    import threading  # noqa: PLC0415
    from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415

    lock, given_up = threading.Lock(), threading.Event()

    def work() -> None:
        while not given_up.is_set():
            with lock:
                taken = batch.take()
            if taken is None:
                return
            number, arguments = taken
            try:
                outcome: Outcome = run(**arguments)
            except SandrunError as error:
                outcome = error
            with lock:
                batch.put(number, outcome)

    with ThreadPoolExecutor(checked(concurrency), "sandrun-map") as threads:
        try:
            for done in [threads.submit(work) for _ in range(concurrency)]:
                done.result()
        finally:
            given_up.set()
    return batch.all()


async def run_all_async(run: Callable[..., Any], batch: Batch, concurrency: int) -> list[Outcome]:
    """In tasks, of which none outlives the call."""

    async def work() -> None:
        while (taken := batch.take()) is not None:
            number, arguments = taken
            try:
                outcome: Outcome = await run(**arguments)
            except SandrunError as error:
                outcome = error
            batch.put(number, outcome)

    checked(concurrency)
    async with anyio.create_task_group() as group:
        for _ in range(concurrency):
            group.start_soon(work)
    return batch.all()
