"""The messages between root and the processes of a sandbox: every kind, checked where it is read.

Orders go down, from root to a zygote, to PID 1 and to the process that becomes the job: a marshalled tuple of
a name and values, which root alone writes, with descriptors. Reports go up: a line of ASCII words, because
marshal is not made for the bytes of a process that may be hostile. Neither direction carries a byte that a
client wrote.
"""

from __future__ import annotations

import marshal
import os

from sandrun_sandbox.layout import REASONS

TYPE_CHECKING = False  # as typing's, without importing it
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeVar, dataclass_transform

    D = TypeVar("D", bound="Order")
    R = TypeVar("R", bound="Report")
else:

    def dataclass_transform():
        """Tell type checkers that annotations make the fields of subclasses; does nothing at run time."""
        return lambda cls: cls


ORDER_BYTES, REPORT_BYTES = 4096, 256  # of one datagram
MAX_DESCRIPTORS = 16
_VERSION = 2  # of marshal: the oldest that has every type used here, the same on all supported CPythons
_PAGE = os.sysconf("SC_PAGE_SIZE")
_LETTERS = frozenset("abcdefghijklmnopqrstuvwxyz0123456789_")
_WORD = 32  # characters
_STATUS = 0xFFFF  # the largest wait status, errno or exit code
_DIGITS = 18  # of any number: it fits into 64 bits


class MessageError(ValueError):
    """A datagram is not a message, or not one allowed here; `name` is the name in it, or "unknown"."""

    def __init__(self, name: object) -> None:
        self.name = name if isinstance(name, str) and _is_word(name) else "unknown"
        super().__init__(f"no such message here: {self.name}")

    @property
    def report(self) -> Failed:
        """The report that a process of the sandbox sends about this error before it exits."""
        return Failed(("message_" + self.name)[:_WORD], 0)


def _is_word(text: str) -> bool:
    return 0 < len(text) <= _WORD and _LETTERS.issuperset(text)


def _require(holds: bool) -> None:
    if not holds:
        raise ValueError("not a value of this message")


def _exactly(kind: type) -> Callable[[Any], Any]:
    def read(value: Any) -> Any:
        _require(type(value) is kind)
        return value

    return read


def _number(value: Any) -> int:
    _require(type(value) is int and 0 <= value < 10**_DIGITS)
    return int(value)


def _seconds(value: Any) -> float:
    _require(type(value) in (int, float) and 0 <= value < 10**_DIGITS)
    return float(value)


def _tuple_of(read: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def read_all(value: Any) -> Any:
        _require(type(value) is tuple)
        return tuple([read(item) for item in value])

    return read_all


def _variables(value: Any) -> dict[str, str]:
    _require(type(value) is dict and {type(item) for pair in value.items() for item in pair} <= {str})
    return dict(value)


def _limits(value: Any) -> TmpfsLimits:
    disk_bytes, inodes, shm_bytes = value
    return TmpfsLimits(_number(disk_bytes), _number(inodes), _number(shm_bytes))


# Readers of a field's value, by the field's annotation.
_READ: dict[str, Callable[[Any], Any]] = {
    "bool": _exactly(bool),
    "bytes": _exactly(bytes),
    "dict[str, str]": _variables,
    "float": _seconds,
    "int": _number,
    "str": _exactly(str),
    "TmpfsLimits": _limits,
    "tuple[int, ...]": _tuple_of(_number),
    "tuple[str, ...]": _tuple_of(_exactly(str)),
}


def _optional(read: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda value: None if value is None else read(value)


_READ.update({f"{kind} | None": _optional(read) for kind, read in list(_READ.items())})


@dataclass_transform()
class _Fields:
    """Base of messages, whose fields are the annotations of the class; class attributes are defaults."""

    FIELDS: tuple[tuple[str, str], ...] = ()  # name and annotation

    def __init_subclass__(cls) -> None:
        cls.FIELDS = tuple(getattr(cls, "__annotations__", {}).items())

    def __init__(self, *values: Any, **named: Any) -> None:
        for (name, _), value in zip(self.FIELDS, values):  # noqa: B905 (Python 3.9)
            setattr(self, name, value)
        for name, value in named.items():
            setattr(self, name, value)

    def values(self) -> tuple[Any, ...]:
        """The values of the fields, in order."""
        return tuple([getattr(self, name) for name, _ in self.FIELDS])

    def check(self) -> None:
        """Raise ValueError for an inconsistent combination of fields."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, type(self)) and other.values() == self.values()

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"{type(self).__name__}{self.values()!r}"


class TmpfsLimits(_Fields):
    """Sizes of the folders in which a job may write, in bytes and inodes (tmpfs(5))."""

    disk_bytes: int
    inodes: int
    shm_bytes: int

    def disk(self, noswap: str) -> str:
        """Mount options of the tmpfs that several folders share, with one page for our /proc/stat.

        noswap: that option with its comma, or "".
        """
        return f"size={self.disk_bytes + _PAGE},nr_inodes={self.inodes}{noswap}"

    def shm(self, noswap: str) -> str:
        """Mount options of /dev/shm; noswap as for disk."""
        return f"size={self.shm_bytes},nr_inodes={self.inodes}{noswap}"


class Order(_Fields):
    """A message downwards."""

    NAME = ""

    def encode(self) -> bytes:
        """The bytes of one datagram."""
        values = [item.values() if isinstance(item, TmpfsLimits) else item for item in self.values()]
        return marshal.dumps((self.NAME, *values), _VERSION)

    def takes(self, descriptors: int) -> bool:
        """Whether this number of descriptors may accompany it."""
        return descriptors == 0


def decode_order(data: bytes, *kinds: type[D]) -> D:
    """Decode an order of one of these kinds, which root wrote. Raises MessageError."""
    try:
        name, *values = marshal.loads(data)  # noqa: S302 (root writes it)
    except (EOFError, TypeError, ValueError):
        raise MessageError(None) from None
    for kind in kinds:
        if name == kind.NAME and len(kind.FIELDS) == len(values):
            try:
                fields = zip(kind.FIELDS, values)  # noqa: B905 (Python 3.9)
                order = kind(*[_READ[annotation](value) for (_, annotation), value in fields])
                order.check()
            except (TypeError, ValueError):
                break
            return order
    raise MessageError(name)


class ZygoteConfig(Order):
    """The configuration of a zygote.

    control is the descriptor of its channel, tasks are those of the cgroup to join; seccomp and gpu_seccomp
    are BPF programs, the latter for jobs with a GPU; core_bytes is RLIMIT_CORE; noswap is a mount option or
    ""; variables are those of jobs in addition to layout.VARIABLES; links are the entries of HOME, None
    without an environment; forks: whether a Python job may be a fork of this interpreter, or must start its
    environment's.
    """

    NAME = "zygote"
    control: int
    tasks: tuple[int, ...]
    seccomp: bytes
    gpu_seccomp: bytes
    core_bytes: int
    noswap: str
    variables: dict[str, str]
    links: tuple[str, ...] | None
    forks: bool


class Spawn(Order):
    """To a zygote: fork a sandbox for a slot's uid, with a GPU's index if its job is to have that GPU.

    installs says whether packages are installed in it.
    Descriptors: the channels of PID 1 and of the job, the network namespace, one `tasks` file for each cgroup
    controller (v1), and with into_cgroup the cgroup to fork into (v2).
    """

    NAME = "spawn"
    uid: int
    into_cgroup: bool
    limits: TmpfsLimits
    gpu: int | None
    installs: bool

    def takes(self, descriptors: int) -> bool:
        """At least three, and the cgroup."""
        return descriptors >= 3 + self.into_cgroup


NO_PACKAGES, LAYER, INSTALLING = "", "layer", "installing"


class Configure(Order):
    """To PID 1, before the job is handed over: how this job differs from the default; answered by Configured.

    limits is None if the sizes stay. packages is one of the three kinds above. Descriptors: zero, the layer,
    or the folder to install to and one file for each name of tools.
    """

    NAME = "configure"
    limits: TmpfsLimits | None
    packages: str
    tools: tuple[str, ...]

    def check(self) -> None:
        """Raise ValueError for an unknown kind of packages, or tools that do not match it."""
        _require(self.packages == INSTALLING or (self.packages in (NO_PACKAGES, LAYER) and not self.tools))

    def takes(self, descriptors: int) -> bool:
        """As the class says."""
        return descriptors == (1 + len(self.tools) if self.packages else 0)


class Stop(Order):
    """To PID 1: end the job, with grace_seconds between SIGTERM and SIGKILL, or by SIGKILL if they are 0."""

    NAME = "stop"
    grace_seconds: float


class Collect(Order):
    """To PID 1, once the job is dead: collect outputs within bounds of files, bytes and seconds.

    Descriptors: order, snapshot, and where to write data, names and numbers.
    """

    NAME = "collect"
    files: int
    size_bytes: int
    seconds: float

    def takes(self, descriptors: int) -> bool:
        """Five."""
        return descriptors == 5


class JobMessage(Order):
    """To the process that becomes the job: how to run it. The client's order says what to run.

    command, compiler and language_variables are of the table of languages; package_variables let packages be
    found; upload is the kind of archive; warm says whether a fork of the zygote may run it; buffered is as in
    Execute; threads is what a library may start; stack_bytes is 0 for the usual stack.
    Descriptors: stdin, stdout, stderr, order, upload, snapshot.
    """

    NAME = "job"
    command: tuple[str, ...]
    compiler: tuple[str, ...]
    language_variables: dict[str, str]
    package_variables: dict[str, str]
    upload: str
    warm: bool
    buffered: bool | None
    threads: int
    disk_bytes: int
    open_files: int
    processes: int
    stack_bytes: int

    def check(self) -> None:
        """Raise ValueError if there is nothing to run."""
        _require(bool(self.command))

    def takes(self, descriptors: int) -> bool:
        """Six."""
        return descriptors == 6


class Report(_Fields):
    """A message upwards."""

    NAME = ""

    def encode(self) -> bytes:
        """The bytes of one datagram."""
        words = [self.NAME]
        for value in self.values():
            items = value if isinstance(value, tuple) else (value,)
            words += [item if isinstance(item, str) else str(int(item)) for item in items]
        return " ".join(words).encode("ascii")


def decode_report(data: bytes, *kinds: type[R]) -> R:
    """Decode a report of one of these kinds from a process of the sandbox. Raises MessageError."""
    name, *words = data.decode("ascii", "replace").split(" ")
    for kind in kinds:
        if name == kind.NAME:
            try:
                report = kind(*_values_of(words, kind.FIELDS))
                report.check()
            except ValueError:
                break
            return report
    raise MessageError(name)


def _values_of(words: list[str], fields: tuple[tuple[str, str], ...]) -> list[Any]:
    """Decode words, each exactly as encode writes it, to the values of fields. Raises ValueError."""
    if [kind for _, kind in fields] == ["tuple[int, ...]"]:
        return [tuple([_decimal(word) for word in words])]
    _require(len(words) == len(fields))
    values: list[Any] = []
    for (_, kind), word in zip(fields, words):  # noqa: B905 (Python 3.9)
        if kind == "str":
            _require(_is_word(word))
            values.append(word)
        else:
            number = _decimal(word)
            _require(number <= 1 or kind != "bool")
            values.append(bool(number) if kind == "bool" else number)
    return values


def _decimal(word: str) -> int:
    _require(len(word) <= _DIGITS and word.isdigit() and str(int(word)) == word)
    return int(word)


class Ready(Report):
    """Of a zygote: it serves. Of a job's process: it is confined and waits for its job."""

    NAME = "ready"


class Forked(Report):
    """Of a zygote, about one sandbox: PID 1 exists; the descriptor is its pidfd."""

    NAME = "forked"


class Configured(Report):
    """Of PID 1: Configure is done."""

    NAME = "configured"


class Compiling(Report):
    """Of a job's process: the compiler is about to run."""

    NAME = "compiling"


class Started(Report):
    """Of a job's process: the job's program is about to take its place."""

    NAME = "started"


class Failed(Report):
    """Of any process: the step that failed, and its errno or the exit code of an unpacker or compiler."""

    NAME = "failed"
    step: str
    code: int

    def check(self) -> None:
        """Raise ValueError for an impossible code."""
        _require(self.code <= _STATUS)


class Exited(Report):
    """Of PID 1: the wait status of the job's process (wait(2)), and whether its folders were full then."""

    NAME = "exited"
    status: int
    disk_full: bool

    def check(self) -> None:
        """Raise ValueError for an impossible wait status."""
        _require(self.status <= _STATUS and (os.WIFEXITED(self.status) or os.WIFSIGNALED(self.status)))


class Collected(Report):
    """Of PID 1: the outputs are collected; counts those left out, for each of layout.REASONS."""

    NAME = "collected"
    counts: tuple[int, ...]

    def check(self) -> None:
        """Raise ValueError unless there is one count for each reason."""
        _require(len(self.counts) == len(REASONS))


FROM_ZYGOTE = (Ready, Failed)
FROM_INIT = (Forked, Configured, Exited, Collected, Failed)  # on this channel the zygote speaks first
FROM_JOB = (Ready, Compiling, Started, Failed)
