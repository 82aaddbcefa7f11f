"""Sealed boxes: only the reader can open them, and changed, moved or missing ones are detected."""

import base64
import hashlib
import io
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nacl.public import PrivateKey

from sandrun_shared import sealing
from sandrun_shared.framing import CHUNK
from sandrun_shared.outputs import is_path
from sandrun_shared.sealing import LogSealer, SealedOutputs, SealError, open_logs, seal_outputs
from support.outputs import index_of

READER = PrivateKey(b"\5" * 32)
records = st.lists(st.tuples(st.sampled_from([1, 2]), st.binary(min_size=1, max_size=200)), max_size=20)
BIG = sealing.OUTPUT_PAYLOAD


def joined(pieces: list[tuple[int, bytes]]) -> list[tuple[int, bytes]]:
    """Neighbours of one stream put together."""
    runs: list[tuple[int, bytes]] = []
    for stream, data in pieces:
        if runs and runs[-1][0] == stream:
            runs[-1] = stream, runs[-1][1] + data
        else:
            runs.append((stream, data))
    return runs


def lines_of(*batches: list[tuple[int, bytes]]) -> list[bytes]:
    """Sealed lines of several batches, the last one marked."""
    sealer = LogSealer(READER.public_key)
    lines = [line for batch in batches[:-1] for line in sealer.lines(batch)]
    return lines + sealer.lines(batches[-1], last=True)


@given(st.lists(records, min_size=1, max_size=4))
def test_logs_come_back_in_their_order(batches: list[list[tuple[int, bytes]]]) -> None:
    opened, complete = open_logs(READER, b"".join(lines_of(*batches)))
    assert complete
    assert joined(opened) == joined([record for batch in batches for record in batch])


@pytest.mark.parametrize("size", [1, sealing.LOG_PAYLOAD - 5, sealing.LOG_PAYLOAD, CHUNK, 3 * CHUNK])
def test_every_line_fits_in_a_message_and_costs_no_more_than_was_set_aside(size: int) -> None:
    data = bytes(size)
    lines = lines_of([(1, b"x"), (2, data)])
    assert max(map(len, lines)) <= CHUNK
    assert sum(map(len, lines)) * 3 <= (size + 1 + (2 + size // CHUNK) * sealing.LOG_OVERHEAD) * 4
    assert joined(open_logs(READER, b"".join(lines))[0]) == [(1, b"x"), (2, data)]


def test_nothing_printed_is_still_an_end() -> None:
    assert LogSealer(READER.public_key).lines([]) == []
    assert open_logs(READER, b"") == ([], False)
    assert open_logs(READER, b"".join(lines_of([]))) == ([], True)


@pytest.mark.parametrize(
    "change",
    [
        lambda lines: lines[1:],
        lambda lines: [lines[1], lines[0], lines[2]],
        lambda lines: [lines[0], *lines],
        lambda lines: [*lines, lines[2]],
        lambda lines: [*lines, *lines_of([(1, b"more")])],
        lambda lines: [lines[0][:-6] + b"\n", *lines[1:]],
        lambda lines: [b"!" + lines[0], *lines[1:]],
    ],
)
def test_changed_logs_are_noticed(change: Callable[[list[bytes]], list[bytes]]) -> None:
    lines = lines_of([(1, b"a")], [(2, b"b")], [(1, b"c")])
    with pytest.raises(SealError):
        open_logs(READER, b"".join(change(lines)))


def test_logs_that_are_cut_are_not_complete() -> None:
    lines = lines_of([(1, b"a")], [(1, b"b")])
    assert open_logs(READER, lines[0]) == ([(1, b"a")], False)


def sealed_file(files: dict[str, bytes], piece: int = 1000, index: bytes | None = None) -> bytes:
    """A file of sealed outputs."""
    data = b"".join(files.values())
    if index is None:
        index = index_of(files)
    pieces = (data[start : start + piece] for start in range(0, len(data), piece))
    return b"".join(seal_outputs(READER.public_key, index, pieces, len(data)))


def opened(data: bytes, reader: PrivateKey = READER) -> dict[str, bytes]:
    """What is in it, or SealError."""
    file = io.BytesIO(data)
    assert file.read(len(sealing.MAGIC)) == sealing.MAGIC
    outputs = SealedOutputs(reader, file)
    return {entry.path: b"".join(pieces) for entry, pieces in outputs.files()}


paths = st.text("abc/é", min_size=1, max_size=9).filter(lambda path: is_path(path.encode()))


@given(st.dictionaries(paths, st.binary(max_size=2000), max_size=5))
def test_outputs_come_back(files: dict[str, bytes]) -> None:
    assert opened(sealed_file(files)) == files


def test_a_file_that_was_sealed_before_there_were_modes_can_be_opened() -> None:
    index = b"a\x001\0" + hashlib.sha256(b"x").hexdigest().encode() + b"\0"
    file = io.BytesIO(sealed_file({"a": b"x"}, index=index)[len(sealing.MAGIC) :])
    outputs = SealedOutputs(READER, file, sealing.FIRST_MAGIC)
    assert [(entry.path, entry.mode, b"".join(pieces)) for entry, pieces in outputs.files()] == [
        ("a", None, b"x")
    ]


@pytest.mark.parametrize("size", [BIG - 200, BIG - 80, BIG, BIG + 1, 3 * BIG])
def test_outputs_of_several_boxes(size: int) -> None:
    # 80 and more bytes are sizes and index: around there the data just fills one box.
    for near in range(size - 3, size + 4):
        files = {"a": b"\7" * near}
        data = sealed_file(files, piece=300_000)
        assert opened(data) == files
    assert len(data) < size + (size // BIG + 2) * 64 + 200


def boxes_of(data: bytes) -> list[bytes]:
    """The boxes of a sealed file, each with its length."""
    place, boxes = len(sealing.MAGIC), []
    while place < len(data):
        end = place + 4 + int.from_bytes(data[place : place + 4], "big")
        boxes.append(data[place:end])
        place = end
    return boxes


@pytest.mark.parametrize(
    "change",
    [
        lambda boxes: boxes[:-1],
        lambda boxes: boxes[1:],
        lambda boxes: [boxes[0], boxes[2], boxes[1]],
        lambda boxes: [*boxes, boxes[-1]],
        lambda boxes: [*boxes, b"x"],
        lambda boxes: [*boxes[:-1], boxes[-1][:-1]],
        lambda boxes: [*boxes[:-1], boxes[-1][:3]],
        lambda boxes: [b"\xff\xff\xff\xff", *boxes],
        lambda boxes: [],
    ],
)
def test_changed_outputs_are_noticed(change: Callable[[list[bytes]], list[bytes]]) -> None:
    boxes = boxes_of(sealed_file({"a": b"x" * BIG, "b": b"y" * BIG}))
    assert len(boxes) == 3
    with pytest.raises(SealError):
        opened(sealing.MAGIC + b"".join(change(boxes)))


def test_logs_do_not_pass_for_outputs() -> None:
    (line,) = lines_of([(1, b"x" * 100)])
    box = base64.b64decode(line)
    with pytest.raises(SealError, match="something else"):
        opened(sealing.MAGIC + len(box).to_bytes(4, "big") + box)


def test_nobody_else_opens_them() -> None:
    stranger = PrivateKey.generate()
    with pytest.raises(SealError, match="not sealed to this key"):
        opened(sealed_file({"a": b"x"}), stranger)
    with pytest.raises(SealError, match="not sealed to this key"):
        open_logs(stranger, b"".join(lines_of([(1, b"x")])))


def test_less_data_than_said_is_an_error() -> None:
    with pytest.raises(EOFError):
        list(seal_outputs(READER.public_key, b"", [b"abc"], 4))


def test_a_hostile_index_inside_is_refused() -> None:
    sealed = b"".join(seal_outputs(READER.public_key, b"a\x009\0" + b"0" * 64 + b"\0", [b"x"], 1))
    with pytest.raises(SealError, match="index"):
        opened(sealed)


@pytest.mark.parametrize("raw", [b"", bytes(31), bytes(32), b"\1" + bytes(31)])
def test_keys_that_hide_nothing(raw: bytes) -> None:
    with pytest.raises(ValueError, match="usable"):
        sealing.public_key(raw)
