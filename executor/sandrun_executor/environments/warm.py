"""Warm environments: one zygote and one park for each in use, rebalanced by demand."""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial

from sandrun_executor.environments.builds import Build, BuildStore
from sandrun_executor.environments.maker import SandboxMaker
from sandrun_executor.environments.park import Park
from sandrun_executor.environments.shares import Demand, Memory, shared_out
from sandrun_executor.sandboxes.sandbox import Sandbox
from sandrun_executor.sandboxes.slots import NoSlotError
from sandrun_executor.sandboxes.zygote import Zygote, ZygoteError
from sandrun_shared.environments import DEFAULT, DefinitionError
from sandrun_shared.jobs import Limits

TICK_SECONDS = 2.0
_log = logging.getLogger("sandrun.executor")


class WarmEnvironment:
    """The zygote of one build, or of `default`, and its sandboxes; once retired, it ends with the last."""

    def __init__(self, build: Build | None, maker: SandboxMaker, freed: Callable[[], None]) -> None:
        self.build = build
        self._maker = maker
        self._freed = freed
        self._zygote: Zygote | None = None
        self._homes: Counter[Zygote] = Counter()  # the number of live sandboxes of each zygote
        self._left: set[Zygote] = set()  # zygotes that fork no more, kept alive for their sandboxes
        # One task for all waiting jobs: a job that gives up must not cancel what others wait for.
        self._starting: asyncio.Task[Zygote] | None = None
        self._endings: set[asyncio.Task[None]] = set()
        self._stopping: set[asyncio.Task[None]] = set()
        self._sandboxes = 0
        self._holds = 0
        self._retired = False
        self.closed = False
        self.park = Park(0, self.prepare, self.release)

    @property
    def warm(self) -> bool:
        """Whether its zygote runs."""
        return self._zygote is not None and self._zygote.alive and self._zygote.answers

    @property
    def build_name(self) -> str:
        """The build's path in the folder of builds, NAME/DIGEST."""
        return DEFAULT if self.build is None else f"{self.build.name}/{self.build.record.digest}"

    @property
    def busy(self) -> bool:
        """Whether a job runs in it or waits for a sandbox."""
        return self._holds > 0 or self._sandboxes > self.park.waiting

    async def acquire(self, gpu: int | None = None) -> Sandbox:
        """Acquire a sandbox as Park.acquire does; one with a GPU is always new."""
        with self.held():
            try:
                if gpu is None:
                    return await self.park.acquire()
                self.park.circuit.check()
                return await self.prepare(gpu)
            except NoSlotError:
                raise TimeoutError from None

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep it, even if it is retired, for a job that is about to acquire a sandbox."""
        self._holds += 1
        try:
            yield
        finally:
            self._holds -= 1
            self._close_if_empty()

    async def prepare(self, gpu: int | None = None) -> Sandbox:
        """Prepare a sandbox. Raises what starting a zygote or a sandbox raises."""
        self._sandboxes += 1
        try:
            zygote = await self.ready_zygote()
            sandbox = await self._maker.prepare(zygote, gpu)
        except BaseException:
            self._sandboxes -= 1
            self._close_if_empty()
            raise
        self._homes[zygote] += 1
        return sandbox

    async def ready_zygote(self) -> Zygote:
        """Return the zygote, starting it if necessary. Raises ZygoteError."""
        if self._zygote is not None and self.warm:
            return self._zygote
        if self._starting is None:
            self._starting = asyncio.create_task(self._restart())
            self._starting.add_done_callback(self._started)
        return await asyncio.shield(self._starting)

    async def _restart(self) -> Zygote:
        if self._zygote is not None:
            self._leave(self._zygote)
            self._zygote = None
        self._zygote = await self._new_zygote()
        return self._zygote

    def _leave(self, zygote: Zygote) -> None:
        """Stop a zygote once its last sandbox has ended, because its sandboxes die with it."""
        if zygote.alive and self._homes[zygote]:
            self._left.add(zygote)
            return
        self._left.discard(zygote)
        del self._homes[zygote]
        self._stop(zygote)

    def _stop(self, zygote: Zygote) -> None:
        zygote.stop()
        task = asyncio.get_running_loop().create_task(zygote.ended())
        self._stopping.add(task)
        task.add_done_callback(self._stopping.discard)

    def _started(self, task: asyncio.Task[Zygote]) -> None:
        self._starting = None
        if not task.cancelled():
            task.exception()  # the waiting tasks get it

    async def _new_zygote(self) -> Zygote:
        if self.build is None:
            return await self._maker.start_zygote(None)
        try:
            return await self._maker.start_zygote(self.build.image(preload=True))
        except ZygoteError as error:
            _log.error(
                "cannot import modules of %s ahead, so its jobs start without: %s", self.build.name, error
            )
            return await self._maker.start_zygote(self.build.image(preload=False))

    def release(self, sandbox: Sandbox) -> None:
        """Destroy a sandbox in the background, so that its job's answer need not wait."""
        task = asyncio.get_running_loop().create_task(sandbox.destroy())
        self._endings.add(task)
        task.add_done_callback(partial(self._ended, sandbox.zygote))

    def _ended(self, zygote: Zygote, task: asyncio.Task[None]) -> None:
        self._endings.discard(task)
        self._sandboxes -= 1
        self._homes[zygote] -= 1
        if self._homes[zygote] <= 0:
            del self._homes[zygote]
        if zygote in self._left:
            self._leave(zygote)
        if not task.cancelled() and task.exception() is not None:
            _log.error("a sandbox could not be destroyed: %s", type(task.exception()).__name__)
        self._freed()
        self._close_if_empty()

    async def retire(self) -> None:
        """Park nothing more, and end with the last job."""
        self._retired = True
        await self.park.close()
        self._close_if_empty()

    def _close_if_empty(self) -> None:
        if not self._retired or self._sandboxes or self._holds or self.closed:
            return
        self.closed = True
        if self._starting is not None:
            self._starting.cancel()
        for zygote in (*self._left, *([self._zygote] if self._zygote is not None else [])):
            self._stop(zygote)
        self._left.clear()
        if self.build is not None:
            self.build.close()

    async def close(self) -> None:
        """Leave nothing; every job must have ended."""
        starting = self._starting
        await self.retire()
        if starting is not None:
            await asyncio.gather(starting, return_exceptions=True)
        while self._endings or self._stopping:
            await asyncio.wait(self._endings | self._stopping)
            await asyncio.sleep(0)  # run their done callbacks


class WarmEnvironments:
    """The warm environments by name; `default` is always among them."""

    def __init__(
        self,
        builds: BuildStore,
        maker: SandboxMaker,
        places: int,
        warm: int,
        *,
        clock: Callable[[], float] = time.monotonic,
        memory: Callable[[], Memory] = Memory.read,
    ) -> None:
        self._builds = builds
        self._places = places
        self._warm = warm
        self._maker = maker
        self._memory = memory
        self._demand = Demand(clock)
        self._failed_before = 0  # in environments that were retired
        self._by_name: dict[str, WarmEnvironment] = {DEFAULT: self._make(None)}
        self._retired: set[WarmEnvironment] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    def _make(self, build: Build | None) -> WarmEnvironment:
        return WarmEnvironment(build, self._maker, self.slot_freed)

    async def start(self, preload: list[str]) -> None:
        """Prepare the first sandbox, then fill these environments' parks too. Raises as prepare does."""
        await self._by_name[DEFAULT].park.start()
        for name in preload:
            try:
                self._current(name)
            except DefinitionError as error:
                _log.error("cannot preload: %s", error)
        self.balance()
        self._spawn(self._tick())

    def refusal(self, name: str) -> str:
        """Say why no job can run in this environment; "" if one can."""
        return "" if name == DEFAULT or self._builds.current(name) else self._builds.why_missing(name)

    @contextmanager
    def hold(self, name: str) -> Iterator[WarmEnvironment]:
        """Hold the build that a job will run in, even if a newer one is built. Raises DefinitionError."""
        environment = self._current(name)
        with environment.held():
            yield environment

    async def acquire(
        self, name: str, gpu: int | None = None, held: WarmEnvironment | None = None
    ) -> tuple[WarmEnvironment, Sandbox]:
        """Acquire a sandbox, from the held environment if given; returns the environment to release it to.

        Raises DefinitionError, and what Park.acquire raises.
        """
        environment = held or self._current(name)
        self._demand.note(name)
        return environment, await environment.acquire(gpu)

    def _current(self, name: str) -> WarmEnvironment:
        environment = self._by_name.get(name)
        if name == DEFAULT and environment is not None:
            return environment
        digest = self._builds.current(name)
        if (
            environment is not None
            and environment.build is not None
            and environment.build.record.digest == digest
        ):
            return environment
        build = self._builds.open(name)
        if environment is not None:
            self._retire(name)
        self._by_name[name] = self._make(build)
        self._by_name[name].park.open()
        return self._by_name[name]

    def _retire(self, name: str) -> None:
        environment = self._by_name.pop(name)
        self._failed_before += environment.park.circuit.failures
        self._retired.add(environment)
        self._spawn(environment.retire())

    async def prepare_to_install(self, limits: Limits) -> Sandbox:
        """Prepare a sandbox that installs packages. Raises what starting a zygote or a sandbox raises."""
        zygote = await self._by_name[DEFAULT].ready_zygote()
        return await self._maker.prepare_to_install(zygote, limits)

    def warm_names(self) -> list[str]:
        """List the environments whose zygote runs."""
        return [name for name, environment in self._by_name.items() if environment.warm]

    def slot_freed(self) -> None:
        """Wake the tasks that wait for a slot."""
        for environment in (*self._by_name.values(), *self._retired):
            environment.park.slot_freed()

    def slot_reclaimed(self) -> None:
        """Retry at once: a retired slot became free."""
        self.slot_freed()
        for environment in self._by_name.values():
            environment.park.try_again()

    async def problem(self) -> str:
        """Say why no job could get a sandbox of `default` now, for clients; "" if one could."""
        return await self._by_name[DEFAULT].park.problem()

    def known_problem(self) -> str:
        """As problem, without trying."""
        return self._by_name[DEFAULT].park.known_problem()

    @property
    def failures(self) -> int:
        """How many times a sandbox could not be made, over all environments."""
        return self._failed_before + sum(
            environment.park.circuit.failures for environment in self._by_name.values()
        )

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_SECONDS)
            try:
                self.balance()
            except OSError as error:
                _log.error("cannot rebalance the environments: %s", error.strerror)

    def balance(self) -> None:
        """Follow what was built or removed, retire the least recently used surplus, share out the places."""
        memory = self._memory()
        for name in [name for name in self._by_name if name != DEFAULT]:
            if not self._builds.current(name):
                self._retire(name)
                continue
            try:
                self._current(name)
            except DefinitionError as error:
                _log.error("%s stays on its old build: %s", name, error)
        self._retired = {environment for environment in self._retired if not environment.closed}
        idle = sorted(
            (name for name, environment in self._by_name.items() if not environment.busy),
            key=self._demand.asked_at,
        )
        surplus = len(self._by_name) - 1 - (self._warm if memory.comfort else 0)
        for name in [name for name in idle if name != DEFAULT][: max(surplus, 0)]:
            self._retire(name)
        self._demand.forget(self._by_name)
        rates = {name: self._demand.rate(name) for name in self._by_name}
        given = shared_out(self._places, rates, memory)
        # Shrink before growing, so that slots are free.
        for name, environment in sorted(
            self._by_name.items(), key=lambda item: given[item[0]] - item[1].park.size
        ):
            environment.park.resize(given[name])

    def _spawn(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Leave nothing; every job must have ended."""
        for task in tuple(self._tasks):
            task.cancel()
        with suppress(asyncio.CancelledError):
            await asyncio.gather(*self._tasks, return_exceptions=True)
        for environment in (*self._by_name.values(), *self._retired):
            await environment.close()
