"""Whether a client has what was sent to it, as far as a server can know.

ASGI's `send` returns when bytes are in the transport's buffer. Behind it are the kernel's, of megabytes:
only what the client's kernel has acknowledged has left the machine (SIOCOUTQ, tcp(7)).
"""

import asyncio
import fcntl
import socket
import struct
import sys
import termios

from starlette.types import Receive

FIRST_PAUSE_SECONDS = 0.002
LAST_PAUSE_SECONDS = 0.1
_ESTABLISHED = 1  # tcpi_state of struct tcp_info (linux/tcp.h, tcp_states.h)


def transport_of(receive: Receive) -> asyncio.Transport | None:
    """The transport under a request: uvicorn's `receive` is a method of what holds it. None elsewhere."""
    transport = getattr(getattr(receive, "__self__", None), "transport", None)
    return transport if isinstance(transport, asyncio.Transport) else None


def unacknowledged(transport: asyncio.Transport) -> int | None:
    """Bytes written that the client's kernel has not acknowledged; None when the connection has ended."""
    sock = transport.get_extra_info("socket")
    try:
        if sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] != _ESTABLISHED:
            return None
        packed = fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, struct.pack("i", 0))
    except (OSError, ValueError):  # closed
        return None
    return transport.get_write_buffer_size() + int.from_bytes(packed, sys.byteorder)


async def delivered(transport: asyncio.Transport, patience_seconds: float) -> bool:
    """Wait until everything written is acknowledged; False if the client left or took nothing for so long."""
    loop = asyncio.get_running_loop()
    left, since, pause = unacknowledged(transport), loop.time(), FIRST_PAUSE_SECONDS
    while left:
        await asyncio.sleep(pause)
        pause = min(2 * pause, LAST_PAUSE_SECONDS)
        before, left = left, unacknowledged(transport)
        if left != before:
            since = loop.time()
        elif loop.time() - since > patience_seconds:
            return False
    return left == 0
