"""A job learns nothing about the previous job in its slot; without the layer, it does."""

import asyncio
import os
import socket
from collections.abc import Callable
from threading import Thread
from unittest.mock import Mock

from sandrun_executor.sandboxes.slots import Slots
from sandrun_sandbox import linux_unsafe as linux
from support.attempts import LIMITS, attempt
from support.executor import ExecutorProcess
from support.probes import PRELUDE

_USES_THE_NETWORK = {
    "a connection": (
        "server = socket.create_server(('127.0.0.1', 0))\nsocket.create_connection(server.getsockname()).close()"
    ),
    "a failed attempt": "works(socket.create_connection, ('192.0.2.1', 80), 1)",
    "a datagram to nobody": "socket.socket(type=socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', 9))",
}
_COUNTS = """
def numbers(name):
    for line in open('/proc/self/net/' + name):
        title, _, rest = line.partition(':')
        yield title.strip(), rest.split()
packets = dict(numbers('dev'))['lo'][1]
tables = list(numbers('snmp'))
ip = dict(zip(*(fields for title, fields in tables if title == 'Ip')))
udp = dict(zip(*(fields for title, fields in tables if title == 'Udp')))
seen = packets, ip['OutNoRoutes'], udp['NoPorts']
verdict(seen != ('0', '0', '0'), seen)
"""
JOBS = 5  # more than there are sandboxes with one slot and one parked


def in_network(fd: int, action: Callable[[], object]) -> None:
    """Do it in a thread that is in that namespace and ends there."""
    done = []

    def act() -> None:
        linux.setns(fd, linux.CLONE_NEWNET)
        action()
        done.append(True)

    thread = Thread(target=act)
    thread.start()
    thread.join()
    assert done


def send() -> None:
    """A datagram to nobody."""
    with socket.socket(type=socket.SOCK_DGRAM) as sender:
        sender.sendto(b"x", ("127.0.0.1", 9))


def _seen_by_the_next(executor: ExecutorProcess, name: str) -> list[str]:
    executor.run_job(PRELUDE + _USES_THE_NETWORK[name], limits=LIMITS)
    return [attempt(executor, _COUNTS).split()[0] for _ in range(JOBS)]


def test_use_of_the_network_is_not_seen() -> None:
    with ExecutorProcess(slots=1, parked=1) as executor:
        for name in _USES_THE_NETWORK:
            assert _seen_by_the_next(executor, name) == ["CONTAINED"] * JOBS, name


def test_use_of_the_network_is_seen_in_a_namespace_that_is_used_again() -> None:
    for name in _USES_THE_NETWORK:
        with ExecutorProcess(without=["new_network"], slots=1, parked=1) as weakened:
            assert "ESCAPED" in _seen_by_the_next(weakened, name), name


def test_only_a_network_that_nobody_used_serves_again() -> None:
    async def networks() -> list[str]:
        slots = Slots(Mock(), first_uid=1, count=1)
        seen = []
        try:
            for used in (False, True, False):
                slot = slots.acquire()
                seen.append(os.readlink(f"/proc/self/fd/{slot.network.fd}"))
                if used:
                    in_network(slot.network.fd, send)
                assert slots.release(slot)
        finally:
            slots.close()
        return seen

    first, second, third = asyncio.run(networks())
    assert first == second != third
