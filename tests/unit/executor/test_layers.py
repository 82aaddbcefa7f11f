"""Which layers are cached, and when they are dropped."""

import asyncio

import pytest

from sandrun_executor.packages.layers import MAX_AGE_SECONDS, Layer, Layers


class FakeMounts:
    """A fake of the thread that holds the mounts."""

    def __init__(self) -> None:
        self.dropped: list[int] = []
        self.refused: set[int] = set()

    async def share(self, number: int) -> int:
        return number

    async def drop(self, number: int) -> None:
        if number in self.refused:
            raise OSError(16, "Device or resource busy")
        self.dropped.append(number)


class Bench:
    """Layers of which each takes 10 of 30 bytes, with a fake clock."""

    def __init__(self) -> None:
        self.now = 0.0
        self.mounts = FakeMounts()
        self.layers = Layers(self.mounts, 30, lambda: self.now)  # type: ignore[arg-type]
        self.made = 0

    async def add(self, key: bytes, size: int = 10, *, use: bool = False) -> Layer:
        self.made += 1
        layer = await self.layers.add(key, self.made, size)
        if not use:
            await self.layers.release(layer)
        return layer

    async def has(self, key: bytes) -> bool:
        layer = await self.layers.acquire(key)
        if layer is not None:
            await self.layers.release(layer)
        return layer is not None


def test_the_least_recently_used_makes_room() -> None:
    async def scenario() -> None:
        bench = Bench()
        for key in (b"a", b"b", b"c"):
            await bench.add(key)
        assert await bench.has(b"a")
        await bench.add(b"d")
        assert bench.mounts.dropped == [2]
        assert [await bench.has(key) for key in (b"a", b"b", b"c", b"d")] == [True, False, True, True]

    asyncio.run(scenario())


def test_one_in_use_is_forgotten_at_once_and_dropped_later() -> None:
    async def scenario() -> None:
        bench = Bench()
        used = await bench.add(b"a", use=True)
        await bench.add(b"b", 30)
        assert not await bench.has(b"a")
        assert bench.mounts.dropped == [2]  # both are more than there is room for, and one must stay
        assert bench.layers.size_bytes == 10
        await bench.layers.release(used)
        assert bench.mounts.dropped == [2, 1]
        assert bench.layers.size_bytes == 0

    asyncio.run(scenario())


def test_one_larger_than_the_room_is_for_its_own_jobs() -> None:
    async def scenario() -> None:
        bench = Bench()
        layer = await bench.add(b"a", 31, use=True)
        assert not await bench.has(b"a")
        assert bench.mounts.dropped == []
        await bench.layers.release(layer)
        assert bench.mounts.dropped == [1]

    asyncio.run(scenario())


def test_an_old_one_is_not_used() -> None:
    async def scenario() -> None:
        bench = Bench()
        await bench.add(b"a")
        bench.now = MAX_AGE_SECONDS
        assert await bench.has(b"a")
        bench.now += 1
        assert not await bench.has(b"a")
        assert bench.mounts.dropped == [1]

    asyncio.run(scenario())


def test_a_newer_one_takes_the_place() -> None:
    async def scenario() -> None:
        bench = Bench()
        await bench.add(b"a")
        await bench.add(b"a")
        assert bench.mounts.dropped == [1]
        assert bench.layers.size_bytes == 10

    asyncio.run(scenario())


@pytest.mark.parametrize(("key", "size"), [(b"b", 30), (b"a", 10)], ids=["no room", "the same key"])
def test_one_whose_adding_fails_is_not_kept(key: bytes, size: int) -> None:
    """No caller has acquired it, so none would release it."""

    async def scenario() -> None:
        bench = Bench()
        await bench.add(b"a")
        bench.mounts.refused = {1}
        with pytest.raises(OSError, match="busy"):
            await bench.add(key, size)
        assert bench.mounts.dropped == [2]
        assert not await bench.has(key)
        assert bench.layers.size_bytes == 10  # the first still takes its memory

    asyncio.run(scenario())
