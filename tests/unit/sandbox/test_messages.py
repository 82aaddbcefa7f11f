"""Every message between root and a sandbox is decoded as written, and nothing else is accepted."""

import inspect
import marshal
import os
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandrun_sandbox import layout, messages
from sandrun_sandbox.messages import (
    Collect,
    Collected,
    Configure,
    Exited,
    Failed,
    JobMessage,
    MessageError,
    Order,
    Report,
    Spawn,
    Stop,
    TmpfsLimits,
    ZygoteConfig,
    decode_order,
    decode_report,
)


def kinds_of(base: type) -> list[Any]:
    """List the module's messages of a kind."""
    found = [kind for _, kind in inspect.getmembers(messages, inspect.isclass)]
    return [kind for kind in found if issubclass(kind, base) and kind is not base]


ORDERS, REPORTS = kinds_of(Order), kinds_of(Report)
numbers = st.integers(0, 10**18 - 1)
texts = st.text(max_size=20)
variables = st.dictionaries(texts, texts, max_size=3)
limits = st.builds(TmpfsLimits, numbers, numbers, numbers)
STRATEGIES: dict[str, st.SearchStrategy[Any]] = {
    "bool": st.booleans(),
    "bytes": st.binary(max_size=100),
    "dict[str, str]": variables,
    "float": st.floats(0, 1e17),
    "int": numbers,
    "str": texts,
    "TmpfsLimits": limits,
    "tuple[int, ...]": st.lists(numbers, max_size=4).map(tuple),
    "tuple[str, ...]": st.lists(texts, max_size=4).map(tuple),
}
steps = st.text("abcdefghijklmnopqrstuvwxyz0123456789_", min_size=1, max_size=32)
SPECIAL: dict[type, st.SearchStrategy[Any]] = {
    Configure: st.builds(Configure, limits | st.none(), st.sampled_from(["", "layer"]), st.just(()))
    | st.builds(Configure, limits | st.none(), st.just("installing"), STRATEGIES["tuple[str, ...]"]),
    Failed: st.builds(Failed, steps, st.integers(0, 0xFFFF)),
    Exited: st.builds(
        Exited, st.integers(0, 255).map(lambda code: code << 8) | st.integers(1, 64), st.booleans()
    ),
    Collected: st.builds(Collected, st.lists(numbers, min_size=9, max_size=9).map(tuple)),
}


def of(annotation: str) -> st.SearchStrategy[Any]:
    kind = annotation.replace(" | None", "")
    return STRATEGIES[kind] if kind == annotation else STRATEGIES[kind] | st.none()


def valid(kind: Any) -> st.SearchStrategy[Any]:
    made = st.tuples(*[of(annotation) for _, annotation in kind.FIELDS]).map(lambda values: kind(*values))
    if kind is JobMessage:
        made = made.filter(lambda message: message.command)
    return SPECIAL.get(kind, made)


anything = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | texts | st.binary(max_size=10),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(texts, inner, max_size=2)
    ),
    max_leaves=6,
)
names = st.sampled_from([kind.NAME for kind in ORDERS + REPORTS]) | st.text(max_size=10)


def test_each_kind_has_a_name_of_its_own_and_what_it_holds() -> None:
    assert len({kind.NAME for kind in ORDERS}) == len(ORDERS) == 6
    assert len({kind.NAME for kind in REPORTS}) == len(REPORTS) == 8
    assert all(messages._is_word(kind.NAME) for kind in ORDERS + REPORTS)
    assert {*messages.FROM_ZYGOTE, *messages.FROM_INIT, *messages.FROM_JOB} == set(REPORTS)


@given(st.one_of([valid(kind) for kind in ORDERS]))
def test_an_order_is_read_as_it_was_written(order: Order) -> None:
    read = decode_order(order.encode(), *ORDERS)
    assert type(read) is type(order)
    assert read == order
    assert [type(value) for value in read.values()] == [type(value) for value in order.values()]


@given(st.one_of([valid(kind) for kind in REPORTS]))
def test_a_report_is_read_as_it_was_written(report: Report) -> None:
    data = report.encode()
    assert len(data) <= messages.REPORT_BYTES
    assert decode_report(data, *REPORTS) == report


@given(st.lists(anything, max_size=13).map(tuple) | anything, names)
def test_an_order_of_anything_is_one_with_its_bounds_or_the_one_error(values: Any, name: str) -> None:
    data = marshal.dumps((name, *values) if isinstance(values, tuple) else values, 2)
    try:
        order = decode_order(data, *ORDERS)
    except MessageError as error:
        assert error.name in {name, "unknown"} or not isinstance(values, tuple)
        assert decode_report(error.report.encode(), Failed) == error.report
        return
    assert name == order.NAME
    assert decode_order(order.encode(), type(order)) == order


near = st.one_of([valid(kind) for kind in REPORTS]).map(lambda report: report.encode())


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """Add, remove or change a byte of a report."""
    data = draw(near)
    place = draw(st.integers(0, len(data)))
    return data[:place] + draw(st.binary(max_size=2)) + data[place + draw(st.integers(0, 2)) :]


@given(st.binary(max_size=300) | damaged() | names.map(str.encode))
def test_bytes_of_anybody_are_a_report_as_it_is_written_or_the_one_error(data: bytes) -> None:
    """So each has one encoding, numbers are within bounds, and none is taken for another."""
    try:
        report = decode_report(data, *REPORTS)
    except MessageError as error:
        assert error.name == "unknown" or data.startswith(error.name.encode())
        return
    assert report.encode() == data
    assert data.split(b" ")[0] == report.NAME.encode()
    assert all(0 <= int(word) < 10**18 for word in data.split(b" ")[1:] if word.isdigit())


@pytest.mark.parametrize("kind", ORDERS)
def test_an_order_elsewhere_is_an_error_with_its_name(kind: Any) -> None:
    others = [other for other in ORDERS if other is not kind]
    data = marshal.dumps((kind.NAME,), 2)
    with pytest.raises(MessageError, match=f"no such message here: {kind.NAME}"):
        decode_order(data, *others)


@pytest.mark.parametrize(
    "words",
    [
        *("exited 127 0", "exited 65535 0", "exited 65536 0", "exited -1 0", "exited  0", "exited 0 2"),
        *("exited 0", "exited 0 0 0", "exited 00 0", "exited +0 0", "exited 0 0 ", f"exited {'9' * 200} 0"),
        *("exited 1_0 0", "failed", "failed take", "failed take x", "failed take 65536", "failed Take 1"),
        *("failed /etc 1", f"failed {'x' * 33} 1", "collected", "collected 1 2 3", "ready 1", "started\n"),
    ],
)
def test_what_no_process_says(words: str) -> None:
    """Stopped, continued, or no number at all: no process ends so (wait(2))."""
    with pytest.raises(MessageError, match=f"no such message here: ({words.split(maxsplit=1)[0]}|unknown)$"):
        decode_report(words.encode(), *REPORTS)


def test_digits_are_ascii() -> None:
    with pytest.raises(MessageError):
        decode_report("exited \u0663 0".encode(), *REPORTS)


@pytest.mark.parametrize(
    ("order", "counts"),
    [
        (Stop(0.0), {0}),
        (Configure(None, "", ()), {0}),
        (Configure(None, "layer", ()), {1}),
        (Configure(None, "installing", ("uv", "ca.pem")), {3}),
        (Configure(None, "installing", ()), {1}),
        (Collect(1, 1, 1.0), {5}),
        (Spawn(1, False, TmpfsLimits(1, 1, 1), None, False), set(range(3, 17))),
        (Spawn(1, True, TmpfsLimits(1, 1, 1), None, False), set(range(4, 17))),
    ],
)
def test_descriptors_are_as_many_as_an_order_needs(order: Order, counts: set[int]) -> None:
    assert {count for count in range(17) if order.takes(count)} == counts


GOOD: dict[str, Any] = {
    "bool": True,
    "bytes": b"x",
    "dict[str, str]": {"a": "b"},
    "float": 1.0,
    "int": 1,
    "str": "",
    "TmpfsLimits": (1, 1, 1),
    "tuple[int, ...]": (1,),
    "tuple[str, ...]": ("a",),
}
BAD: dict[str, tuple[Any, ...]] = {
    "bool": (0, 1, "", [True]),
    "bytes": ("x", 1, (1,)),
    "dict[str, str]": ({"a": 1}, {1: "a"}, [("a", "b")], (("a", "b"),), {"a": b"b"}),
    "float": (-1.0, float("nan"), float("inf"), "1", True),
    "int": (-1, True, 1.0, "1", 10**18),
    "str": (b"", 1, ("a",)),
    "TmpfsLimits": ((1, 1), (1, 1, 1, 1), (1, 1, -1), (1, 1, "1"), 1),
    "tuple[int, ...]": ([1], (-1,), ("1",), 1),
    "tuple[str, ...]": (["a"], "a", (b"a",), (1,)),
}


@pytest.mark.parametrize(
    ("kind", "place"), [(kind, place) for kind in ORDERS for place in range(len(kind.FIELDS))]
)
def test_a_value_of_another_type_or_out_of_bounds_is_an_error(kind: Any, place: int) -> None:
    notes = [note.replace(" | None", "") for _, note in kind.FIELDS]
    good = [("installing" if kind is Configure and note == "str" else GOOD[note]) for note in notes]
    assert type(decode_order(marshal.dumps((kind.NAME, *good), 2), kind)) is kind
    bad = BAD[notes[place]] + (() if kind.FIELDS[place][1].endswith(" | None") else (None,))
    for value in bad:
        values = [*good[:place], value, *good[place + 1 :]]
        with pytest.raises(MessageError, match=kind.NAME):
            decode_order(marshal.dumps((kind.NAME, *values), 2), kind)


def test_configurations_that_contradict_themselves_are_none() -> None:
    for packages, tools in (("layer", ("uv",)), ("", ("uv",)), ("other", ())):
        with pytest.raises(MessageError):
            decode_order(Configure(None, packages, tools).encode(), Configure)


def test_sizes_are_mount_options() -> None:
    page = os.sysconf("SC_PAGE_SIZE")
    sizes = TmpfsLimits(1 << 20, 100, 1 << 16)
    assert sizes.disk("") == f"size={(1 << 20) + page},nr_inodes=100"
    assert sizes.shm(",noswap") == f"size={1 << 16},nr_inodes=100,noswap"


def test_every_field_is_of_a_kind_that_is_read() -> None:
    kinds = {note for kind in ORDERS for _, note in kind.FIELDS}
    assert kinds <= messages._READ.keys()
    assert {note.replace(" | None", "") for note in kinds} == STRATEGIES.keys()
    assert {note for kind in REPORTS for _, note in kind.FIELDS} <= {"str", "int", "bool", "tuple[int, ...]"}
    assert len(layout.REASONS) == 9
    assert ZygoteConfig.FIELDS[0] == ("control", "int")
