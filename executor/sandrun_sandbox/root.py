"""The files that a job sees: the zygote's read-only image, and one job's mounts over it."""

from __future__ import annotations

import os
import stat
import time

from sandrun_sandbox import etc, gpu_files
from sandrun_sandbox import linux_unsafe as linux
from sandrun_sandbox.layout import ENVIRONMENT, HOME, INSTALLED, TOOLS, WORK, ZYGOTE_PROGRAM

TYPE_CHECKING = False  # as typing's, without importing it
if TYPE_CHECKING:
    from typing import Any

    from sandrun_sandbox.messages import TmpfsLimits

_OURS = "/etc/sandrun"  # in the image
# A client's program is executed through this link to a descriptor, because the last part of the path becomes
# the process's name (proc_pid_comm(5)), which the kernel logs. Compilers use the same name.
EXECUTED, EXECUTED_FD = _OURS + "/a.out", 3
WRITE_THROUGH = _OURS + "/write_through"  # loaded by Ruby and Perl to write through
_WRITE_THROUGH_FILES = {
    "write_through.rb": "$stdout.sync = true\n",
    "write_through.pm": "package write_through;\n$| = 1;\n1;\n",
}
_SAFE = linux.MS_NOSUID | linux.MS_NODEV

_HIDDEN = ("local", "src")  # of /usr
_MASKS, _STAT = "/masks", "/stat"  # in the image's parent, out of every job's sight
_DEVICES = (("null", 3), ("zero", 5), ("full", 7), ("random", 8), ("urandom", 9))
_NODES = [(f"/new/dev/{name}".encode(),) * 2 for name, _ in _DEVICES]

# Files of /proc that reveal the host or other jobs.
MASKED = (
    "acpi asound buddyinfo bus cgroups cmdline config.gz consoles crypto devices diskstats dma driver"
    " dynamic_debug execdomains fb fs interrupts iomem ioports irq kallsyms kcore key-users keys kmsg"
    " kpagecgroup kpagecount kpageflags latency_stats locks mdstat misc modules mtrr pagetypeinfo partitions"
    " pressure sched_debug schedstat scsi slabinfo softirqs swaps sysrq-trigger sysvipc timer_list"
    " timer_stats tty vmallocinfo vmstat zoneinfo"
).split()
# Files of /proc/sys that programs need and that reveal nothing of the host.
_COPIED_SYS = (
    "fs/nr_open fs/pipe-max-size kernel/cap_last_cap kernel/ngroups_max kernel/osrelease kernel/ostype"
    " kernel/overflowgid kernel/overflowuid kernel/pid_max kernel/version vm/max_map_count vm/mmap_min_addr"
    " vm/overcommit_memory"
).split()
_SYS = "/var/proc/sys"  # in a job


def _write(path: str, text: str) -> None:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w") as file:
        file.write(text)


def _make_devices(folder: str) -> None:
    """Make the nodes and links of /dev; each job's overlay gives them separate inodes."""
    for name, minor in _DEVICES:
        os.mknod(f"{folder}/{name}", stat.S_IFCHR | 0o666, os.makedev(1, minor))
        os.chmod(f"{folder}/{name}", 0o666)  # noqa: S103 (the usual mode; mknod obeys the umask)
    for name, target in (("fd", ""), ("stdin", "/0"), ("stdout", "/1"), ("stderr", "/2")):
        os.symlink("/proc/self/fd" + target, f"{folder}/{name}")


def _build_skeleton(image: str) -> None:
    for folder in ("usr", "proc", "dev/shm", "var/tmp", "var/empty", "tmp", "work", "home/job", "etc"):
        os.makedirs(image + "/" + folder)
    _make_devices(image + "/dev")
    # Node searches the folders above its program's for packages.
    os.symlink(INSTALLED + "/node_modules", image + "/node_modules")
    for name in ("bin", "sbin", "lib", "lib32", "lib64", "libx32"):
        if os.path.islink("/" + name):
            os.symlink(os.readlink("/" + name), f"{image}/{name}")
    etc.build(image + "/etc")
    for name, text in _WRITE_THROUGH_FILES.items():
        _write(f"{image}{WRITE_THROUGH}/{name}", text)
    os.symlink(f"/proc/self/fd/{EXECUTED_FD}", image + EXECUTED)
    for name in _COPIED_SYS:
        if os.path.isfile("/proc/sys/" + name):
            with open("/proc/sys/" + name) as file:
                _write(f"{image}{_SYS}/{name}", file.read())


def _list_masks(proc: str) -> str:
    """List what this kernel has of MASKED, from a new /proc, because the host's may hide files from us."""
    linux.mount("proc", proc, "proc", _SAFE | linux.MS_NOEXEC)
    lines = ["/stage/stat /new/proc/stat", f"/new{_SYS} /new/proc/sys"]
    for name in MASKED:
        if os.path.exists(f"{proc}/{name}"):
            source = "/new/var/empty" if os.path.isdir(f"{proc}/{name}") else "/new/dev/null"
            lines.append(f"{source} /new/proc/{name}")
    linux.umount2(proc)
    return "\n".join(lines)


def _emptied() -> list[str]:
    """The folders of /usr that are empty in a job: with Python packages that the machine happens to have."""
    folders = [name for name in sorted(os.listdir("/usr/lib")) if name.startswith("python3")]
    paths = [f"lib/{name}/dist-packages" for name in folders]
    return [path for path in paths if os.path.isdir("/usr/" + path)]


def _hide(layer: str, emptied: list[str]) -> None:
    """Make the layer over /usr that hides software of the host, and what is in the folders `emptied`."""
    # Character device 0:0 is overlayfs' whiteout: the host's own software is not the job's to see.
    for name in _HIDDEN:
        os.mknod(f"{layer}/{name}", stat.S_IFCHR, 0)
    for path in emptied:
        os.makedirs(f"{layer}/{path}")
        os.setxattr(f"{layer}/{path}", "trusted.overlay.opaque", b"y")
        _keep_times(layer, path)


def _keep_times(layer: str, path: str) -> None:
    """Give the folders above a path in the layer the times of /usr's.

    Importing lists a folder again, in every job, if its time is not the one that the zygote saw.
    """
    while path := os.path.dirname(path):
        times = os.stat("/usr/" + path)
        os.utime(f"{layer}/{path}", ns=(times.st_atime_ns, times.st_mtime_ns))


def _blank_stat() -> str:
    """Blank the counts of /proc/stat: keeps the processors, with %d for the boot time."""
    lines = []
    with open("/proc/stat") as file:
        for line in file:
            name, *counts = line.split()
            if name == "btime":
                counts = ["%d"]
            elif name == "procs_running":
                counts = ["1"]
            else:
                counts = ["0" for _ in counts[: 1 if name == "intr" else None]]
            lines.append(f"{name:4} {' '.join(counts)}\n")  # "cpu " is the sum of all processors
    return "".join(lines)


def enter_image(program: bytes, gpus: dict[str, Any], environment: str = "") -> None:
    """Move this process into a mount namespace whose root is the read-only image. Raises OSError.

    program: the content of PROGRAM, for the zygote's interpreter; gpus: see gpu_files.build; environment: the
    host's folder of packages, if any.
    """
    linux.unshare(linux.CLONE_NEWNS)
    linux.mount("", "/", "", linux.MS_REC | linux.MS_PRIVATE)
    libraries = etc.LoaderCache()
    packages = os.open(environment or "/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)  # before base hides it
    base = "/tmp"  # noqa: S108 (a mount point that every system has, in our own namespace)
    linux.mount("tmpfs", base, "tmpfs", _SAFE, "mode=755,size=16m")
    for folder in ("image", "hide", "empty", "new", "stage", "usr", "old"):
        os.mkdir(f"{base}/{folder}")
    _build_skeleton(base + "/image")
    _write(base + _MASKS, _list_masks(base + "/new"))
    _write(base + _STAT, _blank_stat())
    with open(base + ZYGOTE_PROGRAM, "wb") as file:
        file.write(program)
    gpu_files.build(base, gpus)
    for path in (INSTALLED, TOOLS):
        os.makedirs(base + "/hide" + path.removeprefix("/usr"))
    emptied = _emptied()
    _hide(base + "/hide", emptied)
    if environment:
        os.mkdir(base + "/hide/environment")
        os.mkdir(base + "/environment")
        linux.mount(f"/proc/self/fd/{packages}", base + "/environment", "", linux.MS_BIND)
        flags = linux.MS_BIND | linux.MS_REMOUNT | linux.MS_RDONLY | _SAFE
        linux.mount("", base + "/environment", "", flags)
        # /proc/self/maps shows the zygote's mappings by their paths in a mount that is gone, so keep the
        # paths valid.
        for name in os.listdir(base + "/environment/lib"):
            os.makedirs(f"{base}/hide/lib/{name}", exist_ok=True)
            os.symlink(f"{ENVIRONMENT}/lib/{name}/site-packages", f"{base}/hide/lib/{name}/site-packages")
            _keep_times(base + "/hide", f"lib/{name}/site-packages")
    linux.mount("/usr", base + "/usr", "", linux.MS_BIND)
    linux.mount("", base + "/usr", "", linux.MS_BIND | linux.MS_REMOUNT | linux.MS_RDONLY | _SAFE)
    for name in (*_HIDDEN, *emptied):
        if os.path.isdir(f"{base}/usr/{name}"):
            linux.mount(base + "/empty", f"{base}/usr/{name}", "", linux.MS_BIND)
    for name in ("bin", "sbin", "lib", "lib64"):
        if os.path.islink(f"{base}/image/{name}"):
            os.symlink(os.readlink(f"{base}/image/{name}"), f"{base}/{name}")
    linux.pivot_root(base, base + "/old")
    os.chdir("/")
    linux.umount2("/old")
    os.rmdir("/old")
    libraries.build("/image/etc")
    linux.mount("", "/", "", linux.MS_REMOUNT | linux.MS_BIND | linux.MS_RDONLY | _SAFE)


def mount_files(
    uid: int, limits: TmpfsLimits, noswap: str, links: tuple[str, ...] | None = None, gpu: int | None = None
) -> None:
    """Mount one job's root at /new: overlays with separate inodes, and its tmpfs folders.

    noswap: a mount option of tmpfs, or "". links: the environment's entries of HOME, None without an
    environment. gpu: the job's device.
    """
    read_only = _SAFE | linux.MS_RDONLY
    # Device nodes can be opened in it until mount_devices has bound each.
    flags = linux.MS_NOSUID | linux.MS_NOEXEC | linux.MS_RDONLY
    linux.mount("overlay", "/new", "overlay", flags, f"lowerdir={gpu_files.layers(gpu)}/image:/empty")
    linux.mount("overlay", "/new/usr", "overlay", read_only, "lowerdir=/hide:/usr")
    if links is not None:
        options = "lowerdir=/environment:/empty"
        linux.mount("overlay", "/new" + ENVIRONMENT, "overlay", read_only, options)
    gpu_files.mount_driver(gpu)
    linux.mount("tmpfs", "/stage", "tmpfs", _SAFE, "mode=755," + limits.disk(noswap))
    umask = os.umask(0)
    for name, target, mode in (
        ("work", WORK, 0o700),
        ("home", HOME, 0o700),
        ("tmp", "/tmp", 0o1777),  # noqa: S108
        ("vartmp", "/var/tmp", 0o1777),  # noqa: S108
    ):
        os.mkdir("/stage/" + name, mode)
        os.chown("/stage/" + name, uid, uid)
        linux.mount("/stage/" + name, "/new" + target, "", linux.MS_BIND)
    os.umask(umask)
    for link in links or ():
        path = "/stage/home/" + link
        if link.endswith("/"):
            os.mkdir(path, 0o755)
            os.chown(path, uid, uid)
        else:
            os.symlink(f"{ENVIRONMENT}/home/{link}", path)


def mount_devices(limits: TmpfsLimits, noswap: str, gpu: int | None = None) -> None:
    """Bind each device node of the job's overlay, make the root nodev, and mount /dev/shm."""
    # A bind keeps the flags of its source mount, so these nodes open in a nodev root.
    linux.bind_each(_NODES if gpu is None else [*_NODES, *gpu_files.nodes(gpu)])
    flags = _SAFE | linux.MS_NOEXEC | linux.MS_RDONLY
    linux.mount("", "/new", "", linux.MS_BIND | linux.MS_REMOUNT | flags)
    linux.mount("tmpfs", "/new/dev/shm", "tmpfs", _SAFE, "mode=1777," + limits.shm(noswap))


def mount_proc() -> None:
    """Mount a /proc of the job's own PID namespace in which only its own processes show."""
    flags = _SAFE | linux.MS_NOEXEC
    linux.mount("proc", "/new/proc", "proc", flags, "hidepid=invisible")


def read_stat() -> bytes:
    """Read a job's /proc/stat, with %d for the boot time. Raises OSError."""
    with open(_STAT, "rb") as file:
        return file.read()


def read_masks() -> list[tuple[bytes, bytes]]:
    """Read from the image what to bind over what in a job's /proc. Raises OSError."""
    with open(_MASKS) as file:
        pairs = [line.split() for line in file]
    return [(source.encode(), target.encode()) for source, target in pairs]


def read_maps() -> list[list[str]]:
    """Read the fields of /proc/self/maps through a temporary /proc. Raises OSError."""
    linux.mount("proc", "/new", "proc", _SAFE | linux.MS_NOEXEC)
    try:
        with open("/new/self/maps") as file:
            return [line.split(None, 5) for line in file]
    finally:
        linux.umount2("/new")


def mask_proc(masks: list[tuple[bytes, bytes]], stat_text: bytes) -> None:
    """Mask what reveals the host: files by the null device, folders by an empty one. Raises OSError.

    stat_text: as read_stat returned it.
    """
    started = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME) % 1  # as init sets the clock
    fd = os.open("/stage/stat", os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o444)
    try:
        os.write(fd, stat_text % started)
    finally:
        os.close(fd)
    null = os.stat("/new/dev/null")
    if not stat.S_ISCHR(null.st_mode) or null.st_rdev != os.makedev(1, 3):
        raise OSError(19, "the mask's source is not the null device")  # ENODEV
    linux.bind_each(masks)


def enter() -> None:
    """Make /new the root and detach the image (pivot_root(2), the form with two dots)."""
    os.chdir("/new")
    linux.pivot_root(".", ".")
    linux.umount2(".")
    os.chdir(WORK)


def resize(limits: TmpfsLimits, noswap: str) -> None:
    """Resize the job's folders. Raises OSError.

    A remount cannot change noswap, but must repeat it (tmpfs(5)).
    """
    linux.mount("", WORK, "", linux.MS_REMOUNT | _SAFE, limits.disk(noswap))
    linux.mount("", "/dev/shm", "", linux.MS_REMOUNT | _SAFE, limits.shm(noswap))  # noqa: S108


def mount_installing(layer: int, tools: list[tuple[str, int]]) -> None:
    """Mount the folder that packages are installed to, and files by name in TOOLS. Raises OSError."""
    linux.move_mount(layer, INSTALLED)
    linux.mount("tmpfs", TOOLS, "tmpfs", _SAFE, "mode=755,size=64k,nr_inodes=16")
    for name, mount in tools:
        os.close(os.open(f"{TOOLS}/{name}", os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o644))
        linux.move_mount(mount, f"{TOOLS}/{name}")
    linux.mount("", TOOLS, "", linux.MS_REMOUNT | linux.MS_BIND | linux.MS_RDONLY | _SAFE)


def mount_installed(layer: int) -> None:
    """Mount a layer of packages; an overlay gives this job separate inodes. Raises OSError."""
    linux.move_mount(layer, INSTALLED)
    lower = f"lowerdir={INSTALLED}/data:{INSTALLED}/empty"
    linux.mount("overlay", INSTALLED, "overlay", _SAFE | linux.MS_RDONLY, lower)


def is_full() -> bool:
    """Whether the job's folders have no room for one more page or file (statvfs(3))."""
    state = os.statvfs(WORK)
    return state.f_bfree == 0 or state.f_ffree == 0
