"""The values of the feature store: their layout, what counts as damaged, and how events join histories."""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.toy import DIMS
from trireme_runtime.features.record import ABSENT, CORRUPT, FRESH, RecordLayout, merge, user_key, user_keys

LENGTH = 5
LAYOUT = RecordLayout(LENGTH, 2, 3)


def in_numpy(layout: RecordLayout = LAYOUT) -> RecordLayout:
    """The same layout where no library was compiled."""
    with patch("trireme_runtime.features.record.library", return_value=None):
        return RecordLayout(layout.history, *(layout.dtype[name].shape[0] for name in ("category", "number")))


BOTH = pytest.mark.parametrize("layout", [LAYOUT, in_numpy()], ids=["C", "NumPy"])

EVENTS = st.lists(st.integers(0, 9), max_size=LENGTH).map(lambda items: [(item, at) for at, item in enumerate(items)])


def record(*events: tuple[int, int], layout: RecordLayout = LAYOUT, **fields: Any) -> np.ndarray:
    """A value of [1] with these (item, time)s, oldest first."""
    made = layout.empty(1)
    for place, event in enumerate(reversed(events)):
        made["history"][0, -1 - place], made["time_ms"][0, -1 - place] = event
    made["count"] = len(events)
    for name, value in fields.items():
        made[name] = value
    return made


def padded(*items: int) -> list[int]:
    return [-1] * (LENGTH - len(items)) + list(items)


def test_a_value_has_the_documented_offsets() -> None:
    offsets = {name: field[1] for name, field in (LAYOUT.dtype.fields or {}).items()}
    expected = {"header": 0, "count": 12, "written_ms": 16, "encoding": 24}
    expected |= {"history": 32, "time_ms": 72, "category": 112, "number": 120, "padding": 132}
    assert offsets == expected
    assert LAYOUT.dtype.itemsize == 136
    value = record(
        (7, 1000), (9, 2000), written_ms=3000, encoding=2**63, category=[1, 2], number=[0.5, -1, 0]
    ).tobytes()
    assert value[:12] == b"TRIu" + bytes([1, 0, LENGTH, 0, 2, 0, 3, 0])
    assert int.from_bytes(value[12:16], "little") == 2
    assert int.from_bytes(value[24:32], "little") == 2**63
    assert np.frombuffer(value[32:72], "<i8").tolist() == padded(7, 9)
    assert np.frombuffer(value[72:112], "<i8").tolist() == padded(1000, 2000)
    assert np.frombuffer(value[112:120], "<i4").tolist() == [1, 2]
    assert np.frombuffer(value[120:132], "<f4").tolist() == [0.5, -1, 0]


def test_the_layout_of_a_bundle_comes_from_its_sizes() -> None:
    layout = RecordLayout.of(DIMS)
    shapes = {name: layout.dtype[name].shape for name in ("history", "time_ms", "category", "number")}
    assert shapes == {
        "history": (DIMS.history,),
        "time_ms": (DIMS.history,),
        "category": (DIMS.category,),
        "number": (DIMS.number - 1,),
    }


def test_a_size_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="a record's history has 65536 values, allowed are up to 65535"):
        RecordLayout(65536, 1, 1)


def test_a_bundle_without_numbers_has_values_without_them() -> None:
    layout = RecordLayout(LENGTH, 1, 0)
    records, state = layout.decode([record((3, 4), layout=layout).tobytes()])
    assert (state.tolist(), records["history"].tolist(), records["number"].shape) == ([FRESH], [padded(3)], (1, 0))


@BOTH
def test_a_batch_is_decoded_with_the_state_of_each_user(layout: RecordLayout) -> None:
    good = record((7, 1000), written_ms=5)
    records, state = layout.decode([None, good.tobytes(), b"", good.tobytes()[:-1], good.tobytes()])
    assert state.tolist() == [ABSENT, FRESH, CORRUPT, CORRUPT, FRESH]
    assert records["history"].tolist() == [padded(), padded(7), padded(), padded(), padded(7)]
    assert records["written_ms"].tolist() == [0, 5, 0, 0, 5]


@BOTH
@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("header", [0, 0, 0]),
        ("header", LAYOUT.empty(1)["header"][0] + np.array([0, 1, 0], np.uint32)),
        ("header", RecordLayout(LENGTH, 3, 2).empty(1)["header"][0]),
        ("written_ms", -1),
        ("history", padded(7, -2)),
        ("history", [-2, *padded(7, 9)[1:]]),
        ("time_ms", padded(1000, 999)),
        ("time_ms", [-2, *padded(1000, 2000)[1:]]),
        ("category", [0, -1]),
        ("number", [0, np.nan, 0]),
        ("number", [0, np.inf, 0]),
        ("number", [-np.inf, 0, 0]),
    ],
)
def test_a_value_with_what_the_layout_does_not_allow_is_corrupt(layout: RecordLayout, field: str, value: Any) -> None:
    good = record((7, 1000), (9, 2000), written_ms=5, encoding=1)
    bad = good.copy()
    bad[field] = value
    records, state = layout.decode([good.tobytes(), bad.tobytes()])
    assert state.tolist() == [FRESH, CORRUPT]
    assert records[:1].tobytes() == good.tobytes()
    assert records[1:].tobytes() == LAYOUT.empty(1).tobytes()


@given(st.lists(st.none() | st.binary(max_size=200) | EVENTS, max_size=6), st.binary(min_size=136, max_size=136))
def test_no_bytes_break_a_batch(values: list[Any], noise: bytes) -> None:
    given = [record(*value).tobytes() if isinstance(value, list) else value for value in values]
    records, state = LAYOUT.decode([*given, noise])
    assert len(records) == len(state) == len(given) + 1
    for row, value in enumerate(values):
        assert state[row] == (ABSENT if value is None else FRESH if isinstance(value, list) else CORRUPT)
    assert state[-1] == CORRUPT


@given(st.lists(st.tuples(st.integers(0, 135), st.sampled_from([0, 1, 0x7F, 0x80, 0xFF])), max_size=3))
def test_c_and_numpy_tell_the_same_values_from_corrupt_ones(changes: list[tuple[int, int]]) -> None:
    value = bytearray(record((7, 1000), (9, 2000), written_ms=5, encoding=1, category=[1, 2]).tobytes())
    for place, byte in changes:
        value[place] = byte
    (records, state), (other, expected) = (each.decode([bytes(value)]) for each in (LAYOUT, in_numpy()))
    assert state.tolist() == expected.tolist()
    assert records.tobytes() == other.tobytes()


@pytest.mark.parametrize("sizes", [(0, 0, 0), (1, 0, 0), (0, 1, 1), (9, 3, 0), (100, 25, 25)])
def test_layouts_of_any_size_are_read(sizes: tuple[int, int, int]) -> None:
    layout = RecordLayout(*sizes)
    value = layout.empty(1).tobytes()
    for each in (layout, in_numpy(layout)):
        assert each.decode([value] * 3)[1].tolist() == [FRESH] * 3
        assert each.decode([value, b"\0" * len(value)])[1].tolist() == [FRESH, CORRUPT]
        assert each.decode([])[1].tolist() == []


@pytest.mark.parametrize(
    ("stored", "fresh", "expected"),
    [
        ((), (3, 4), (3, 4)),
        ((), (3, 3), (3, 3)),
        ((1, 2), (), (1, 2)),
        ((1, 2), (3, 4), (1, 2, 3, 4)),
        ((1, 2, 3, 4, 5), (6, 7), (3, 4, 5, 6, 7)),
        ((1, 2, 3), (4, 5, 6, 7, 8), (4, 5, 6, 7, 8)),
        ((1, 2), (1, 2, 3), (1, 2, 3)),
        ((1, 2, 1, 2), (1, 2, 1, 2, 3), (1, 2, 1, 2, 3)),
        ((1, 2, 1, 2), (1, 2, 3), (1, 2, 1, 2, 3)),
        ((1, 2), (2, 2, 3), (1, 2, 2, 3)),
        ((1, 2), (3, 2), (1, 2, 3, 2)),
        ((1, 2, 3, 4, 5), (2, 3, 4, 5), (1, 2, 3, 4, 5)),
    ],
)
def test_fresh_events_follow_the_stored_history(
    stored: tuple[int, ...], fresh: tuple[int, ...], expected: tuple[int, ...]
) -> None:
    found = merge(np.array([padded(*stored)], np.int32), np.array([padded(*fresh)]))
    assert found.tolist() == [padded(*expected)]
    assert found.dtype == np.int32


def test_gaps_among_fresh_events_are_closed() -> None:
    assert merge(np.array([padded(1)]), np.array([[7, -1, 8, -1, -1]])).tolist() == [padded(1, 7, 8)]


@given(st.lists(st.integers(0, 99), max_size=12, unique=True), st.data())
def test_a_new_bundle_doubles_no_event(items: list[int], data: st.DataObject) -> None:
    """Whatever part of the events the bundle was trained on, and however many of them the store still holds."""
    trained = data.draw(st.integers(0, len(items)))
    kept = data.draw(st.integers(0, min(LENGTH, len(items))))
    stored, fresh = items[:trained][-LENGTH:], items[len(items) - kept :]
    expected = stored + [item for item in fresh if item not in stored]
    found = merge(np.array([padded(*stored)]), np.array([padded(*fresh)]))
    assert found.tolist() == [padded(*expected[-LENGTH:])]


def test_users_of_a_batch_do_not_touch_each_other() -> None:
    stored = np.array([padded(1, 2), padded(), padded(4)])
    fresh = np.array([padded(2, 3), padded(2, 3), padded(4, 5)])
    assert merge(stored, fresh).tolist() == [padded(1, 2, 3), padded(2, 3), padded(4, 5)]


def test_a_key_names_the_user_for_the_cluster() -> None:
    assert user_key("shop", 12347) == "trireme:shop:user:{12347}"
    assert user_keys("shop", np.array([12347, 2**62])) == [
        b"trireme:shop:user:{12347}",
        b"trireme:shop:user:{%d}" % 2**62,
    ]
