"""The split, by hand and by its properties."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trireme_export.data.split import draw_holdout, test_mask


def test_by_time_the_last_floor_of_all() -> None:
    users = np.array([1, 2, 1, 2, 1, 2, 1, 2, 1, 2, 1])
    assert test_mask(users, 0.1, "time").tolist() == [False] * 10 + [True]
    assert test_mask(users, 0.2, "time").sum() == 2
    assert not test_mask(users[:9], 0.1, "time").any()


def test_by_user_the_last_ceil_of_each() -> None:
    users = np.array([1, 2, 1, 2, 1, 1, 1, 1, 1, 1, 1, 1, 1])
    #  user 1 has 11 interactions: 2 of them; user 2 has 2: 1 of them
    assert np.flatnonzero(test_mask(users, 0.1, "user")).tolist() == [3, 11, 12]


@pytest.mark.parametrize("count", [10, 30, 70, 100, 110])
def test_shares_are_exact(count: int) -> None:
    """0.1 · 30 is 3.0000000000000004 in binary floating point, whose ceil is 4."""
    assert test_mask(np.zeros(count, dtype=np.int64), 0.1, "user").sum() == count // 10
    assert test_mask(np.zeros(count, dtype=np.int64), 0.1, "time").sum() == count // 10


@given(st.lists(st.integers(0, 5), min_size=1, max_size=80), st.sampled_from([0.05, 0.1, 0.25, 0.5]))
def test_by_user_is_the_end_of_each_users_own_sequence(users: list[int], fraction: float) -> None:
    ids = np.array(users)
    mask = test_mask(ids, fraction, "user")
    for user in set(users):
        own = mask[ids == user]
        assert (np.diff(own.astype(int)) >= 0).all()
        assert fraction * own.size <= own.sum() + 1e-9
        assert own.sum() < fraction * own.size + 1


def test_the_holdout_is_a_share_of_users_and_follows_the_seed() -> None:
    users = np.repeat(np.arange(100), 3)
    drawn = draw_holdout(users, 0.3, np.random.default_rng(1))
    assert drawn.size == 30
    assert (np.diff(drawn) > 0).all()
    assert np.isin(drawn, users).all()
    assert drawn.tolist() == draw_holdout(users, 0.3, np.random.default_rng(1)).tolist()
    assert drawn.tolist() != draw_holdout(users, 0.3, np.random.default_rng(2)).tolist()
    assert draw_holdout(users, 0.0, np.random.default_rng(1)).size == 0
