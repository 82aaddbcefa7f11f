"""The executor with layers switched off, only for tests that show that a probe can succeed.

It runs in new PID and mount namespaces. Otherwise, without the layer "pid", a sandbox's first process would kill everything on the machine when it ends the job.
"""

import asyncio
import inspect
import logging
import os
import signal
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from sandrun_executor.cgroups import v1
from sandrun_executor.cgroups.v1 import CgroupV1
from sandrun_executor.cgroups.v2 import CgroupV2
from sandrun_executor.daemon import serve
from sandrun_executor.packages import egress
from sandrun_executor.packages import layers as layers_module
from sandrun_executor.packages.layers import LayerMounts
from sandrun_executor.sandboxes import execution, networks
from sandrun_executor.sandboxes import zygote as zygotes
from sandrun_executor.sandboxes.channel import Link
from sandrun_executor.sandboxes.networks import Network
from sandrun_executor.sandboxes.slots import Slot
from sandrun_sandbox import confine, init
from sandrun_sandbox import linux_unsafe as linux
from sandrun_sandbox.messages import Spawn
from sandrun_shared.settings import load

# Substitutions in (module of the sandbox, its text, the text without the layer). A name in neither table is
# that of a step, which is skipped.
PATCHES: dict[str, tuple[tuple[str, str, str], ...]] = {
    "pid": (("zygote", "_NAMESPACES = linux.CLONE_NEWPID | ", "_NAMESPACES = "),),
    "ipc": (("zygote", " | linux.CLONE_NEWIPC | ", " | "),),
    "uts": (("zygote", " | linux.CLONE_NEWUTS\n", "\n"),),
    "rlimits": (("zygote", '    lower_rlimits(config["core_bytes"])\n', ""),),
    "imports": (("init", "        imports.end()\n", ""),),
    "image": (("etc", '"mime.types", ', '"mime.types", "shadow", '),),
    "hide_local": (("root", '("local", "src")', '("src",)'),),
    "overlay": (
        (
            "root",
            'linux.mount("overlay", "/new/usr", "overlay", read_only, "lowerdir=/hide:/usr")',
            'linux.mount("/usr", "/new/usr", "", linux.MS_BIND)',
        ),
    ),
    "read_only_root": (
        (
            "root",
            'linux.mount("overlay", "/new", "overlay", flags, f"lowerdir={gpu_files.layers(gpu)}/image:/empty")',
            'linux.mount("/image", "/new", "", linux.MS_BIND); '
            'linux.mount("", "/new", "", linux.MS_BIND | linux.MS_REMOUNT | linux.MS_NOSUID)',
        ),
        (
            "root",
            "    flags = _SAFE | linux.MS_NOEXEC | linux.MS_RDONLY\n"
            '    linux.mount("", "/new", "", linux.MS_BIND | linux.MS_REMOUNT | flags)\n',
            "",
        ),
    ),
    "own_tmpfs": (
        ("root", '"stage", "usr", "old")', '"stage", "usr", "old", "shared")'),
        (
            "root",
            '    linux.umount2("/old")\n',
            '    linux.umount2("/old")\n'
            '    linux.mount("tmpfs", "/shared", "tmpfs", _SAFE)\n'
            '    for name in ("tmp", "vartmp"): os.mkdir("/shared/" + name); os.chmod("/shared/" + name, 0o1777)\n',
        ),
        (
            "root",
            'linux.mount("/stage/" + name, ',
            'linux.mount(("/shared/" if "tmp" in name else "/stage/") + name, ',
        ),
        (
            "root",
            'linux.mount("tmpfs", "/new/dev/shm", "tmpfs", _SAFE, "mode=1777," + limits.shm(noswap))',
            'linux.mount("/shared/tmp", "/new/dev/shm", "", linux.MS_BIND)',
        ),
        (
            "messages",
            "size={self.shm_bytes},nr_inodes={self.inodes}{noswap}",
            "size={self.shm_bytes},nr_inodes={self.inodes}",
        ),
    ),
    "hidepid": (("root", '"hidepid=invisible"', '""'),),
    "close_range": (("job", "linux.close_range(3)", "os.dup2(0, 77)"),),
    # Not a layer, but what one stops: the collector and the unpacker import while they work.
    "hoisted_imports": (
        (
            "collect",
            "        seconds = min(max(status.st_mtime_ns",
            "        try: import late, decimal\n        except ImportError: pass\n"
            "        seconds = min(max(status.st_mtime_ns",
        ),
        (
            "unpack",
            "        for path, target in self.links.items():",
            "        try: import late\n        except ImportError: pass\n"
            "        for path, target in self.links.items():",
        ),
    ),
    "unpackers_imports": (("job", "imports.end()  # a member", "pass  # a member"),),
    "environment": (("zygote", "os.environ.update(", 'os.environ.update(SECRET="leaked", **'),),
    "packages_overlay": (
        (
            "root",
            "    linux.move_mount(layer, INSTALLED)\n    lower",
            "    linux.move_mount(layer, TOOLS)\n    lower",
        ),
        (
            "root",
            'linux.mount("overlay", INSTALLED, "overlay", _SAFE | linux.MS_RDONLY, lower)',
            'linux.mount(TOOLS + "/data", INSTALLED, "", linux.MS_BIND)',
        ),
    ),
    "own_name": (("job", "program = _under_our_name(program)", "pass"),),
    "nodev": (
        (
            "root",
            "flags = _SAFE | linux.MS_NOEXEC | linux.MS_RDONLY\n",
            "flags = linux.MS_NOSUID | linux.MS_NOEXEC | linux.MS_RDONLY\n",
        ),
    ),
    # Not a layer: a step fails or hangs while the daemon's folder has a file that says so.
    "sabotage": (
        ("messages", "    installs: bool\n", "    installs: bool\n    sabotage: str\n"),
        (
            "init",
            '("host_name", lambda: linux.sethostname("sandrun")),',
            '("host_name", lambda: linux.sethostname("sandrun")), ("seccomp", lambda: _fail(request.sabotage)),',
        ),
        (
            "init",
            "def _new_clock(",
            "def _fail(how: str) -> None:\n"
            "    if how == 'hang': os.read(os.pipe()[0], 1)\n"
            "    if how: raise OSError(int(how), '')\n\n\n"
            "def _new_clock(",
        ),
    ),
    "nosuid": (("root", "_SAFE = linux.MS_NOSUID | linux.MS_NODEV", "_SAFE = linux.MS_NODEV"),),
}

PROXY = Path(__file__).with_name("weakened_proxy.py")  # finds out itself which layers to skip


def _shared_network(network: Network) -> None:
    network.fd = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    network._counters = []


_limit_v1 = CgroupV1.limit


def _limit_unwatched(group: CgroupV1, **limits: Any) -> None:
    _limit_v1(group, **{**limits, "watched": False})


_spawn = zygotes.Zygote.spawn


def _sabotaged(zygote: zygotes.Zygote, link: Link, job_link: Link, slot: Slot, request: Spawn) -> None:
    order = Path("sabotage")
    how = order.read_text() if order.exists() else ""
    vars(request)["sabotage"] = how  # a field that REPLACEMENTS and PATCHES add
    _spawn(zygote, link, job_link, slot, request)


# The same for the daemon's own layers: attributes and their replacements.
REPLACEMENTS: dict[str, tuple[tuple[object, str, object], ...]] = {
    "new_network": ((Network, "is_as_new", lambda _network: True), (networks, "KEEP_SECONDS", 60.0)),
    "collecting_time": (
        (execution, "COLLECT_SECONDS", 7200.0),
        (execution, "COLLECT_END_SECONDS", 7200.0),
    ),
    "memory_watch": (
        (CgroupV1, "limit", _limit_unwatched),
        *((version, "out_of_memory", lambda _group: False) for version in (CgroupV1, CgroupV2)),
    ),
    "sabotage": (
        (zygotes.Zygote, "spawn", _sabotaged),
        (Spawn, "FIELDS", (*Spawn.FIELDS, ("sabotage", "str"))),
    ),
    "own_network": ((Network, "__init__", _shared_network),),
    "network_modes": ((networks, "_hide_the_machine", lambda: None),),
    "socket_buffers": ((v1, "_SOCKETS", "memory.without"),),  # cgroup v2 counts them with the rest
    "layer_sealed": ((LayerMounts, "_seal", lambda *_: 1 << 20),),
    "layer_mounted_read_only": (
        (layers_module, "_share", lambda number: linux.open_tree_clone(f"/{number}")),
    ),
    **dict.fromkeys(("proxy_hosts", "proxy_addresses", "proxy_names", "proxy_port"), ()),
}


def _without(text: str, layer: str, old: str, new: str) -> str:
    if old not in text:
        raise SystemExit(f"the layer {layer} is no longer where the tests look for it")
    return text.replace(old, new)


def _without_step(name: str) -> tuple[tuple[str, str, str], ...]:
    """Make the patch that skips one step, in whichever list it is."""
    listing = "".join(inspect.getsource(module) for module in (init, confine))
    if f'("{name}", ' not in listing:
        raise SystemExit(f"there is no layer {name}")
    loop = "    for name, action in steps:\n"
    return (("steps", loop, f"{loop}        if name == {name!r}: continue\n"),)


def _patch(layers: set[str]) -> None:
    patches = {layer: PATCHES.get(layer) or _without_step(layer) for layer in layers}
    original = zygotes._modules

    def weakened(names: Iterable[str]) -> list[tuple[str, str | None]]:
        sources = dict(original(names))
        for layer in layers:
            for module, old, new in patches[layer]:
                key = f"sandrun_sandbox.{module}"
                if key in sources:
                    sources[key] = _without(sources[key] or "", layer, old, new)
        return list(sources.items())

    zygotes._modules = weakened


def _inside(names: set[str]) -> None:
    linux.prctl(linux.PR_SET_PDEATHSIG, signal.SIGKILL)
    linux.mount("", "/", "", linux.MS_REC | linux.MS_PRIVATE)
    linux.mount("proc", "/proc", "proc")
    logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s", stream=sys.stderr)
    _patch(names - (REPLACEMENTS.keys() - PATCHES.keys()))
    for layer in names & REPLACEMENTS.keys():
        for replacement in REPLACEMENTS[layer]:
            setattr(*replacement)
    egress.PROGRAM = (str(PROXY), *names)
    asyncio.run(serve(load(None)))


def main() -> int:
    """Fork into the namespaces, pass SIGTERM on, and end as the child does."""
    linux.unshare(linux.CLONE_NEWPID | linux.CLONE_NEWNS)
    pid = os.fork()
    if pid == 0:
        _inside(set(sys.argv[1:]))
        return 0
    signal.signal(signal.SIGTERM, lambda *_: os.kill(pid, signal.SIGTERM))
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


if __name__ == "__main__":
    sys.exit(main())
