"""The files of a job's /etc: some of ours, copies of some of the machine's, and the loader's cache."""

from __future__ import annotations

import os
import stat

TEXTS = {
    "passwd": (
        "root:x:0:0:root:/:/usr/sbin/nologin\n"
        "job:x:1000:1000:job:/home/job:/bin/sh\n"
        "nobody:x:65534:65534::/:/usr/sbin/nologin\n"
    ),
    "group": "root:x:0:\njob:x:1000:\nnogroup:x:65534:\n",
    "hosts": "127.0.0.1 localhost sandrun\n::1 localhost\n",
    "host.conf": "multi on\n",
    "nsswitch.conf": "".join(
        f"{name}: files\n" for name in ("passwd", "group", "hosts", "protocols", "services", "rpc")
    ),
    "timezone": "Etc/UTC\n",
}
_LINKS = {"localtime": "/usr/share/zoneinfo/Etc/UTC", "mtab": "../proc/self/mounts"}
# Configuration that installed interpreters need; it holds no secret of the host.
_FOLDERS = ("alternatives", "R", "php", "perl", "fonts")
_FILES = (
    "ssl/openssl.cnf", "mime.types", "services", "protocols", "rpc", "ethertypes", "debian_version",
    "os-release",
)  # fmt: skip
_LDCONFIG = "/usr/sbin/ldconfig"


def _copy(source: str, target: str) -> None:
    with open(source, "rb") as original, open(target, "wb") as copy:
        copy.write(original.read())


def _copy_tree(source: str, target: str) -> None:
    """Copy only links and world-readable regular files, without recursion."""
    for folder, names, files in os.walk(source):
        inside = target + folder[len(source) :]
        os.makedirs(inside, exist_ok=True)
        for name in (*names, *files):
            path = os.path.join(folder, name)
            kind = os.lstat(path).st_mode
            if stat.S_ISLNK(kind):
                os.symlink(os.readlink(path), os.path.join(inside, name))
            elif stat.S_ISREG(kind) and kind & stat.S_IROTH:
                _copy(path, os.path.join(inside, name))


def build(target: str) -> None:
    """Fill the folder, which is new, from the machine's /etc. Raises OSError."""
    for name, text in TEXTS.items():
        with open(f"{target}/{name}", "w") as file:
            file.write(text)
    for name, where in _LINKS.items():
        os.symlink(where, f"{target}/{name}")
    for name in _FOLDERS:
        if os.path.isdir("/etc/" + name):
            _copy_tree("/etc/" + name, f"{target}/{name}")
    for name in _FILES:
        if os.path.isfile("/etc/" + name):
            os.makedirs(os.path.dirname(f"{target}/{name}"), exist_ok=True)
            _copy("/etc/" + name, f"{target}/{name}")


def _library_folders() -> list[str]:
    """List the machine's library folders from the files that ld.so.conf includes (ldconfig(8))."""
    folder = "/etc/ld.so.conf.d"
    lines: list[str] = []
    for name in sorted(os.listdir(folder)) if os.path.isdir(folder) else ():
        if name.endswith(".conf"):
            with open(f"{folder}/{name}", errors="replace") as file:
                lines += [line.split("#")[0].strip() for line in file]
    return [line for line in lines if line.startswith("/")]


class LoaderCache:
    """/etc/ld.so.cache for the libraries that a job can see; the machine's cache lists others too."""

    def __init__(self) -> None:
        """Read the machine's configuration, while its /etc is still mounted. Raises OSError."""
        self._folders = _library_folders()
        self._null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)

    def build(self, target: str) -> None:
        """Build the cache in the folder target, from a root whose /usr is a job's. Raises OSError.

        The cache only makes the search faster, so ldconfig may fail or be missing.
        """
        with open(f"{target}/ld.so.conf", "w") as file:
            file.writelines(f"{folder}\n" for folder in self._folders if os.path.isdir(folder))
        null = [(os.POSIX_SPAWN_DUP2, self._null, fd) for fd in range(3)]
        command = [_LDCONFIG, "-X", "-f", f"{target}/ld.so.conf", "-C", f"{target}/ld.so.cache"]
        if os.path.isfile(_LDCONFIG):
            os.waitpid(os.posix_spawn(_LDCONFIG, command, {}, file_actions=null), 0)
        os.close(self._null)
