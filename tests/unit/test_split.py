"""The split, by hand and by its properties."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trireme_export.data.split import SplitBy, draw_holdout, test_mask


def distinct(users: np.ndarray) -> np.ndarray:
    return np.arange(users.size)


def test_by_time_the_last_floor_of_all() -> None:
    users = np.array([1, 2, 1, 2, 1, 2, 1, 2, 1, 2, 1])
    assert test_mask(users, distinct(users), 0.1, "time").tolist() == [False] * 10 + [True]
    assert test_mask(users, distinct(users), 0.2, "time").sum() == 2
    assert not test_mask(users[:9], distinct(users[:9]), 0.1, "time").any()


def test_by_time_what_shares_a_time_is_not_torn_and_ties_are_trained_on() -> None:
    users = np.ones(10, dtype=np.int64)
    time = np.array([1, 1, 2, 3, 4, 5, 6, 6, 6, 7])
    assert np.flatnonzero(test_mask(users, time, 0.3, "time")).tolist() == [9]
    assert np.flatnonzero(test_mask(users, time, 0.4, "time")).tolist() == [6, 7, 8, 9]
    assert not test_mask(users, np.array([1] * 8 + [2] * 2), 0.1, "time").any()


def test_by_user_the_last_ceil_of_each() -> None:
    users = np.array([1, 2, 1, 2, 1, 1, 1, 1, 1, 1, 1, 1, 1])
    #  user 1 has 11 interactions: 2 of them; user 2 has 2: 1 of them
    assert np.flatnonzero(test_mask(users, distinct(users), 0.1, "user")).tolist() == [3, 11, 12]


@pytest.mark.parametrize(
    ("time", "fraction", "tested"),
    [
        ([1, 1, 1, 2, 2], 0.1, 2),  # at least one time, although one interaction is wanted
        ([1, 2, 2, 3, 3, 3], 0.5, 3),
        ([1, 2, 2, 2, 3], 0.4, 1),  # wanted are 2: 1 is nearer than 4
        ([1, 2, 2, 3, 3], 0.6, 2),  # wanted are 3: 2 and 4 are as near
        ([1, 1, 1, 1, 2, 2, 2, 2], 0.9, 4),  # never the first time
        ([5, 5, 5], 0.5, 0),
        ([5], 0.5, 0),
    ],
)
def test_by_user_baskets_are_not_torn(time: list[int], fraction: float, tested: int) -> None:
    mask = test_mask(np.full(len(time), 7), np.array(time), fraction, "user")
    assert mask.tolist() == [False] * (len(time) - tested) + [True] * tested


@pytest.mark.parametrize("count", [10, 30, 70, 100, 110])
def test_shares_are_exact(count: int) -> None:
    """0.1 · 30 is 3.0000000000000004 in binary floating point, whose ceil is 4."""
    users = np.zeros(count, dtype=np.int64)
    assert test_mask(users, distinct(users), 0.1, "user").sum() == count // 10
    assert test_mask(users, distinct(users), 0.1, "time").sum() == count // 10


@given(st.lists(st.integers(0, 5), min_size=1, max_size=80), st.sampled_from([0.05, 0.1, 0.25, 0.5]))
def test_by_user_is_the_end_of_each_users_own_sequence(users: list[int], fraction: float) -> None:
    ids = np.array(users)
    mask = test_mask(ids, distinct(ids), fraction, "user")
    for user in set(users):
        own = mask[ids == user]
        assert (np.diff(own.astype(int)) >= 0).all()
        if own.size > 1:
            assert fraction * own.size <= own.sum() + 1e-9
        assert own.sum() < fraction * own.size + 1


@given(
    st.lists(st.tuples(st.integers(0, 4), st.integers(0, 6)), min_size=1, max_size=60),
    st.sampled_from([0.05, 0.1, 0.5, 0.9]),
    st.sampled_from(["time", "user"]),
)
def test_no_time_is_on_both_sides_and_the_order_of_its_rows_does_not_matter(
    rows: list[tuple[int, int]], fraction: float, by: SplitBy
) -> None:
    user, time = np.array(sorted(rows, key=lambda row: row[1])).T
    mask = test_mask(user, time, fraction, by)
    unit = time if by == "time" else user * 10 + time
    assert not np.isin(unit[mask], unit[~mask]).any()
    assert (~mask).any()
    other = np.lexsort((-user, time))
    assert test_mask(user[other], time[other], fraction, by).tolist() == mask[other].tolist()


def test_the_holdout_is_a_share_of_users_and_follows_the_seed() -> None:
    users = np.repeat(np.arange(100), 3)
    drawn = draw_holdout(users, 0.3, np.random.default_rng(1))
    assert drawn.size == 30
    assert (np.diff(drawn) > 0).all()
    assert np.isin(drawn, users).all()
    assert drawn.tolist() == draw_holdout(users, 0.3, np.random.default_rng(1)).tolist()
    assert drawn.tolist() != draw_holdout(users, 0.3, np.random.default_rng(2)).tolist()
    assert draw_holdout(users, 0.0, np.random.default_rng(1)).size == 0
