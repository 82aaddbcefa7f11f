"""The kernel's log as /dev/kmsg gives it (Documentation/ABI/testing/dev-kmsg)."""

import os
import secrets

from support import machine


class KernelLog:
    """Reads what the kernel logs from now on."""

    def __init__(self) -> None:
        self._fd = os.open("/dev/kmsg", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        os.lseek(self._fd, 0, os.SEEK_END)
        self._text = ""

    def text(self) -> str:
        """Read the log up to now. Raises OSError (EPIPE) if records were overwritten before they were read."""
        mark = f"sandrun-tests {secrets.token_hex(8)}"
        os.write(self._fd, f"{mark}\n".encode())
        # Records appear in their order: with the mark, all that was said before it is there.
        assert machine.eventually(lambda: mark in self._read()), "the kernel's log cannot be read"
        return self._text

    def _read(self) -> str:
        while True:
            try:
                self._text += os.read(self._fd, 8192).decode(errors="replace")
            except BlockingIOError:
                return self._text

    def close(self) -> None:
        """Close the log."""
        os.close(self._fd)
