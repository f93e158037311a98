"""What a feature store holds of users, over the tables of the bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support import toy
from trireme_runtime.features.freshness import LEAST_S, SNAPSHOT, STALE
from trireme_runtime.features.record import ABSENT, CORRUPT, FRESH, UNREACHABLE
from trireme_runtime.features.store import Reading
from trireme_runtime.schema import STORED
from trireme_runtime.stages.chain import Funnel
from trireme_runtime.stages.feature_transform import Features
from trireme_runtime.stages.fresh_features import FreshFeatures, layout_of
from trireme_runtime.stages.reranking import FEATURES_STALE, FULL, NONE, NOTHING_KNOWN, POPULAR

ENCODING = 2**63 + 1
NOW_S = 1000.0
#: Of the toy: its history is the longest, and its segment is 1.
USER = 5
NOBODY = 10**9
#: Ids of items.
FIRST, SECOND = 1000 + 7 * 41, 1000 + 7 * 42
UNKNOWN = 3


class Store:
    """Holds what it is told to."""

    def __init__(self, layout: Any) -> None:
        self._layout = layout
        self._records: dict[int, np.ndarray] = {}
        self.asked: list[list[int]] = []
        self.is_reachable = True

    def hold(self, user: int, *items: int, **fields: Any) -> None:
        record = self._layout.empty(1)
        for place, item in enumerate(reversed(items)):
            record["history"][0, -1 - place] = item
            record["time_ms"][0, -1 - place] = 900_000 - place
        record["count"], record["written_ms"] = len(items), 990_000
        for name, value in fields.items():
            record[name] = value
        self._records[user] = record

    def read(self, user_id: np.ndarray) -> Reading:
        users = user_id.tolist()
        self.asked.append(users)
        empty = self._layout.empty(1)
        if not self.is_reachable:
            return Reading(np.repeat(empty, len(users)), np.full(len(users), UNREACHABLE, np.uint8))
        records = np.concatenate([self._records.get(user, empty) for user in users])
        return Reading(records, np.array([FRESH if user in self._records else ABSENT for user in users], np.uint8))


class Case:
    """The toy funnel and the store in front of it."""

    def __init__(self, funnel: Funnel) -> None:
        self.tables: Any = funnel.stages[0]
        self.noted: list[list[int]] = []
        self.ages_s: list[float] = []
        self.store = Store(layout_of(self.tables))
        self.fresh = FreshFeatures(self.tables, self.store, ENCODING, self.note, lambda: NOW_S)
        self.funnel = type(funnel)((self.fresh, *funnel.stages[1:]))
        self.plain = funnel

    def note(self, state: np.ndarray, ns: int, age_s: np.ndarray) -> None:
        assert ns > 0
        self.noted.append(state.tolist())
        self.ages_s += age_s.tolist()

    def features(self, *users: int, history: np.ndarray | None = None) -> Features:
        return self.fresh(column(*users), history)

    def stored(self, *users: int, history: np.ndarray | None = None) -> Features:
        return self.tables(column(*users), history)


def column(*users: int) -> np.ndarray:
    return np.array(users, np.int64)[:, None]


@pytest.fixture
def case(tmp_path: Path) -> Case:
    return Case(toy.funnel(tmp_path))


def test_a_context_is_of_the_request_and_not_of_the_store(case: Case) -> None:
    case.tables.context_sizes = np.array([3], np.int32)
    case.store.hold(user_id(USER), FIRST, encoding=ENCODING)
    context = np.array([[2], [1], [3]], np.int32)
    features = case.fresh(column(user_id(USER), NOBODY, user_id(1)), None, context)
    assert features.user_category[:, -1].tolist() == [2, 1, 0]  # the bundle has no index 3
    assert case.fresh(column(user_id(USER))).user_category[0, -1] == 0


def user_id(row: int) -> int:
    return int(toy.user_ids()[row])


def test_fresh_events_follow_the_stored_history(case: Case) -> None:
    user = user_id(USER)
    case.store.hold(user, FIRST, UNKNOWN, SECOND)
    before, after = case.stored(user), case.features(user)
    expected = [*before.history_index[0][before.history_index[0] >= 0].tolist(), 41, 42][-toy.DIMS.history :]
    assert after.history_index[0].tolist() == [-1] * (toy.DIMS.history - len(expected)) + expected
    assert after.user_number[0, -1] == pytest.approx(np.log1p(len(expected)))
    assert after.freshness.tolist() == [[10.0]]
    for name in ("user_row", "user_category"):
        np.testing.assert_array_equal(getattr(after, name), getattr(before, name))
    assert after.history_index.dtype == before.history_index.dtype


def test_a_user_whom_the_bundle_does_not_know_has_the_history_of_the_store(case: Case) -> None:
    case.store.hold(NOBODY, FIRST, SECOND)
    found = case.features(NOBODY)
    assert found.user_row.tolist() == [[-1]]
    assert found.history_index[0].tolist() == [-1] * (toy.DIMS.history - 2) + [41, 42]


def test_all_known_ids_of_a_batch_are_asked_for_at_once(case: Case) -> None:
    first, second = user_id(1), user_id(2)
    case.store.hold(second, FIRST)
    found = case.features(first, -1, second, first)
    assert case.store.asked == [[first, second, first]]
    assert found.freshness.tolist() == [[SNAPSHOT], [SNAPSHOT], [10.0], [SNAPSHOT]]
    assert found.history_index[2, -1] == 41
    np.testing.assert_array_equal(found.history_index[:2], case.stored(first, -1).history_index)


def test_anonymous_users_ask_for_nothing(case: Case) -> None:
    case.features(-1, -1)
    assert case.store.asked == []


def test_a_history_that_is_given_stays(case: Case) -> None:
    user = user_id(USER)
    case.store.hold(user, SECOND)
    history = np.full((2, toy.DIMS.history), -1, np.int64)
    history[0, -1] = FIRST
    history[1, 0] = STORED
    found = case.features(user, user, history=history)
    assert found.history_index[0].tolist() == [-1] * (toy.DIMS.history - 1) + [41]
    assert found.history_index[1, -1] == 42
    assert found.freshness.tolist() == [[SNAPSHOT], [10.0]]
    case.store.is_reachable = False
    assert case.features(user, user, history=history).freshness.tolist() == [[SNAPSHOT], [STALE]]


def test_features_of_the_bundle_s_encoding_replace_its_tables(case: Case) -> None:
    user = user_id(0)
    case.store.hold(user, FIRST, encoding=ENCODING, category=[0, 1], number=[2.5])
    found = case.features(user)
    assert found.user_category.tolist() == [[0, 1]]
    assert found.user_number[0, 0] == 2.5
    assert found.history_index[0, -1] == 41


@pytest.mark.parametrize("encoding", [0, ENCODING + 1])
def test_features_of_another_bundle_are_ignored_and_the_history_is_not(case: Case, encoding: int) -> None:
    user = user_id(0)
    case.store.hold(user, FIRST, encoding=encoding, category=[9, 9], number=[2.5])
    found, stored = case.features(user), case.stored(user)
    np.testing.assert_array_equal(found.user_category, stored.user_category)
    np.testing.assert_array_equal(found.user_number[:, :-1], stored.user_number[:, :-1])
    assert found.history_index[0, -1] == 41


def test_a_category_that_the_models_have_no_row_for_is_corrupt(case: Case) -> None:
    first, second = user_id(0), user_id(1)
    case.store.hold(first, FIRST, encoding=ENCODING, category=[0, 2], number=[2.5])
    case.store.hold(second, FIRST)
    found, stored = case.features(first, second), case.stored(first, second)
    for name in ("history_index", "user_category", "user_number", "freshness"):
        np.testing.assert_array_equal(getattr(found, name)[0], getattr(stored, name)[0])
    assert found.history_index[1, -1] == 41
    assert case.noted == [[CORRUPT, FRESH]]


def test_a_clock_that_is_ahead_gives_the_least_age(case: Case) -> None:
    case.store.hold(user_id(0), FIRST, written_ms=2_000_000)
    assert case.features(user_id(0)).freshness.tolist() == [[np.float32(LEAST_S)]]


@pytest.mark.parametrize("compiles", [True, False])
def test_answers_say_how_old_their_features_are(
    tmp_path: Path, compiles: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Funnel, "compiles", compiles)
    case = Case(toy.funnel(tmp_path))
    fresh, stored = user_id(USER), user_id(USER + 1)
    case.store.hold(fresh, FIRST)
    slate = case.funnel(column(fresh, stored, NOBODY))
    assert slate.feature_age_s.tolist() == [[10.0], [0.0], [0.0]]
    assert case.ages_s == [10.0]
    assert slate.rung.tolist() == [[FULL], [FULL], [POPULAR]]
    assert slate.reason.tolist() == [[NONE], [NONE], [NOTHING_KNOWN]]
    assert FIRST not in slate.item_id[0]
    case.store.is_reachable = False
    stale, plain = case.funnel(column(fresh, stored, NOBODY)), case.plain(column(fresh, stored, NOBODY))
    assert stale.feature_age_s.tolist() == [[0.0], [0.0], [0.0]]
    assert stale.reason.tolist() == [[FEATURES_STALE], [FEATURES_STALE], [NOTHING_KNOWN]]
    np.testing.assert_array_equal(stale.item_id, plain.item_id)
    np.testing.assert_allclose(stale.score, plain.score, rtol=1e-5)


def test_without_a_store_no_stage_is_replaced(case: Case) -> None:
    assert case.plain.stages[0] is case.tables
    slate = case.plain(column(user_id(USER)))
    assert (slate.feature_age_s.tolist(), slate.reason.tolist()) == ([[0.0]], [[NONE]])
