"""The executor answers any bytes on its socket or hangs up, and leaks nothing."""

import array
import os
import socket

import msgspec
import pytest

from sandrun_shared.framing import MAX_FRAME, close_all, encode, receive
from sandrun_shared.jobs import Limits
from sandrun_shared.orders import Order, encode_bundle, encode_order
from sandrun_shared.protocol import Event, Execute, Refused
from support.executor import ExecutorProcess, JobConnection, RefusedError, memfd

_decoder = msgspec.msgpack.Decoder(Event)
_request = Execute("x", "python3", Limits())


def _answer(executor: ExecutorProcess, data: bytes, fds: list[int]) -> Refused | None:
    """The refusal, or None when the executor hung up."""
    with executor.connect() as sock:
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        sock.sendmsg([data], ancillary)
        close_all(fds)
        try:
            received = receive(sock, _decoder)
        except ConnectionResetError:
            return None
        if received is None:
            return None
        event, received_fds = received
        close_all(received_fds)
        assert isinstance(event, Refused)
        return event


def _with(**changes: object) -> bytes:
    message = msgspec.msgpack.decode(encode(_request))
    message.update(changes)
    return msgspec.msgpack.encode(message)


MALFORMED = {
    "garbage": b"\xc1garbage",
    "another protocol": b"GET / HTTP/1.1\r\n\r\n",
    "unknown type": msgspec.msgpack.encode({"type": "Shutdown"}),
    "an event": encode(Refused("full")),
    "unknown field": _with(root=True),
    "wrong type": _with(limits={"wall_seconds": "1 s"}),
    "unknown limit": _with(limits={"wall": 1}),
    "a path as job id": _with(job_id="../../etc"),
    "a path as interpreter": _with(interpreter="/usr/bin/python3"),
    "unknown upload": _with(upload="rar"),
    "a list": msgspec.msgpack.encode([1, 2, 3]),
    "deeply nested": b"\x91" * 5000 + b"\x01",
    "cut": encode(_request)[:-5],
    "too long": b"\0" * (MAX_FRAME + 1),
}


@pytest.mark.parametrize("name", MALFORMED)
@pytest.mark.parametrize("count", [0, 2])
def test_malformed(executor: ExecutorProcess, name: str, count: int) -> None:
    refused = _answer(executor, MALFORMED[name], [memfd(b"x") for _ in range(count)])
    assert refused is None or refused.reason == "invalid"


@pytest.mark.parametrize("count", [0, 1, 3, 4, 5, 20])
def test_the_number_of_descriptors_must_fit(executor: ExecutorProcess, count: int) -> None:
    refused = _answer(executor, encode(_request), [memfd(b"x") for _ in range(count)])
    assert refused is not None
    assert refused.reason == "invalid"


def test_hanging_up_without_a_word(executor: ExecutorProcess) -> None:
    for _ in range(50):
        executor.connect().close()
    assert executor.run_job("print(1)").ok() == b"1\n"


def test_another_version_is_refused(executor: ExecutorProcess) -> None:
    refused = _answer(executor, _with(version=99), [memfd(b""), memfd(b"")])
    assert refused is not None
    assert refused.reason == "invalid"


def test_an_unknown_environment_is_refused(executor: ExecutorProcess) -> None:
    refused = _answer(executor, _with(environment="gpu"), [memfd(b""), memfd(b"")])
    assert refused is not None
    assert refused.reason == "unsupported"


HOSTILE_ORDERS = {
    "empty": b"",
    "no end": b"main",
    "counts": b"main\x00999999999\x00",
    "negative": b"main\x00-1\x000\x000\x00",
    "not a number": b"main\x00x\x000\x000\x00",
    "trailing": encode_order(Order("main")) + b"more",
}


@pytest.mark.parametrize("name", HOSTILE_ORDERS)
def test_a_hostile_order_ends_the_job_only(executor: ExecutorProcess, name: str) -> None:
    _hostile(executor, HOSTILE_ORDERS[name], encode_bundle({"main": b"print(1)"}))


HOSTILE_BUNDLES = {
    "traversal": b"../x\x001\x00y",
    "absolute": b"/tmp/x\x001\x00y",
    "longer than it is": b"x\x009999999999\x00y",
    "negative": b"x\x00-5\x00y",
    "no size": b"x\x00",
    "dot dot": b"a/../../x\x001\x00y",
    "empty name": b"\x001\x00y",
}


@pytest.mark.parametrize("name", HOSTILE_BUNDLES)
def test_a_hostile_bundle_ends_the_job_only(executor: ExecutorProcess, name: str) -> None:
    _hostile(executor, encode_order(Order("main")), HOSTILE_BUNDLES[name])


def _hostile(executor: ExecutorProcess, order: bytes, bundle: bytes) -> None:

    fds = [memfd(order), memfd(bundle)]
    sock = executor.connect()
    sock.sendmsg([encode(_request)], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))])
    close_all(fds)
    result = JobConnection(sock).wait()
    assert result.outcome.verdict in ("setup_error", "internal_error")
    assert result.stdout == b""


@pytest.mark.parametrize("what", ["pipe", "directory", "socket", "device", "write only"])
def test_descriptors_that_are_no_files(executor: ExecutorProcess, what: str) -> None:
    opened = {
        "pipe": os.pipe,
        "directory": lambda: (os.open("/", os.O_RDONLY), os.open("/", os.O_RDONLY)),
        "socket": lambda: tuple(end.detach() for end in socket.socketpair()),
        "device": lambda: (os.open("/dev/null", os.O_RDONLY), os.open("/dev/zero", os.O_RDONLY)),
        "write only": lambda: (os.open("/dev/null", os.O_WRONLY), os.open("/dev/null", os.O_WRONLY)),
    }[what]()

    sock = executor.connect()
    request = msgspec.structs.replace(_request, limits=Limits(wall_seconds=2.0, memory_bytes=64 << 20))
    sock.sendmsg([encode(request)], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", opened))])
    try:
        result = JobConnection(sock).wait()
        assert result.outcome.verdict in (
            "setup_error",
            "internal_error",
            "wall_time_limit",
            "memory_limit",
        )
    except RefusedError as refused:
        assert refused.reason == "invalid"
    finally:
        close_all(list(opened))


OUT_OF_BOUNDS = (
    Limits(wall_seconds=0.0),
    Limits(wall_seconds=-1.0),
    Limits(wall_seconds=float("nan")),
    Limits(wall_seconds=float("inf")),
    Limits(cpu_seconds=0.0),
    Limits(memory_bytes=0),
    Limits(memory_bytes=1 << 62),
    Limits(disk_bytes=0),
    Limits(inodes=1),
    Limits(processes=0),
    Limits(open_files=0),
    Limits(cpu_cores=0.0),
    Limits(log_bytes=-1),
    Limits(output_files=-1),
)


@pytest.mark.parametrize("limits", OUT_OF_BOUNDS)
def test_limits_out_of_bounds_are_refused(executor: ExecutorProcess, limits: Limits) -> None:
    with pytest.raises(RefusedError) as refused:
        executor.run_job("print(1)", limits=limits)
    assert refused.value.reason == "invalid"


TIGHT = {
    "wall": (Limits(wall_seconds=1e-9), ("wall_time_limit", "ok")),
    "memory": (Limits(memory_bytes=16 << 20), ("ok", "memory_limit")),
    "files": (Limits(disk_bytes=1 << 20, inodes=100), ("ok",)),
    "processes": (Limits(processes=1), ("ok",)),
    "descriptors": (Limits(open_files=16), ("ok",)),
    "cores": (Limits(cpu_cores=0.01), ("ok",)),
    "nothing kept": (Limits(log_bytes=0, output_files=0), ("ok",)),
}


@pytest.mark.parametrize("name", TIGHT)
def test_the_tightest_limits_give_a_verdict(executor: ExecutorProcess, name: str) -> None:
    limits, verdicts = TIGHT[name]
    assert executor.run_job("print(1)", limits=limits).outcome.verdict in verdicts
    assert executor.run_job("print(1)").ok() == b"1\n"
