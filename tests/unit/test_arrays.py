"""Array helpers against their plain Python meaning."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from trireme_runtime.arrays import contains, lookup, pairs_of_rows, ragged_rows, stable_partition


@given(st.sets(st.integers(0, 60)), st.lists(st.integers(-3, 63), min_size=1))
def test_lookup_gives_the_position_or_minus_one(ids: set[int], wanted: list[int]) -> None:
    table = sorted(ids)
    expected = [table.index(value) if value in ids else -1 for value in wanted]
    found = lookup(np.array(table, dtype=np.int64), np.array(wanted, dtype=np.int64))
    assert found.tolist() == expected
    assert found.dtype == np.int32


def test_pairs_of_rows_numbers_the_rows_anew() -> None:
    pairs = np.array([0, 3, 1, 3, 2]), np.array([10, 11, 12, 13, 14], dtype=np.int32)
    row, item = pairs_of_rows(pairs, np.array([1, 3]), 4)
    assert (row.tolist(), item.tolist()) == ([1, 0, 1], [11, 12, 13])


@given(
    st.lists(st.lists(st.integers(0, 9), max_size=4), min_size=1, max_size=5).flatmap(
        lambda table: st.tuples(st.just(table), st.lists(st.integers(0, len(table) - 1), max_size=6))
    )
)
def test_ragged_rows_is_a_row_wise_gather(case: tuple[list[list[int]], list[int]]) -> None:
    table, rows = case
    offsets = np.cumsum([0, *map(len, table)])
    values = np.array([value for row in table for value in row], dtype=np.int32)
    position, value = ragged_rows(offsets, values, np.array(rows, dtype=np.int64))
    expected = [(place, item) for place, row in enumerate(rows) for item in table[row]]
    assert list(zip(position.tolist(), value.tolist(), strict=True)) == expected


@given(
    hnp.arrays(np.int32, (3, 4), elements=st.integers(-1, 9)),
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 9)), max_size=12),
)
def test_contains_is_membership_per_row(wanted: np.ndarray, pairs: list[tuple[int, int]]) -> None:
    row = np.array([pair[0] for pair in pairs], dtype=np.int64)
    value = np.array([pair[1] for pair in pairs], dtype=np.int32)
    found = contains(row, value, wanted, 10)
    expected = [[(b, int(item)) in pairs for item in wanted[b]] for b in range(3)]
    assert found.tolist() == expected


@given(hnp.arrays(bool, (4, 6)))
def test_stable_partition_keeps_order_on_both_sides(keep: np.ndarray) -> None:
    order = stable_partition(keep, 6)
    for row, columns in zip(keep, order, strict=True):
        kept = [c for c in range(6) if row[c]]
        assert columns.tolist() == kept + [c for c in range(6) if not row[c]]
