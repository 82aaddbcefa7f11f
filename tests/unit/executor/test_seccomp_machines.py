"""The filter of each machine, walked as the kernel would, on whichever machine this is."""

import errno
import struct

import pyseccomp
import pytest

from sandrun_executor import seccomp
from sandrun_executor.seccomp_names import ALLOWED, REFUSED

ALLOW, ERRNO = 0x7FFF0000, 0x00050000
ARCHES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}  # AUDIT_ARCH_*
OTHER_ARCHES = (0x40000003, 0x40000028, 0)  # i386, arm, none
JEQ, JGT, JGE = 0x15, 0x25, 0x35


def walk(program: bytes, arch: int, number: int, *arguments: int) -> int:
    """What the classic BPF program answers (Documentation/networking/filter.rst)."""
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


def numbers(arch: int, names: tuple[str, ...]) -> dict[str, int]:
    found = {}
    for name in names:
        try:
            found[name] = int(pyseccomp.resolve_syscall(arch, name))
        except OSError:
            continue  # newer than this libseccomp
    return {name: number for name, number in found.items() if number >= 0}


@pytest.mark.parametrize("machine", ARCHES)
def test_every_listed_call(machine: str) -> None:
    program, arch = seccomp.compile_filter(machine), ARCHES[machine]
    for names, answer in ((ALLOWED, ALLOW), (REFUSED, ERRNO | errno.EPERM)):
        listed = numbers(arch, names)
        assert {name for name, number in listed.items() if walk(program, arch, number) != answer} == set()
        assert len(listed) > 30


@pytest.mark.parametrize("machine", ARCHES)
def test_every_other_number_does_not_exist(machine: str) -> None:
    program, arch = seccomp.compile_filter(machine), ARCHES[machine]
    listed = set(numbers(arch, (*ALLOWED, *REFUSED, *seccomp._CHECKED)).values())
    others = set(range(1024)) - listed | {0x40000000, 0x40000027, 0xFFFFFFFF}
    assert {number for number in others if walk(program, arch, number) != ERRNO | errno.ENOSYS} == set()


@pytest.mark.parametrize("machine", ARCHES)
@pytest.mark.parametrize("arch", OTHER_ARCHES)
def test_other_entries_do_not_exist(machine: str, arch: int) -> None:
    program = seccomp.compile_filter(machine)
    assert {walk(program, arch, number) for number in range(600)} == {ERRNO | errno.ENOSYS}


ARGUMENTS = [
    ("clone", (17,), ALLOW),
    ("clone", (0x003D0F00,), ALLOW),  # pthread_create
    ("clone", (0x10000000,), ERRNO | errno.EPERM),
    ("socket", (2, 1 | 0x80800, 6), ALLOW),
    ("socket", (17, 3, 0), ERRNO | errno.EAFNOSUPPORT),
    ("ioctl", (0, 0x5401), ALLOW),
    ("ioctl", (0, 0x5412 | 1 << 32), ERRNO | errno.EPERM),
    ("ioctl", (0, 0xAE00), ERRNO | errno.ENOTTY),
    ("prctl", (15,), ALLOW),
    ("prctl", (22,), ERRNO | errno.EINVAL),
    ("personality", (0xFFFFFFFF,), ALLOW),
    ("personality", (8,), ERRNO | errno.EPERM),
]


@pytest.mark.parametrize("machine", ARCHES)
@pytest.mark.parametrize(("name", "arguments", "answer"), ARGUMENTS)
def test_arguments(machine: str, name: str, arguments: tuple[int, ...], answer: int) -> None:
    program, arch = seccomp.compile_filter(machine), ARCHES[machine]
    assert walk(program, arch, int(pyseccomp.resolve_syscall(arch, name)), *arguments) == answer
