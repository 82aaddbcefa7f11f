"""Warm environments: made on demand, replaced by a new build, retired when idle."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import cast

import pytest

from sandrun_executor.environments import park, warm
from sandrun_executor.environments.builds import BuildStore
from sandrun_executor.environments.maker import SandboxMaker
from sandrun_executor.environments.shares import Memory
from sandrun_executor.sandboxes.sandbox import Sandbox
from sandrun_executor.sandboxes.slots import NoSlotError
from sandrun_executor.sandboxes.zygote import Image, Zygote, ZygoteError
from sandrun_shared.environments import DefinitionError
from support.clocks import FakeClock

pytestmark = pytest.mark.anyio
PLACES = 6


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@dataclass(eq=False)
class FakeBuild:
    name: str
    digest: str
    closed: bool = False

    @property
    def record(self) -> SimpleNamespace:
        return SimpleNamespace(digest=self.digest)

    def image(self, *, preload: bool) -> tuple[str, str, bool]:
        return self.name, self.digest, preload

    def close(self) -> None:
        assert not self.closed
        self.closed = True


@dataclass
class FakeBuildStore:
    digests: dict[str, str] = field(default_factory=dict)
    builds: list[FakeBuild] = field(default_factory=list)

    def current(self, name: str) -> str:
        return self.digests.get(name, "")

    def open(self, name: str) -> FakeBuild:
        if name not in self.digests:
            raise DefinitionError(self.why_missing(name))
        self.builds.append(FakeBuild(name, self.digests[name]))
        return self.builds[-1]

    def why_missing(self, name: str) -> str:
        return f"there is no environment {name}"


@dataclass(eq=False)
class FakeZygote:
    image: tuple[str, str, bool] | None
    alive: bool = True

    answers: bool = True

    def stop(self) -> None:
        assert self.alive
        self.alive = False

    async def ended(self) -> None:
        assert not self.alive


@dataclass(eq=False)
class FakeSandbox:
    zygote: FakeZygote
    give_back: Callable[[], None]
    usable: bool = True

    async def destroy(self) -> None:
        await asyncio.sleep(0)
        self.give_back()


class House:
    """Fake slots, zygotes and memory for the warm environments."""

    def __init__(self) -> None:
        self.builds, self.clock = FakeBuildStore({"a": "1", "b": "1", "c": "1"}), FakeClock()
        self.memory = Memory(0.9)
        self.slots = 20
        self.zygotes: list[FakeZygote] = []
        self.cannot_preload: set[str] = set()
        self.imported = asyncio.Event()
        self.imported.set()
        self.running = warm.WarmEnvironments(
            cast(BuildStore, self.builds),
            cast(SandboxMaker, self),
            PLACES,
            2,
            clock=self.clock.seconds,
            memory=lambda: self.memory,
        )

    async def start_zygote(self, image: Image | None) -> Zygote:
        await self.imported.wait()
        await asyncio.sleep(0)
        asked = cast("tuple[str, str, bool] | None", image)
        if asked is not None and asked[2] and asked[0] in self.cannot_preload:
            raise ZygoteError("a module starts a thread")
        self.zygotes.append(FakeZygote(asked))
        return cast(Zygote, self.zygotes[-1])

    async def prepare(self, zygote: Zygote, gpu: int | None) -> Sandbox:
        await asyncio.sleep(0)
        if self.slots == 0:
            raise NoSlotError
        self.slots -= 1
        return cast(Sandbox, FakeSandbox(cast(FakeZygote, zygote), self.give_back))

    def give_back(self) -> None:
        self.slots += 1

    def parked(self) -> dict[str, int]:
        return {name: environment.park.waiting for name, environment in self.running._by_name.items()}

    def alive(self) -> list[str]:
        return sorted(
            zygote.image[0] if zygote.image else "default" for zygote in self.zygotes if zygote.alive
        )

    async def balance(self) -> None:
        self.running.balance()
        await turns()

    async def job(self, name: str) -> Sandbox:
        """Run a job from start to end; returns its sandbox."""
        environment, sandbox = await self.running.acquire(name)
        environment.release(sandbox)
        await turns()
        return sandbox


async def turns(count: int = 80) -> None:
    """Run the event loop until every task waits."""
    for _ in range(count):
        await asyncio.sleep(0)


@asynccontextmanager
async def started(*preload: str) -> AsyncIterator[House]:
    house = House()
    await house.running.start(list(preload))
    await turns()
    try:
        yield house
    finally:
        await house.running.close()
    assert house.slots == 20
    assert house.alive() == []
    assert all(build.closed for build in house.builds.builds)


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(park, "QUIET_SECONDS", 0)


async def test_default_has_everything_until_another_is_asked_for() -> None:
    async with started() as house:
        assert house.parked() == {"default": PLACES}
        for _ in range(3):
            await house.job("a")
        await house.balance()
        assert house.parked() == {"default": 1, "a": PLACES - 1}
        assert house.running.warm_names() == ["default", "a"]
        house.clock.advance(3600)
        await house.balance()
        assert house.parked() == {"default": PLACES - 1, "a": 1}


async def test_those_named_are_warm_at_the_start() -> None:
    async with started("a", "no-such") as house:
        assert house.parked() == {"default": PLACES - 1, "a": 1}
        assert house.alive() == ["a", "default"]


async def test_an_unknown_one_is_refused() -> None:
    async with started() as house:
        assert house.running.refusal("default") == house.running.refusal("a") == ""
        assert house.running.refusal("x") == "there is no environment x"
        with pytest.raises(DefinitionError):
            await house.running.acquire("x")


async def test_a_new_build_replaces_the_old_whose_jobs_go_on() -> None:
    async with started() as house:
        environment, sandbox = await house.running.acquire("a")
        house.builds.digests["a"] = "2"
        await house.job("a")
        await house.balance()
        assert [(build.digest, build.closed) for build in house.builds.builds] == [("1", False), ("2", False)]
        assert house.alive() == ["a", "a", "default"]
        assert environment.park.waiting == 0
        environment.release(sandbox)
        await turns()
        assert [build.closed for build in house.builds.builds] == [True, False]
        assert house.alive() == ["a", "default"]


async def test_a_job_that_waits_keeps_the_build_it_found() -> None:
    async with started() as house:
        with house.running.hold("a") as held:
            assert held.build_name == "a/1"
            house.builds.digests["a"] = "2"
            await house.balance()
            assert [build.closed for build in house.builds.builds] == [False, False]
            environment, sandbox = await house.running.acquire("a", None, held)
            assert (environment, environment.build_name) == (held, "a/1")
            environment.release(sandbox)
            await turns()
            assert not house.builds.builds[0].closed
        assert [build.closed for build in house.builds.builds] == [True, False]
        with house.running.hold("default") as held:
            assert held.build_name == "default"


async def test_a_new_build_is_warm_before_a_job_asks() -> None:
    async with started("a") as house:
        house.builds.digests["a"] = "2"
        await house.balance()
        assert [zygote.image and zygote.image[1] for zygote in house.zygotes if zygote.alive] == [None, "2"]


async def test_one_that_was_removed_is_let_go() -> None:
    async with started("a") as house:
        del house.builds.digests["a"]
        await house.balance()
        assert house.parked() == {"default": PLACES}
        assert house.alive() == ["default"]


async def test_too_many_are_let_go_the_longest_unused_first() -> None:
    async with started() as house:
        environment, sandbox = await house.running.acquire("a")
        for name in ("b", "c"):
            house.clock.advance(1)
            await house.job(name)
        await house.balance()
        assert house.alive() == ["a", "c", "default"]  # a has a job
        environment.release(sandbox)
        house.clock.advance(1)
        await house.job("b")
        await house.balance()
        assert house.alive() == ["b", "c", "default"]


async def test_short_memory_keeps_nothing_ahead_but_what_runs() -> None:
    async with started("a") as house:
        environment, sandbox = await house.running.acquire("b")
        house.memory = Memory(0.02)
        await house.balance()
        assert house.parked() == {"default": 0, "b": 0}
        assert house.alive() == ["b", "default"]
        await house.job("a")  # it still runs, made when it is needed
        house.memory = Memory(0.9)
        environment.release(sandbox)
        await turns()
        await house.balance()
        assert sum(house.parked().values()) == PLACES


async def test_what_cannot_be_imported_ahead_runs_without() -> None:
    async with started() as house:
        house.cannot_preload.add("a")
        sandbox = cast(FakeSandbox, await house.job("a"))
        assert sandbox.zygote.image == ("a", "1", False)


async def test_a_dead_zygote_is_replaced() -> None:
    async with started() as house:
        await house.job("a")
        dead = next(zygote for zygote in house.zygotes if zygote.image)
        dead.alive = False
        dead.stop = lambda: None  # type: ignore[method-assign]
        house.running._by_name["a"].park.resize(0)
        await turns()
        sandbox = cast(FakeSandbox, await house.job("a"))
        assert sandbox.zygote is not dead


async def test_a_job_that_waits_for_a_slot_keeps_its_environment() -> None:
    async with started() as house:
        house.slots, kept = 0, house.slots
        waiting = asyncio.create_task(house.running.acquire("a"))
        await turns()
        house.memory = Memory(0.02)
        await house.balance()
        assert house.alive() == ["a", "default"]
        house.slots += kept
        environment, sandbox = await waiting
        environment.release(sandbox)
        await turns()


async def test_importing_goes_on_when_the_job_that_waited_has_left() -> None:
    async with started() as house:
        house.imported.clear()
        waiting = [asyncio.create_task(house.running.acquire("a")) for _ in range(2)]
        await turns()
        waiting[0].cancel()
        await turns()
        house.imported.set()
        environment, sandbox = await waiting[1]
        environment.release(sandbox)
        await turns()
        assert house.alive() == ["a", "default"]


async def test_importing_ends_with_the_executor() -> None:
    async with started() as house:
        house.imported.clear()
        waiting = asyncio.create_task(house.running.acquire("a"))
        await turns()
        waiting.cancel()
        await turns()
        await house.running.close()
        assert house.alive() == []


async def test_a_zygote_that_forks_no_more_is_kept_for_its_jobs_and_replaced() -> None:
    async with started() as house:
        environment, sandbox = await house.running.acquire("a")
        old = cast(FakeSandbox, sandbox).zygote
        house.running._by_name["a"].park.resize(0)
        await turns()
        old.answers = False
        newer = cast(FakeSandbox, await house.job("a"))
        assert newer.zygote is not old
        assert old.alive  # its end would be that of the job
        environment.release(sandbox)
        await turns()
        assert not old.alive
        assert newer.zygote.alive


async def test_closing_ends_a_zygote_that_is_kept_for_a_job() -> None:
    async with started() as house:
        environment, sandbox = await house.running.acquire("a")
        cast(FakeSandbox, sandbox).zygote.answers = False
        await house.job("a")
        environment.release(sandbox)
    assert house.alive() == []


async def test_what_one_environment_cannot_do_is_not_refused_to_others() -> None:
    async with started() as house:
        house.running._by_name["default"].park.circuit.failed(ZygoteError("x"))
        await house.job("a")
        assert house.running.known_problem() == ""  # some wait
        park_of_default = house.running._by_name["default"].park
        while park_of_default._waiting:
            park_of_default._release(park_of_default._waiting.pop())
        park_of_default.circuit.failed(ZygoteError("x"))
        assert "no sandbox can be made" in house.running.known_problem()
        assert house.running.failures == 2
        await turns()
