"""What fresh features are worth: moments of the test part by hand, and ratios of lists."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.support.frames import write_frames
from tests.support.random_checkpoint import random_checkpoint
from trireme_export.data import Dataset, read_dataset
from trireme_export.data.options import DataConfig
from trireme_export.evaluation.fresh_features import (
    FRESH,
    SNAPSHOT,
    WITHOUT_TAKEN,
    compare_lists,
    moment_lists,
    ratio_of_means,
)
from trireme_export.evaluation.funnel import offline_lists
from trireme_export.evaluation.moments import Moments, test_moments
from trireme_export.tables import build_tables

#: Times up to 14 are trained on. Items 10, 20, 30, 40, 50, 60 have the indices 0 to 5, users 7 and 9 the rows 0 and 1.
TRAINED = [(7, 10), (7, 20), (9, 30), (9, 40), (9, 50), (9, 60), *[(9, 30)] * 8]
#: User, item and time. 99 and user 8 are not in training.
TESTED = [
    (7, 40, 15),
    (7, 30, 15),  # a basket with 40
    (7, 30, 15),  # the same event
    (9, 50, 16),  # known from training: no target, but an event
    (7, 99, 17),  # an item that nobody knows
    (8, 10, 17),
    (7, 40, 18),  # again
    (9, 10, 18),
    (7, 10, 19),  # of training
    (7, 60, 19),
]


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    users, items = zip(*TRAINED, *[event[:2] for event in TESTED], strict=True)
    times = [*range(1, 15), *[event[2] for event in TESTED]]
    frame = {"user_id": users, "item_id": items, "timestamp": times}
    return read_dataset(write_frames(tmp_path, frame), DataConfig(test_fraction=0.42))


def relevant(moments: Moments) -> list[list[int]]:
    return [part.tolist() for part in np.split(moments.relevant_items, moments.relevant_offsets[1:-1])]


def test_the_data_set_keeps_what_was_taken_in_the_test_part(dataset: Dataset) -> None:
    assert dataset.train_offsets.tolist() == [0, 2, 14]
    assert dataset.test_offsets.tolist() == [0, 6, 8]
    assert dataset.test_items.tolist() == [3, 2, 2, 3, 0, 5, 4, 0]
    assert dataset.test_times.tolist() == [15, 15, 15, 18, 19, 19, 16, 18]


def test_a_moment_is_what_a_user_took_at_one_time_and_for_the_first(dataset: Dataset) -> None:
    moments = test_moments(dataset)
    assert moments.user_row.tolist() == [0, 0, 1]
    assert relevant(moments) == [[2, 3], [5], [0]]
    assert moments.has_fresh.tolist() == [False, True, True]
    assert moments.relevant_count.tolist() == [2, 1, 1]


def test_a_store_holds_what_came_strictly_before(dataset: Dataset) -> None:
    moments = test_moments(dataset)
    assert moments.fresh(4).tolist() == [[-1] * 4, [-1, 2, 3, 3], [-1, -1, -1, 4]]
    assert moments.fresh(2).tolist() == [[-1, -1], [3, 3], [-1, 4]]


def test_histories_are_those_of_a_server(dataset: Dataset) -> None:
    moments, tables = test_moments(dataset), build_tables(dataset, history_length=4, list_length=2)
    frozen, known = (moments.asked(tables, with_fresh) for with_fresh in (False, True))
    assert frozen.user_id.tolist() == known.user_id.tolist() == [7, 7, 9]
    assert np.split(frozen.history_items, frozen.history_offsets[1:-1])[1].tolist() == [0, 1]
    assert np.split(known.history_items, known.history_offsets[1:-1])[1].tolist() == [1, 2, 3, 3]
    assert np.split(known.history_items, known.history_offsets[1:-1])[2].tolist() == [2, 2, 2, 4]
    assert relevant(moments.take(np.array([2, 0]))) == [[0], [2, 3]]


def moments_of(*taken: tuple[int, int, list[int], list[int]]) -> Moments:
    """Moments of (user row, events before, events of the user, relevant items)."""
    events, starts = [], []
    for user, _, own, _ in taken:
        if not starts or taken[len(starts) - 1][0] != user:
            first = len(events)
            events += own
        starts.append(first)
    sizes = [len(items) for *_, items in taken]
    return Moments(
        np.array([user for user, *_ in taken], np.int32),
        np.array(events, np.int32),
        np.arange(len(events)),
        np.array(starts),
        np.array([start + before for start, (_, before, *_) in zip(starts, taken, strict=True)]),
        np.concatenate([[0], np.cumsum(sizes)]),
        np.concatenate([np.array(items, np.int32) for *_, items in taken]),
    )


def test_lists_know_what_a_store_holds() -> None:
    checkpoint = random_checkpoint()
    models, tables = checkpoint.models, checkpoint.tables
    own = [1000, 1001, 1002]
    moments = moments_of((5, 0, own, [7]), (5, 3, own, [8]), (9, 0, [], [7]))
    first = offline_lists(models, tables, moments.asked(tables, with_fresh=False), 30, 8)[0]
    own[:] = first[[0, 2, 5]].tolist()  # so that the second moment is after the best of the first
    moments = moments_of((5, 0, own, [7]), (5, 3, own, [8]), (9, 0, [], [7]))
    lists = moment_lists(models, tables, moments, 30, 8)
    np.testing.assert_array_equal(lists[SNAPSHOT][:2], [first, first])
    np.testing.assert_array_equal(lists[WITHOUT_TAKEN][1], [*np.delete(first, [0, 2, 5]), -1, -1, -1])
    for row in (0, 2):  # nothing has happened yet
        np.testing.assert_array_equal(lists[FRESH][row], lists[SNAPSHOT][row])
        np.testing.assert_array_equal(lists[WITHOUT_TAKEN][row], lists[SNAPSHOT][row])
    assert not set(own) & set(lists[FRESH][1].tolist())
    assert (lists[FRESH][1] >= 0).all()
    assert not np.isin(lists[FRESH][1], np.delete(first, [0, 2, 5])).all()


def test_each_user_counts_once() -> None:
    moments = moments_of((0, 0, [4, 5], [1]), (0, 1, [4, 5], [2]), (0, 2, [4, 5], [3]), (1, 0, [], [1]))
    nothing, right = np.full((4, 10), -1, np.int32), np.full((4, 10), -1, np.int32)
    right[:, 0] = [1, 2, 9, 1]
    half = right.copy()
    half[3] = -1
    found = compare_lists({SNAPSHOT: right, FRESH: half}, moments, 10)
    assert (found["users"], found["moments"], found["targets"]) == (2, 4, 4)
    assert found["lists"][SNAPSHOT]["ndcg@10"] == pytest.approx((2 / 3 + 1) / 2)
    assert found["lists"][FRESH]["recall@10"] == pytest.approx(1 / 3)
    assert found["ratios"][FRESH]["ndcg@10"]["value"] == pytest.approx(0.4)
    assert compare_lists({SNAPSHOT: nothing, FRESH: right}, moments, 10)["ratios"][FRESH]["ndcg@10"] is None


def test_an_interval_covers_the_ratio_and_shrinks_with_users() -> None:
    rng = np.random.default_rng(3)
    widths = []
    for users in (50, 5000):
        before = rng.random(users)
        found = ratio_of_means(before, 1.2 * before + 0.3 * (rng.random(users) - 0.5))
        assert found is not None
        assert found["low"] < 1.2 < found["high"]
        assert found["low"] < found["value"] < found["high"]
        widths.append(found["high"] - found["low"])
    assert widths[1] < widths[0] / 5
    exact = ratio_of_means(np.arange(9.0), 2 * np.arange(9.0))
    assert exact is not None
    assert list(exact.values()) == pytest.approx([2, 2, 2])
