"""Readers of a job's output: whatever is printed, however it is cut, nothing is lost or repeated."""

import codecs

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandrun_api.admission.budget import MemoryBudget, Reservation
from sandrun_api.jobs.following import FINISHED, Follower, Text
from sandrun_api.jobs.logs import STDERR, STDOUT, JobLogs

pytestmark = pytest.mark.anyio

# Bytes that begin, continue, complete and break UTF-8 sequences of every length.
BYTES = st.sampled_from(b"a\x80\x9f\xa0\xbf\xc1\xc3\xa9\xe0\xe2\x82\xac\xed\xf0\x9f\x98\x80\xf4\xf5\xff")
CHUNK = st.tuples(st.sampled_from([STDOUT, STDERR]), st.lists(BYTES, min_size=1, max_size=5).map(bytes))
OUTPUT = st.lists(CHUNK, max_size=12)


def logs(*chunks: tuple[int, bytes], closed: bool = True) -> JobLogs:
    kept = JobLogs(1 << 20, Reservation(MemoryBudget(1 << 30)))
    for stream, data in chunks:
        kept.append(stream, data)
    if closed:
        kept.close()
    return kept


def streams(texts: list[Text]) -> dict[int, str]:
    return {
        stream: "".join(text.text for text in texts if text.stream == stream) for stream in (STDOUT, STDERR)
    }


def decoded(kept: JobLogs) -> dict[int, str]:
    stdout, stderr = kept.split(0, kept.size)
    return {STDOUT: stdout.decode(errors="replace"), STDERR: stderr.decode(errors="replace")}


@given(OUTPUT, st.data())
def test_coming_back_after_any_text_loses_and_repeats_nothing(
    chunks: list[tuple[int, bytes]], data: st.DataObject
) -> None:
    """Both readings and reconnections happen at moments of hypothesis' choice, also while the job runs."""
    kept = logs(closed=False)
    follower, taken = Follower(kept), list[Text]()
    for stream, part in chunks:
        kept.append(stream, part)
        if data.draw(st.booleans()):
            for text in follower.take():
                taken.append(text)
                if data.draw(st.booleans()):
                    follower = Follower(kept, text.sequence)
                    break
    kept.close()
    for _ in range(4 * len(chunks) + 4):
        for text in follower.take():
            taken.append(text)
            if data.draw(st.booleans()):
                follower = Follower(kept, text.sequence)
                break
        else:
            break
    assert streams(taken) == decoded(kept)
    sequences = [text.sequence for text in taken]
    assert sequences == sorted(set(sequences))
    assert all(text.text for text in taken)


@given(OUTPUT)
def test_unfinished_is_what_the_decoder_still_holds(chunks: list[tuple[int, bytes]]) -> None:
    kept = logs(*chunks)
    for end in range(kept.size + 1):
        rest = streams(list(Follower(kept, end).take()))
        for (stream, whole), before in zip(decoded(kept).items(), kept.split(0, end), strict=True):
            taken = codecs.getincrementaldecoder("utf-8")("replace").decode(before)
            assert taken + rest[stream] == whole


@given(OUTPUT)
def test_what_a_text_tells_of_can_be_read_at_once(chunks: list[tuple[int, bytes]]) -> None:
    """Clients fetch the exact bytes of a text with a replacement character while the job still runs."""
    kept = logs(closed=False)
    follower, decoder = Follower(kept), codecs.getincrementaldecoder("utf-8")
    printed = {STDOUT: b"", STDERR: b""}
    for stream, part in chunks:
        kept.append(stream, part)
        printed[stream] += part
        list(follower.take())
        told = decoder("replace")
        told.decode(printed[stream])
        assert kept.text_end() >= kept.size - len(told.getstate()[0])


def test_the_order_is_that_of_reading() -> None:
    kept = logs((STDOUT, b"a"), (STDERR, b"b"), (STDOUT, b"c\xc3"), (STDERR, b"d"), (STDOUT, b"\xa9"))
    assert list(Follower(kept).take()) == [
        Text(1, STDOUT, "a"),
        Text(2, STDERR, "b"),
        Text(4, STDOUT, "c"),
        Text(5, STDERR, "d"),
        Text(6, STDOUT, "é"),
    ]


def test_characters_that_are_never_completed_come_last_and_once() -> None:
    kept = logs((STDOUT, b"\xc3"), (STDERR, b"\xe2\x82"))
    assert list(Follower(kept).take()) == [Text(4, STDOUT, "�"), Text(5, STDERR, "�")]
    assert list(Follower(kept, 4).take()) == [Text(5, STDERR, "�")]
    assert list(Follower(kept, 5).take()) == []
    assert not Follower(kept, 5).has_all
    assert Follower(kept, 6).has_all
    assert Follower(kept).last_sequence == 3 + FINISHED == 6


@pytest.mark.parametrize(("after", "closed"), [(-1, True), (5, True), (2, False)])
def test_a_sequence_nobody_was_given(after: int, closed: bool) -> None:
    with pytest.raises(ValueError, match="no such sequence"):
        Follower(logs((STDOUT, b"a"), closed=closed), after)


async def test_waiting_ends_with_the_logs() -> None:
    kept = logs((STDOUT, b"a"), closed=False)
    follower = Follower(kept)
    assert await follower.wait()
    assert list(follower.take()) == [Text(1, STDOUT, "a")]
    kept.close()
    assert await follower.wait()
    assert list(follower.take()) == []
    assert not await follower.wait()
    assert not follower.is_cut


def test_a_long_run_comes_in_pieces() -> None:
    text = "€" * 50_000
    taken = list(Follower(logs((STDOUT, text.encode()))).take())
    assert "".join(part.text for part in taken) == text
    assert max(len(part.text.encode()) for part in taken) <= (16 << 10) + 3
