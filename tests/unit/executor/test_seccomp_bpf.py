"""Decisions written as BPF programs."""

import struct

import pytest

from sandrun_executor import bpf, seccomp


def instructions(decision: bpf.Decision) -> list[tuple[int, ...]]:
    return list(struct.iter_unpack("=HBBI", bpf.assemble(decision)))


def test_a_return_is_written_once() -> None:
    assert instructions(bpf.Load(0, bpf.among((5, 6, 7), 1, 2))) == [
        (0x20, 0, 0, 0),
        (0x15, 3, 0, 5),
        (0x15, 2, 0, 6),
        (0x15, 1, 0, 7),
        (0x06, 0, 0, 2),
        (0x06, 0, 0, 1),
    ]


def test_a_mask_is_applied_before_the_comparison() -> None:
    assert instructions(bpf.Load(16, bpf.Equal(1, 3, 4), 0xF))[:3] == [
        (0x20, 0, 0, 16),
        (0x54, 0, 0, 0xF),
        (0x15, 1, 0, 1),
    ]


def test_what_follows_a_load_is_right_behind_it() -> None:
    same = bpf.Equal(1, 3, 4)
    program = instructions(bpf.Load(0, bpf.Equal(9, bpf.Load(16, same), bpf.Load(24, same))))
    for offset in (16, 24):
        assert program[program.index((0x20, 0, 0, offset)) + 1][::3] == (0x15, 1)


def test_a_lookup_leaves_gaps_and_the_rest_to_the_other_decision() -> None:
    assert bpf.lookup({2: 1, 5: 1, 6: 1}, 0) == bpf.AtLeast(
        3, bpf.AtLeast(5, bpf.AtLeast(7, 0, 1), 0), bpf.AtLeast(2, 1, 0)
    )
    assert bpf.lookup({2: 1}, 0) == bpf.Equal(2, 1, 0)
    assert bpf.lookup({0: 1, 1: 1}, 0) == bpf.AtLeast(2, 0, 1)


def test_a_jump_that_is_too_long_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(instructions(bpf.Load(0, bpf.among(range(255), 1, 2)))) == 1 + 255 + 2
    with pytest.raises(bpf.BpfError, match="too long"):
        bpf.assemble(bpf.Load(0, bpf.among(range(256), 1, 2)))
    longer = seccomp._Check(0, ((tuple(range(256)), 1),), 5)
    monkeypatch.setitem(seccomp._CHECKED, "prctl", longer)
    with pytest.raises(seccomp.SeccompError, match="too long"):
        seccomp.compile_filter()
