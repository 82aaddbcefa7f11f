"""Programs run by /usr/bin/python3 directly: no sandbox, only the same folders, names and environment.

Paths show in tracebacks, so the bare interpreter gets a root in which the work directory has the sandbox's
name; a mount namespace that ends with a waiting process holds it (unshare(1), nsenter(1), chroot(1)).
"""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from sandrun_sandbox import etc
from sandrun_sandbox.confine import INNER_ID
from sandrun_sandbox.layout import PYTHON, THREADS, UNBUFFERED, VARIABLES

_ID = str(INNER_ID)
# --default-signal, because the caller of the tests may ignore some signals.
_ENV = ("/usr/bin/env", "--default-signal", "-i", "-C", "/work")
_MAKE = """
set -e
cd "$1"
mount -t tmpfs -o mode=755 tmpfs .
cd "$1"
mkdir -p usr etc dev proc var/tmp tmp home/job work
chmod 1777 tmp var/tmp
mount --rbind /usr usr
mount -t tmpfs -o mode=755 tmpfs usr/local
for folder in usr/lib/python3*/dist-packages; do mount -t tmpfs -o mode=755 tmpfs "$folder"; done
mount --rbind /dev dev
mount -t tmpfs -o mode=1777 tmpfs dev/shm
mount --rbind /proc proc
cp -a /etc/alternatives etc
for name in bin sbin lib lib64; do ln -s "usr/$name" "$name"; done
echo ready
exec cat
"""


@dataclass(frozen=True)
class Ended:
    """What a program printed and how it ended; code is 128+n for signal n."""

    stdout: bytes
    stderr: bytes
    code: int | None


class BareRoot:
    """A root for bare programs, one after the other; a context manager that removes it."""

    def __enter__(self) -> "BareRoot":
        self._folder = Path(tempfile.mkdtemp(prefix="parity-"))
        command = ["unshare", "--mount", "--propagation", "private", "sh", "-c", _MAKE, "sh"]
        self._holder = subprocess.Popen(
            [*command, str(self._folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert self._holder.stdout is not None
        assert self._holder.stdout.readline() == b"ready\n"
        self._inside = Path(f"/proc/{self._holder.pid}/root{self._folder}")
        for name, text in etc.TEXTS.items():
            (self._inside / "etc" / name).write_text(text)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._holder.communicate()  # its input ends, and so does it
        self._folder.rmdir()

    def run(
        self,
        files: Mapping[str, bytes],
        entrypoint: str,
        *,
        args: Iterable[str] = (),
        stdin: bytes | None = None,
        buffered: bool = False,
        seconds: float = 60.0,
    ) -> Ended:
        """Run a Python program in the folder of its files. Raises subprocess.TimeoutExpired."""
        self._renew("work", files)
        self._renew("home/job", {})
        self._renew("tmp", {})
        limits = ["prlimit", "--nofile=1024:1024", "--core=0:0", "--stack=8388608:"]
        enter = ["nsenter", f"--mount=/proc/{self._holder.pid}/ns/mnt", *limits]
        change = ["chroot", "--groups=", f"--userspec={_ID}:{_ID}", str(self._folder)]
        variables = {**VARIABLES, **dict.fromkeys(THREADS, "1")}  # as many as a job has processors
        if buffered:
            del variables[UNBUFFERED]
        settings = [f"{name}={value}" for name, value in variables.items()]
        done = subprocess.run(
            [*enter, *change, *_ENV, *settings, PYTHON, entrypoint, *args],
            input=b"" if stdin is None else stdin,
            capture_output=True,
            cwd="/",
            timeout=seconds,
            check=False,
        )
        return Ended(
            done.stdout, done.stderr, done.returncode if done.returncode >= 0 else 128 - done.returncode
        )

    def _renew(self, name: str, files: Mapping[str, bytes]) -> None:
        folder = self._inside / name
        for entry in folder.iterdir():
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink()
        for path, data in files.items():
            target = folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data)
        if name != "tmp":
            for path, folders, plain in os.walk(folder):
                for entry in (path, *(os.path.join(path, other) for other in (*folders, *plain))):
                    os.chown(entry, INNER_ID, INNER_ID)
