#!/usr/bin/python3
"""Runs commands for the host over a virtio-serial port; the test machine starts it as a service.

A frame, both ways: one byte that says what it is, four bytes of length (big-endian), and the payload.
From the host: C, a command (JSON: argv, env, cwd, seconds, seed, time, unpack), or P, a ping.
To the host: R ready, O standard output, E standard error, X exit status (four bytes).
"""

import base64
import fcntl
import json
import os
import select
import signal
import struct
import subprocess
import time

PORT = "/dev/virtio-ports/sandrun"
DISK = "/dev/vdb"  # the files from the host: a tar archive without a file system around it
BLKFLSBUF, RNDADDENTROPY, RNDRESEEDCRNG = 0x1261, 0x40085203, 0x5207
ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "USER": "root",
    "LOGNAME": "root",
    "LANG": "C.UTF-8",
    "TERM": "dumb",
}


class Port:
    """The channel to the host."""

    def __init__(self) -> None:
        self.fd = os.open(PORT, os.O_RDWR | os.O_CLOEXEC)

    def send(self, kind: bytes, payload: bytes = b"") -> None:
        data = kind + struct.pack(">I", len(payload)) + payload
        while data:
            data = data[os.write(self.fd, data) :]

    def _exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            piece = os.read(self.fd, count - len(data))
            if not piece:  # the host's end is closed, while the machine is being saved
                select.select([], [], [], 0.02)
            data += piece
        return data

    def receive(self) -> tuple[bytes, bytes]:
        header = self._exactly(5)
        return header[:1], self._exactly(struct.unpack(">I", header[1:])[0])


def refresh(request: dict) -> None:
    """A restored machine needs the time of now, and random numbers that differ from run to run."""
    time.clock_settime(time.CLOCK_REALTIME, request["time"])
    seed = base64.b64decode(request["seed"])
    fd = os.open("/dev/urandom", os.O_RDWR)
    fcntl.ioctl(fd, RNDADDENTROPY, struct.pack("ii", len(seed) * 8, len(seed)) + seed)
    fcntl.ioctl(fd, RNDRESEEDCRNG)
    os.close(fd)


def unpack() -> None:
    """Put the files from the host where they belong."""
    fd = os.open(DISK, os.O_RDONLY)
    fcntl.ioctl(fd, BLKFLSBUF)  # what was cached of the disk is from before the machine was saved
    os.close(fd)
    subprocess.run(["tar", "-xf", DISK, "-C", "/", "--no-same-owner", "-b", "512"], check=True)


def run(port: Port, request: dict) -> int:
    """Run one command and pass on what it prints; its exit status, 124 when it ran too long."""
    refresh(request)
    if request["unpack"]:
        unpack()
    process = subprocess.Popen(
        request["argv"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=request["cwd"],
        env={**ENVIRONMENT, **request["env"]},
        start_new_session=True,
    )
    pidfd = os.pidfd_open(process.pid)
    kinds = {process.stdout.fileno(): b"O", process.stderr.fileno(): b"E"}
    poll = select.poll()
    for fd in (*kinds, pidfd):
        poll.register(fd, select.POLLIN)
    end = time.monotonic() + request["seconds"]
    ended = late = False
    while kinds:
        # A daemon that it left behind may keep the pipes open: once it ended, only what is there is read.
        ready = poll.poll(0 if ended else max(0, end - time.monotonic()) * 1000)
        for fd, _ in ready:
            if fd == pidfd:
                ended = True
                poll.unregister(pidfd)
            elif data := os.read(fd, 65536):
                port.send(kinds[fd], data)
            else:
                poll.unregister(fd)
                del kinds[fd]
        if not ready and ended:
            break
        if not ready:
            late = True
            os.killpg(process.pid, signal.SIGKILL)
            end = time.monotonic() + 10
    os.close(pidfd)
    status = process.wait()
    return 124 if late else status if status >= 0 else 128 - status


def main() -> None:
    port = Port()
    port.send(b"R")
    while True:
        kind, payload = port.receive()
        if kind == b"P":
            port.send(b"R")
        elif kind == b"C":
            try:
                status = run(port, json.loads(payload))
            except (OSError, subprocess.SubprocessError) as error:
                port.send(b"E", f"agent: {error}\n".encode())
                status = 127
            port.send(b"X", struct.pack(">I", status))


main()
