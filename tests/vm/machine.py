#!/usr/bin/python3
"""The test machine, from outside: restored or booted in qemu, given files, told what to run.

    machine.py save                     boot the image and save the machine once it is at rest
    machine.py run [OPTION...] COMMAND  restore it, run one command as root, exit with its status

Standard library only: it runs with any Python 3.9, before anything is installed.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

# Without cx16: a kernel of Debian 13 uses it much, and QEMU 7 emulates it wrongly.
PROCESSORS, MEMORY_MB, PROCESSOR = 2, 2048, "Nehalem,-cx16"
DISK_BYTES = 4 << 30  # carries the files from the host; sparse
BOOT_SECONDS = 240
KERNEL = (
    "console=ttyS0 quiet mitigations=off panic=-1 tsc=reliable no_timer_check systemd.show_status=0"
    " systemd.unified_cgroup_hierarchy=1"
)
SETTLE = """
systemctl is-system-running --wait; systemctl --failed --no-legend
# What every command needs is to be in memory when the machine is saved.
python3 -c 'import asyncio, ctypes, json, logging, sqlite3, ssl, subprocess, unittest, http.server'
python3 -m venv --without-pip /tmp/v && rm -r /tmp/v
unshare -Urmpnf --mount-proc true; systemd-run -q --scope true; tar --version >/dev/null
modprobe -a overlay; sync
"""


class MachineError(Exception):
    """The machine did not start, hung, or ended."""


class Machine:
    """A running qemu; a context manager that ends it."""

    def __init__(self, image: Path, *, save: bool = False, restore: bool = True) -> None:
        """image: the folder that build.sh fills."""
        self._image = image
        self._save = save
        self._restore = restore and not save
        self._files: list[tuple[Path, str]] = []
        self._given = False

    def give(self, source: Path, target: str) -> None:
        """Copy a host's folder to a guest's one, at the first command."""
        self._files.append((source, target))

    def __enter__(self) -> Machine:
        self._folder = tempfile.TemporaryDirectory(prefix="sandrun-vm-")
        folder = Path(self._folder.name)
        self._pack(folder / "in")
        control, qemu_control = socket.socketpair()
        port, qemu_port = socket.socketpair()
        self._log = folder / "log"
        self._console = folder / "console"
        root, kind, throw_away = "ready.qcow2", "qcow2", "on"
        if self._save:
            throw_away = "off"
        elif not self._restore:
            root, kind = "base.raw", "raw"
        devices = (
            f"-drive file={self._image}/{root},format={kind},if=none,id=root,snapshot={throw_away},cache=unsafe"
            " -device virtio-blk-pci,drive=root"
            f" -drive file={folder}/in,format=raw,if=none,id=in,cache=unsafe,file.locking=off"
            " -device virtio-blk-pci,drive=in -device virtio-rng-pci"
            f" -chardev socket,id=port,fd={qemu_port.fileno()}"
            " -device virtio-serial-pci -device virtserialport,chardev=port,name=sandrun"
            f" -chardev socket,id=control,fd={qemu_control.fileno()} -mon chardev=control,mode=control"
            f" -serial file:{self._console} -nic none"
        )
        command = (
            "qemu-system-x86_64 -M q35,vmport=off,hpet=off -accel tcg,thread=multi,tb-size=256"
            f" -cpu {PROCESSOR} -smp {PROCESSORS} -m {MEMORY_MB} -nodefaults -no-user-config -display none"
            f" -kernel {self._image}/vmlinuz -initrd {self._image}/initrd"
        ).split()
        if self._restore:
            command += ["-incoming", "defer"]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [*command, "-append", KERNEL, *devices.split()],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=(qemu_control.fileno(), qemu_port.fileno()),
                start_new_session=True,  # Ctrl-C is ours to handle
            )
        qemu_control.close()
        qemu_port.close()
        self._control, self._port = control, port
        self._control.settimeout(BOOT_SECONDS)
        self._replies = control.makefile("r")
        try:
            self._replies.readline()
            self._ask("qmp_capabilities")
            if self._restore:
                self._bring_back()
            else:
                self._until_ready()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()
        self._replies.close()
        self._control.close()
        self._port.close()
        self._folder.cleanup()

    def _pack(self, disk: Path) -> None:
        with disk.open("wb") as file:
            with tarfile.open(fileobj=file, mode="w", format=tarfile.GNU_FORMAT) as archive:
                for source, target in self._files:
                    archive.add(source, target.strip("/"), filter=_wanted)
            if file.tell() > DISK_BYTES:
                raise MachineError("more files than the disk has room for")
            file.truncate(DISK_BYTES)

    def _fail(self, text: str) -> MachineError:
        words = [
            path.read_text(errors="replace")[-2000:] for path in (self._log, self._console) if path.exists()
        ]
        return MachineError("\n".join([text, *words]))

    # The monitor (QMP)

    def _next(self) -> dict:
        try:
            line = self._replies.readline()
        except ConnectionError:
            line = ""
        except TimeoutError:
            raise self._fail("qemu does not answer") from None
        if not line:
            raise self._fail("qemu ended")
        return json.loads(line)

    def _ask(self, command: str, **arguments: object) -> None:
        try:
            self._control.sendall(json.dumps({"execute": command, "arguments": arguments}).encode() + b"\n")
        except OSError:
            raise self._fail("qemu ended") from None
        while True:
            message = self._next()
            if "error" in message:
                raise self._fail(f"{command}: {message['error']['desc']}")
            if "return" in message:
                return

    def _migrate(self, command: str, uri: str) -> None:
        self._ask("migrate-set-capabilities", capabilities=[{"capability": "events", "state": True}])
        self._ask("migrate-set-parameters", **{"max-bandwidth": 1 << 40})
        self._ask(command, uri=uri)
        while True:
            message = self._next()
            status = message.get("data", {}).get("status") if message.get("event") == "MIGRATION" else None
            if status == "completed":
                return
            if status == "failed":
                raise self._fail(f"{command} failed")

    def _bring_back(self) -> None:
        self._migrate("migrate-incoming", f"exec:cat {self._image}/state")
        self._ask("cont")

    def store(self) -> None:
        """Save the machine as it is now and end it."""
        self._ask("stop")
        self._migrate("migrate", f"exec:cat > {self._image}/state.new")
        self._ask("quit")
        self._process.wait()
        (self._image / "state.new").rename(self._image / "state")

    # The agent

    def _send(self, kind: bytes, payload: bytes) -> None:
        self._port.sendall(kind + struct.pack(">I", len(payload)) + payload)

    def _receive(self, end: float) -> tuple[bytes, bytes]:
        def exactly(count: int) -> bytes:
            data = b""
            while len(data) < count:
                self._port.settimeout(max(0.01, end - time.monotonic()))
                piece = self._port.recv(min(1 << 20, count - len(data)))
                if not piece:
                    raise self._fail("the machine ended")
                data += piece
            return data

        try:
            header = exactly(5)
            return header[:1], exactly(struct.unpack(">I", header[1:])[0])
        except TimeoutError:
            raise self._fail("the machine does not answer in time") from None

    def _until_ready(self) -> None:
        end = time.monotonic() + BOOT_SECONDS
        while self._receive(end)[0] != b"R":
            pass

    def run(
        self, argv: Sequence[str], *, seconds: float, env: Mapping[str, str] | None = None, cwd: str = "/"
    ) -> int:
        """Run one command as root, pass on what it prints; its exit status, 124 when it took too long."""
        unpack = bool(self._files) and not self._given
        self._given = True
        request = {
            "argv": list(argv),
            "env": dict(env or {}),
            "cwd": cwd,
            "seconds": seconds,
            "time": time.time(),
            "seed": base64.b64encode(os.urandom(64)).decode(),
            "unpack": unpack,
        }
        self._send(b"C", json.dumps(request).encode())
        end = time.monotonic() + seconds + 60  # the agent ends the command; this is for an agent that hangs
        while True:
            kind, payload = self._receive(end)
            if kind == b"O":
                sys.stdout.buffer.write(payload)
                sys.stdout.flush()
            elif kind == b"E":
                sys.stderr.buffer.write(payload)
                sys.stderr.flush()
            elif kind == b"R":
                raise self._fail("the machine restarted under the command")
            elif kind == b"X":
                status = struct.unpack(">I", payload)[0]
                if status == 124:
                    print(f"machine: ended after {seconds:.0f} s: {' '.join(argv)}", file=sys.stderr)
                return status

    def reboot(self) -> None:
        """Boot again in the usual way: what is on its disk stays. Returns when it answers."""
        argv = ["systemctl", "--no-block", "reboot"]
        request = {"argv": argv, "env": {}, "cwd": "/", "seconds": 60, "time": time.time(), "unpack": False}
        self._send(b"C", json.dumps({**request, "seed": ""}).encode())
        self._until_ready()


def _wanted(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    left_out = {".git", ".venv", "__pycache__", ".mypy_cache", ".ruff_cache", ".pytest_cache", ".hypothesis"}
    return None if left_out & set(member.name.split("/")) else member


def end_on_signals(signals: Sequence[int] = (signal.SIGTERM, signal.SIGHUP)) -> None:
    """Leave by an exception, so that no qemu stays behind."""

    def leave(number: int, _frame: object) -> None:
        for each in signals:
            signal.signal(each, signal.SIG_IGN)  # a second one would interrupt the leaving
        raise SystemExit(128 + number)

    for number in signals:
        signal.signal(number, leave)


def main() -> int:
    """The exit status of the command that ran inside."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--image", type=Path, required=True, help="folder that build.sh filled")
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("save")
    one = verbs.add_parser("run")
    one.add_argument("--give", action="append", default=[], metavar="FOLDER:GUESTFOLDER")
    one.add_argument("--seconds", type=float, default=300)
    one.add_argument(
        "--after-reboot", metavar="COMMAND", help="if all went well, reboot and run this in bash"
    )
    one.add_argument("--cold", action="store_true", help="boot it instead of restoring it")
    one.add_argument("command", nargs=argparse.REMAINDER)
    arguments = parser.parse_args()
    end_on_signals()
    try:
        if arguments.verb == "save":
            with Machine(arguments.image, save=True) as machine:
                status = machine.run(["/bin/sh", "-c", SETTLE], seconds=120)
                machine.store()
                return status
        machine = Machine(arguments.image, restore=not arguments.cold)
        for pair in arguments.give:
            source, _, target = pair.rpartition(":")
            machine.give(Path(source), target)
        with machine:
            status = machine.run(arguments.command, seconds=arguments.seconds)
            if status == 0 and arguments.after_reboot:
                machine.reboot()
                status = machine.run(["/bin/bash", "-c", arguments.after_reboot], seconds=arguments.seconds)
            return status
    except MachineError as error:
        print(f"machine: {error}", file=sys.stderr)
        return 125


if __name__ == "__main__":
    sys.exit(main())
