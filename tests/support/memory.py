"""Reads the memory of a process of any user."""

import os
from pathlib import Path

BLOCK = 16 << 20


def occurrences(pid: int, needle: bytes) -> int:
    """Count the needle in the writable memory of a process (proc(5), mem); 0 if it has ended."""
    found = 0
    try:
        regions = Path(f"/proc/{pid}/maps").read_text().splitlines()
        memory = os.open(f"/proc/{pid}/mem", os.O_RDONLY)
    except (FileNotFoundError, ProcessLookupError):
        return 0
    try:
        for region in regions:
            span, permissions = region.split()[:2]
            if permissions.startswith("rw"):
                start, end = (int(number, 16) for number in span.split("-"))
                found += _in_region(memory, start, end, needle)
    finally:
        os.close(memory)
    return found


def _in_region(memory: int, start: int, end: int, needle: bytes) -> int:
    found, tail = 0, b""
    while start < end:
        try:
            block = os.pread(memory, min(BLOCK, end - start), start)
        except OSError:  # not backed by memory
            break
        if not block:
            break
        found += (tail + block).count(needle)
        tail = block[-(len(needle) - 1) :]
        start += len(block)
    return found


def memfds(pid: int) -> int:
    """Count the open memfds of a process."""
    folder = f"/proc/{pid}/fd"
    targets = []
    for name in os.listdir(folder):
        try:
            targets.append(os.readlink(f"{folder}/{name}"))
        except FileNotFoundError:
            continue  # closed meanwhile
    return sum(target.startswith("/memfd:") for target in targets)


def held_bytes(pid: int) -> int:
    """Measure what ends with a process: its private memory (proc(5), smaps_rollup) and its memfds."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    private = sum(
        int(line.split()[1]) << 10 for line in rollup if line.startswith(("Private_C", "Private_D"))
    )
    files = {}
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        try:
            if os.readlink(entry).startswith("/memfd:"):
                stat = entry.stat()
                files[stat.st_ino] = stat.st_blocks * 512
        except FileNotFoundError:
            continue  # closed meanwhile
    return private + sum(files.values())
