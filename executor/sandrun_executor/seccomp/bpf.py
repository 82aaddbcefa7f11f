"""Compile decisions about a system call to classic BPF (Documentation/networking/filter.rst).

A decision is a value. A target that several decisions share is emitted once, within a jump's reach.
"""

import struct
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

# BPF_LD|W|ABS, BPF_ALU|AND|K, BPF_JMP|JEQ|K, BPF_JMP|JGE|K, BPF_RET|K
_LOAD, _AND, _EQUAL, _AT_LEAST, _RETURN = 0x20, 0x54, 0x15, 0x35, 0x06
_ALL = 0xFFFFFFFF
_REACH = 255  # instructions that a conditional jump can skip


class BpfError(Exception):
    """The program cannot be assembled."""


@dataclass(frozen=True)
class Load:
    """Load the 32 bits at offset of struct seccomp_data, mask them, and go on with then."""

    offset: int
    then: "Decision"
    mask: int = _ALL


@dataclass(frozen=True)
class Equal:
    """Test whether the loaded word equals a value."""

    value: int
    yes: "Decision"
    no: "Decision"


@dataclass(frozen=True)
class AtLeast:
    """Test whether the loaded word, as an unsigned number, is at least a value."""

    value: int
    yes: "Decision"
    no: "Decision"


Decision = int | Load | Equal | AtLeast  # a number is what the filter returns


def among(values: Sequence[int], yes: Decision, no: Decision) -> Decision:
    """Test whether the loaded word is one of these values, one by one, in this order."""
    decision = no
    for value in reversed(values):
        decision = Equal(value, yes, decision)
    return decision


def within(values: Collection[int], yes: Decision, no: Decision) -> Decision:
    """Test whether the loaded word is one of these values: single ones by equality, runs by search."""
    alone = [value for value in sorted(values) if value - 1 not in values and value + 1 not in values]
    in_runs = frozenset(values) - set(alone)
    runs = [] if 0 in in_runs else [(0, no)]
    for value in sorted(in_runs):
        if value - 1 not in in_runs:
            runs.append((value, yes))
        if value + 1 not in in_runs:
            runs.append((value + 1, no))
    return among(alone, yes, _search(runs))


def lookup(decisions: Mapping[int, Decision], otherwise: Decision) -> Decision:
    """Look up the decision for the loaded word, a small number, by binary search over runs."""
    runs = [(0, decisions.get(0, otherwise))]
    for number in range(1, max(decisions) + 2):  # the last run, otherwise's, is open-ended
        decision = decisions.get(number, otherwise)
        if decision != runs[-1][1]:
            runs.append((number, decision))
    return _search(runs)


def _search(runs: Sequence[tuple[int, Decision]]) -> Decision:
    """Search runs, each its first number and its decision; a run ends where the next begins."""
    match runs:
        case [(_, decision)]:
            return decision
        case [(_, before), (number, decision), (end, after)] if before == after and end == number + 1:
            return Equal(number, decision, after)
    middle = len(runs) // 2
    return AtLeast(runs[middle][0], _search(runs[middle:]), _search(runs[:middle]))


class _Writer:
    """Emits from the last instruction to the first, so that every jump's target is known."""

    def __init__(self) -> None:
        self._reversed: list[tuple[int, int, int, int]] = []
        self._places: dict[Decision, int] = {}  # distance from the end of the program

    def write(self, decision: Decision) -> bytes:
        self._append(decision)
        return b"".join(struct.pack("=HBBI", *instruction) for instruction in reversed(self._reversed))

    def _place(self, decision: Decision) -> None:
        if decision not in self._places:
            self._write(decision)

    def _write(self, decision: Decision) -> None:
        self._append(decision)
        self._places[decision] = len(self._reversed)

    def _distance(self, decision: Decision) -> int:
        return len(self._reversed) - self._places[decision]

    def _append(self, decision: Decision) -> None:
        match decision:
            case Load(offset, then, mask):
                self._append(then)  # emitted here even if it exists elsewhere, because a load does not jump
                if mask != _ALL:
                    self._reversed.append((_AND, 0, 0, mask))
                self._reversed.append((_LOAD, 0, 0, offset))
            case Equal(value, yes, no):
                self._reversed.append((_EQUAL, *self._jumps(yes, no), value))
            case AtLeast(value, yes, no):
                self._reversed.append((_AT_LEAST, *self._jumps(yes, no), value))
            case int():
                self._reversed.append((_RETURN, 0, 0, decision))

    def _jumps(self, yes: Decision, no: Decision) -> tuple[int, int]:
        self._place(yes)
        self._place(no)  # last, so that it mostly needs no jump
        for decision in (yes, no):
            if isinstance(decision, int) and self._distance(decision) > _REACH:
                self._write(decision)  # a return is one instruction, so it is emitted again
        if max(self._distance(yes), self._distance(no)) > _REACH:
            raise BpfError("a jump is too long")
        return self._distance(yes), self._distance(no)


def assemble(decision: Decision) -> bytes:
    """Assemble the program, an array of struct sock_filter. Raises BpfError if a jump is too long."""
    return _Writer().write(decision)
