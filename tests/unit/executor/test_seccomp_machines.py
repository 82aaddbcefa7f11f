"""The filter of each architecture, interpreted as the kernel would, on any architecture."""

import errno
import functools
import itertools
import os
import struct
from collections.abc import Callable, Iterable

import pyseccomp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandrun_executor.seccomp import filter as seccomp
from sandrun_executor.seccomp.names import ALLOWED, PRETENDED, REFUSED

ALLOW, ERRNO = 0x7FFF0000, 0x00050000
ARCHES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}  # AUDIT_ARCH_*
OTHER_ARCHES = (0x40000003, 0x40000028, 0xC00000F3, 0xFFFFFFFF, 0)  # i386, arm, riscv64, none
JEQ, JGT, JGE = 0x15, 0x25, 0x35
LISTS = ((ALLOWED, ALLOW), (REFUSED, ERRNO | errno.EPERM), (PRETENDED, ERRNO))


def walk(program: bytes, arch: int, number: int, *arguments: int) -> int:
    """Interpret a classic BPF program (Documentation/networking/filter.rst)."""
    data = struct.pack("<IIQ6Q", number, arch, 0, *arguments, *[0] * (6 - len(arguments)))
    instructions = list(struct.iter_unpack("<HBBI", program))
    at = value = 0
    while True:
        code, yes, no, k = instructions[at]
        at += 1
        match code:
            case 0x20:  # load
                value = struct.unpack_from("<I", data, k)[0]
            case 0x54:  # and
                value &= k
            case 0x05:  # jump
                at += k
            case 0x06:  # return
                return int(k)
            case _:
                at += yes if {JEQ: value == k, JGT: value > k, JGE: value >= k}[code] else no


@functools.cache
def compiled(machine: str) -> bytes:
    return seccomp.compile_filter(machine)


def numbers(arch: int, names: Iterable[str]) -> dict[str, int]:
    found = {name: int(pyseccomp.resolve_syscall(arch, name)) for name in names}
    return {name: number for name, number in found.items() if number >= 0}


@pytest.mark.parametrize("machine", ARCHES)
def test_every_listed_call(machine: str) -> None:
    program, arch = compiled(machine), ARCHES[machine]
    for names, answer in LISTS:
        listed = numbers(arch, names)
        assert {name for name, number in listed.items() if walk(program, arch, number) != answer} == set()
        assert len(listed) == len(names) if names is PRETENDED else len(listed) > 30


@pytest.mark.parametrize("machine", ARCHES)
def test_every_other_number_does_not_exist(machine: str) -> None:
    program, arch = compiled(machine), ARCHES[machine]
    listed = set(numbers(arch, (*ALLOWED, *REFUSED, *PRETENDED, *seccomp._CHECKED)).values())
    others = set(range(1024)) - listed | {0x40000000, 0x40000027, 0xFFFFFFFF}
    assert {number for number in others if walk(program, arch, number) != ERRNO | errno.ENOSYS} == set()


@pytest.mark.parametrize("machine", ARCHES)
def test_other_entries_do_not_exist(machine: str) -> None:
    program = compiled(machine)
    others = {*OTHER_ARCHES, *ARCHES.values()} - {ARCHES[machine]}
    answers = {walk(program, arch, number) for arch in others for number in range(600)}
    assert answers == {ERRNO | errno.ENOSYS}


# What the filter should answer, said a second time and in another way than in the product


def expected_clone(flags: int, *_: int) -> int:
    namespaces = (0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000)
    return ERRNO | errno.EPERM if any(flags & each for each in namespaces) else ALLOW


def expected_socket(family: int, kind: int, protocol: int, *_: int) -> int:
    for flag in (os.O_CLOEXEC, os.O_NONBLOCK):
        kind &= ~flag
    match family:
        case 1:
            allowed = kind in {1, 2, 5}
        case 2 | 10:
            allowed = kind in {1, 2} and protocol in {0, 6, 17}
        case 16:
            return ERRNO | errno.EOPNOTSUPP
        case _:
            allowed = False
    return ALLOW if allowed else ERRNO | errno.EAFNOSUPPORT


def expected_socketpair(family: int, *_: int) -> int:
    return ALLOW if family == 1 else ERRNO | errno.EAFNOSUPPORT


def expected_ioctl(_: int, request: int, *__: int) -> int:
    if request in {0x540E, 0x5412, 0x541C, 0x541D}:
        return ERRNO | errno.EPERM
    terminal = {*range(0x5401, 0x5405), 0x5413, 0x5414, 0x540F, 0x5410, 0x5411, 0x5429}
    terminal2 = {0x802C542A, *range(0x402C542B, 0x402C542E)}
    files = {0x541B, 0x5421, *range(0x5450, 0x5453)}
    interfaces = {0x8910, 0x8912, 0x8913, 0x8915, 0x8919, 0x891B, 0x8921, 0x8927, 0x8933}
    return ALLOW if request in terminal | terminal2 | files | interfaces else ERRNO | errno.ENOTTY


def expected_prctl(option: int, *_: int) -> int:
    if option == 15:
        return ERRNO
    small = {*range(1, 5), 7, 16, 21, 23, *range(25, 28), 29, 30, 33, 34, *range(36, 40)}
    return ALLOW if option in small or option in {0x53564D41, 0x59616D61} else ERRNO | errno.EINVAL


def expected_personality(persona: int, *_: int) -> int:
    return ALLOW if persona in {0, 0xFFFFFFFF} else ERRNO | errno.EPERM


def expected_setsockopt(_: int, level: int, option: int, *__: int) -> int:
    options: set[int] = {
        1: {2, *range(5, 14), 15, 16, 18, 20, 21, 66, 67},
        6: {*range(1, 11), 12, 18, 23, 25, 30},
        0: {1, 2, 8, 10, 12, 13, 15, 24, 32, 33, 34, 49},
        41: {16, 17, 18, 19, 23, 26, 29, 49, 51, 62, 66, 67},
    }.get(level, set())
    return ALLOW if option in options else ERRNO | errno.ENOPROTOOPT


def expected_getsockopt(_: int, level: int, option: int, *__: int) -> int:
    return ERRNO | errno.ENOPROTOOPT if (level, option) in {(1, 57), (1, 71), (6, 35)} else ALLOW


def expected_fadvise64(_: int, __: int, ___: int, advice: int) -> int:
    return {4: ERRNO}.get(advice, ALLOW if advice < 6 else ERRNO | errno.EINVAL)


def without_huge_pages(flags: int, flag: int) -> int:
    return ERRNO | errno.ENOMEM if flags & flag else ALLOW


def without_more(flags: int) -> int:
    return ERRNO | errno.EOPNOTSUPP if flags & 0x8000 else ALLOW


CHECKED: dict[str, Callable[[int, int, int, int], int]] = {
    "clone": expected_clone,
    "socket": expected_socket,
    "socketpair": expected_socketpair,
    "ioctl": expected_ioctl,
    "prctl": expected_prctl,
    "personality": expected_personality,
    "mmap": lambda _, __, ___, flags: without_huge_pages(flags, 0x40000),
    "memfd_create": lambda _, flags, *__: without_huge_pages(flags, 0x4),
    "shmget": lambda _, __, flags, ___: without_huge_pages(flags, 0x800),
    "fadvise64": expected_fadvise64,
    "sendto": lambda _, __, ___, flags: without_more(flags),
    "sendmsg": lambda _, __, flags, ___: without_more(flags),
    "sendmmsg": lambda _, __, ___, flags: without_more(flags),
    "setsockopt": expected_setsockopt,
    "getsockopt": expected_getsockopt,
}


@functools.cache
def table(machine: str) -> dict[int, int | Callable[[int, int, int, int], int]]:
    """Map each number to its answer; a missing number does not exist."""
    arch, answers = ARCHES[machine], dict[int, int | Callable[[int, int, int, int], int]]()
    for names, answer in LISTS:
        answers |= dict.fromkeys(numbers(arch, names).values(), answer)
    return answers | {number: CHECKED[name] for name, number in numbers(arch, CHECKED).items()}


def expected(machine: str, number: int, *arguments: int) -> int:
    answer = table(machine).get(number, ERRNO | errno.ENOSYS)
    if isinstance(answer, int):
        return answer
    first, second, third, fourth, *_ = (*(argument & 0xFFFFFFFF for argument in arguments), 0, 0, 0, 0)
    return answer(first, second, third, fourth)


def wrong(machine: str, calls: Iterable[tuple[int, ...]]) -> list[tuple[int, ...]]:
    program, arch = compiled(machine), ARCHES[machine]
    return [call for call in calls if walk(program, arch, *call) != expected(machine, *call)]


def test_the_tables_check_the_same_calls() -> None:
    assert CHECKED.keys() == seccomp._CHECKED.keys()


@pytest.mark.parametrize("machine", ARCHES)
def test_every_number(machine: str) -> None:
    every = (*range(600), *range(0x40000000, 0x40000000 + 600), 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
    assert wrong(machine, ((number,) for number in every)) == []


@given(
    st.sampled_from(sorted(ARCHES)),
    st.integers(0, 600) | st.integers(0, 2**32 - 1),
    st.tuples(*[st.integers(0, 2**64 - 1) | st.integers(0, 80)] * 4),
)
def test_any_call(machine: str, number: int, arguments: tuple[int, int, int, int]) -> None:
    assert wrong(machine, [(number, *arguments)]) == []


HIGH = (1 << 32, 0xFFFF_FFFF << 32)  # above what the kernel looks at
VALUES = sorted(
    {*range(256), *range(0x5380, 0x5480), *range(0x8900, 0x8940), 0xFFFFFFFF}
    | {1 << bit for bit in range(32)}
    | {value + by for value in (0x402C542C, 0x802C542A, 0x53564D41, 0x59616D61) for by in range(-3, 4)}
)


@pytest.mark.parametrize("machine", ARCHES)
@pytest.mark.parametrize("name", sorted(CHECKED.keys() - {"socket"}))
def test_every_likely_argument(machine: str, name: str) -> None:
    number = numbers(ARCHES[machine], [name])[name]
    arguments = [
        tuple(value if place == at else 0 for place in range(4)) for at in range(4) for value in VALUES
    ]
    assert wrong(machine, ((number, *each) for each in arguments)) == []
    high = itertools.cycle(HIGH)
    assert wrong(machine, ((number, *(value | next(high) for value in each)) for each in arguments)) == []


@pytest.mark.parametrize("machine", ARCHES)
@pytest.mark.parametrize("name", ["setsockopt", "getsockopt"])
def test_every_likely_option(machine: str, name: str) -> None:
    number = numbers(ARCHES[machine], [name])[name]
    levels = (
        *range(48),
        132,
        136,
        255,
        263,
        *range(268, 288),
        0xFFFFFFFF,
    )  # SOL_NETLINK, SOL_TLS, SOL_MPTCP, …
    options = (*range(160), 0xFFFFFFFF)
    assert wrong(machine, ((number, 3, *each) for each in itertools.product(levels, options))) == []
    assert wrong(machine, ((number, 3, each | HIGH[0], 26 | HIGH[1]) for each in levels)) == []


@pytest.mark.parametrize("machine", ARCHES)
def test_a_resolver_may_set_two_options_more(machine: str) -> None:
    arch, number = ARCHES[machine], numbers(ARCHES[machine], ["setsockopt"])["setsockopt"]
    plain, resolver = compiled(machine), seccomp.compile_filter(machine, resolver=True)
    every = [(number, 3, level, option) for level in range(300) for option in range(160)]
    more = [call[2:] for call in every if walk(plain, arch, *call) != walk(resolver, arch, *call)]
    assert more == [(0, 11), (41, 25)]  # IP_RECVERR, IPV6_RECVERR
    assert walk(resolver, arch, number, 3, 0, 11) == ALLOW


@pytest.mark.parametrize("machine", ARCHES)
def test_every_likely_socket(machine: str) -> None:
    number = numbers(ARCHES[machine], ["socket"])["socket"]
    flags = (0, os.O_CLOEXEC, os.O_NONBLOCK, os.O_CLOEXEC | os.O_NONBLOCK, 0x100, 0x40000)
    kinds = [kind | flag for kind in range(8) for flag in flags]
    sockets = itertools.product(range(48), kinds, (*range(20), 58, 132, 262))
    assert wrong(machine, ((number, *each) for each in sockets)) == []
    few = [(1, 2, 10, 16, 17), (1, 2, 3), (0, 1, 6)]
    assert (
        wrong(machine, itertools.product([number], *([v | h for v in part for h in HIGH] for part in few)))
        == []
    )


# The program itself


@pytest.mark.parametrize("machine", ARCHES)
def test_the_kernel_would_take_it(machine: str) -> None:
    """Reimplement bpf_check_classic and seccomp_check_filter of the kernel, for other architectures."""
    program = list(struct.iter_unpack("<HBBI", compiled(machine)))
    for at, (code, yes, no, k) in enumerate(program):
        assert code in {0x20, 0x54, 0x06, JEQ, JGE}
        if code == 0x20:
            assert k % 4 == 0
            assert k < 64
        if code in {JEQ, JGE}:
            assert at + 1 + max(yes, no) < len(program)
    assert program[-1][0] == 0x06


@pytest.mark.parametrize("machine", ARCHES)
def test_it_is_small(machine: str) -> None:
    # Every start pays for its translation, twice; and within 256 no jump can be too long.
    assert len(compiled(machine)) // 8 <= 256


@pytest.mark.parametrize("machine", ARCHES)
def test_an_older_libseccomp(machine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A call without a number does not exist, and all others are unchanged."""
    resolve, arch = pyseccomp.resolve_syscall, ARCHES[machine]
    newer = {"close_range", "faccessat2", "clone", "futex_waitv", "ptrace"}
    forgotten = numbers(arch, newer).values()
    assert len(forgotten) == len(newer)
    known = compiled(machine)
    monkeypatch.setattr(pyseccomp, "resolve_syscall", lambda *ask: -1 if ask[1] in newer else resolve(*ask))
    program = seccomp.compile_filter(machine)
    answers = {number: walk(program, arch, number) for number in range(600)}
    assert {answers.pop(number) for number in forgotten} == {ERRNO | errno.ENOSYS}
    assert answers == {number: walk(known, arch, number) for number in answers}


ARGUMENTS = [
    ("clone", (17,), ALLOW),
    ("clone", (0x003D0F00,), ALLOW),  # pthread_create
    ("clone", (0x10000000,), ERRNO | errno.EPERM),
    ("socket", (2, 1 | 0x80800, 6), ALLOW),
    ("socket", (17, 3, 0), ERRNO | errno.EAFNOSUPPORT),
    ("ioctl", (0, 0x5401), ALLOW),
    ("ioctl", (0, 0x5412 | 1 << 32), ERRNO | errno.EPERM),
    ("ioctl", (0, 0xAE00), ERRNO | errno.ENOTTY),
    ("prctl", (15,), ERRNO),  # 0: done, as far as the caller can tell
    ("prctl", (16,), ALLOW),
    ("prctl", (22,), ERRNO | errno.EINVAL),
    ("personality", (0xFFFFFFFF,), ALLOW),
    ("personality", (8,), ERRNO | errno.EPERM),
]


@pytest.mark.parametrize("machine", ARCHES)
@pytest.mark.parametrize(("name", "arguments", "answer"), ARGUMENTS)
def test_arguments(machine: str, name: str, arguments: tuple[int, ...], answer: int) -> None:
    program, arch = compiled(machine), ARCHES[machine]
    assert walk(program, arch, int(pyseccomp.resolve_syscall(arch, name)), *arguments) == answer
