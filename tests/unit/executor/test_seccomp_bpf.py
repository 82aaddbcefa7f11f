"""Decisions assembled to BPF programs."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandrun_executor.seccomp import bpf
from sandrun_executor.seccomp import filter as seccomp


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


def test_within_asks_for_runs() -> None:
    assert bpf.within({4, 5, 6}, 1, 0) == bpf.AtLeast(4, bpf.AtLeast(7, 0, 1), 0)
    assert bpf.within([9, 4, 5], 1, 0) == bpf.Equal(9, 1, bpf.AtLeast(4, bpf.AtLeast(6, 0, 1), 0))
    assert bpf.within([0, 1], 1, 0) == bpf.AtLeast(2, 0, 1)


def ran(program: list[tuple[int, ...]], value: int) -> int:
    """Run a program that loads once; returns its result for the value."""
    at = 1
    while program[at][0] != 0x06:
        code, yes, no, k = program[at]
        at += 1 + (yes if (value == k if code == 0x15 else value >= k) else no)
    return program[at][3]


@given(st.frozensets(st.integers(0, 90), min_size=1))
def test_within_answers_as_among_does(values: frozenset[int]) -> None:
    within = instructions(bpf.Load(0, bpf.within(values, 1, 2)))
    among = instructions(bpf.Load(0, bpf.among(sorted(values), 1, 2)))
    assert all(ran(within, value) == ran(among, value) for value in (*range(95), 2**32 - 1))


def test_a_return_out_of_reach_is_written_again() -> None:
    program = instructions(bpf.Load(0, bpf.lookup({number: number % 2 for number in range(400)}, 2)))
    assert len([each for each in program if each[0] == 0x06]) > 3
    assert all(ran(program, value) == (value % 2 if value < 400 else 2) for value in range(405))


def test_a_jump_that_is_too_long_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    far, long = bpf.Equal(7, 3, 4), bpf.lookup({number: number % 2 for number in range(300)}, 2)
    with pytest.raises(bpf.BpfError, match="too long"):
        bpf.assemble(bpf.Load(0, bpf.Equal(5, far, long)))
    monkeypatch.setattr(bpf, "_REACH", 60)
    with pytest.raises(seccomp.SeccompError, match="too long"):
        seccomp.compile_filter()
