"""Layers of installed packages: one tmpfs each, mounted in a private namespace, shared read-only."""

import asyncio
import errno
import os
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TypeVar

from sandrun_sandbox import linux_unsafe as linux

MAX_AGE_SECONDS = 86400.0  # an unpinned requirement means what the registry has today
INODES = 300_000
_BASE = "/tmp"  # noqa: S108 (a mount point that every system has, in the thread's own namespace)
_SAFE = linux.MS_NOSUID | linux.MS_NODEV
T = TypeVar("T")


class LayerMounts:
    """A mount namespace in which layers stay mounted, entered by one thread only.

    A detached mount can be attached only once (move_mount(2)), so a layer that many jobs use must stay
    mounted somewhere. The namespace holds nothing else and ends with the process, and so do the layers;
    therefore a successor has nothing to sweep. Nothing here looks into a layer.
    """

    def __init__(self, noswap: str) -> None:
        self._noswap = noswap
        self._thread = ThreadPoolExecutor(1, "layers", initializer=_enter)
        self._made = 0

    async def _do(self, work: Callable[[], T]) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work)
        except BrokenExecutor:
            raise OSError(errno.EPERM, "the thread that holds layers of packages could not start") from None

    async def create(self, size_bytes: int, uid: int) -> tuple[int, int]:
        """Create an empty layer that uid may write to; returns its number and a descriptor of its mount."""
        self._made += 1
        number = self._made
        return number, await self._do(lambda: self._create(number, size_bytes, uid))

    def _create(self, number: int, size_bytes: int, uid: int) -> int:
        os.mkdir(f"/{number}", 0o700)
        options = f"mode=755,size={size_bytes},nr_inodes={INODES}{self._noswap}"
        with ExitStack() as undo:
            undo.callback(os.rmdir, f"/{number}")
            linux.mount("tmpfs", f"/{number}", "tmpfs", _SAFE, options)
            undo.callback(linux.umount2, f"/{number}")
            os.mkdir(f"/{number}/empty", 0o755)
            os.mkdir(f"/{number}/data", 0o755)
            os.chown(f"/{number}/data", uid, uid)
            fd = linux.open_tree_clone(f"/{number}/data")
            undo.pop_all()
        return fd

    async def seal(self, number: int) -> int:
        """Make the layer read-only for good; returns its size in bytes. Raises OSError during writes."""
        return await self._do(lambda: self._seal(number))

    def _seal(self, number: int) -> int:
        flags = linux.MS_REMOUNT | linux.MS_RDONLY | _SAFE
        linux.mount("", f"/{number}", "", flags, self._noswap.removeprefix(","))
        state = os.statvfs(f"/{number}")
        return (state.f_blocks - state.f_bfree) * state.f_frsize

    async def share(self, number: int) -> int:
        """Return a descriptor of one more mount of the layer, read-only."""
        return await self._do(lambda: _share(number))

    async def drop(self, number: int) -> None:
        """Unmount a layer; its memory is freed with the last job that has it mounted."""
        await self._do(lambda: _drop(number))

    def close(self) -> None:
        """End the thread and with it every mount."""
        self._thread.shutdown(wait=True)


def _enter() -> None:
    """Move this thread into an empty mount namespace (pivot_root(2), the form with two dots)."""
    linux.unshare(linux.CLONE_NEWNS)
    linux.mount("", "/", "", linux.MS_REC | linux.MS_PRIVATE)
    linux.mount("tmpfs", _BASE, "tmpfs", _SAFE, "mode=700,size=4m")
    os.chdir(_BASE)
    linux.pivot_root(".", ".")
    linux.umount2(".")
    os.chdir("/")


def _share(number: int) -> int:
    fd = linux.open_tree_clone(f"/{number}")
    try:
        linux.mount_read_only(fd)
    except OSError:
        os.close(fd)
        raise
    return fd


def _drop(number: int) -> None:
    linux.umount2(f"/{number}")
    os.rmdir(f"/{number}")


@dataclass
class Layer:
    """One set of installed packages: its size, its users, and when it was made."""

    number: int
    size_bytes: int
    made_at: float
    users: int = 0
    kept: bool = True


class Layers:
    """LRU cache of layers, bounded by their total size."""

    def __init__(
        self, mounts: LayerMounts, limit_bytes: int, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._mounts = mounts
        self._limit_bytes = limit_bytes
        self._now = now
        self._kept: OrderedDict[bytes, Layer] = OrderedDict()
        self._dropped_bytes = 0  # of evicted layers that are still mounted

    @property
    def size_bytes(self) -> int:
        """The total size of all layers."""
        return self._dropped_bytes + sum(layer.size_bytes for layer in self._kept.values())

    async def acquire(self, key: bytes) -> Layer | None:
        """Acquire the layer of a key; None if it is not cached or too old."""
        layer = self._kept.get(key)
        if layer is None:
            return None
        if self._now() - layer.made_at > MAX_AGE_SECONDS:
            await self._evict(key)
            return None
        self._kept.move_to_end(key)
        layer.users += 1
        return layer

    async def add(self, key: bytes, number: int, size_bytes: int) -> Layer:
        """Cache a new layer and acquire it. Raises OSError, and caches nothing, if eviction fails."""
        layer = Layer(number, size_bytes, self._now(), users=1)
        older = self._kept.pop(key, None)
        self._kept[key] = layer
        try:
            if older is not None:
                await self._retire(older)
            while self._kept and self.size_bytes > self._limit_bytes:
                await self._evict(next(iter(self._kept)))
        except BaseException:
            if layer.kept:
                await self._evict(key)
            await self.release(layer)  # no caller can
            raise
        return layer

    async def release(self, layer: Layer) -> None:
        """Release one use."""
        layer.users -= 1
        if not layer.kept and not layer.users:
            await self._drop(layer)

    async def _evict(self, key: bytes) -> None:
        await self._retire(self._kept.pop(key))

    async def _retire(self, layer: Layer) -> None:
        """Take a layer out of the cache and drop it, at once or with its last user."""
        layer.kept = False
        self._dropped_bytes += layer.size_bytes
        if not layer.users:
            await self._drop(layer)

    async def _drop(self, layer: Layer) -> None:
        await self._mounts.drop(layer.number)
        self._dropped_bytes -= layer.size_bytes  # only now: a layer that cannot be dropped takes memory
