"""The baselines, computed by hand, and how their settings are chosen."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

from trireme_export.data import Dataset, EvaluationSet, SyntheticConfig, read_dataset, write_synthetic
from trireme_export.evaluation import evaluate_popularity, score_lists
from trireme_export.evaluation.baselines import Positives, choice, ease, evaluate_baselines, fit_baselines, ials
from trireme_export.evaluation.baselines.ease import Ease
from trireme_export.evaluation.baselines.ials import ImplicitALS
from trireme_export.evaluation.baselines.item_knn import ItemKNN
from trireme_export.evaluation.baselines.method import Method
from trireme_export.evaluation.baselines.positives import histories
from trireme_export.evaluation.baselines.recent_popularity import RECENT_POPULARITY, RecentPopularity

#: User, item and time of ten positives; user 0 takes item 1 twice.
USER = np.array([0, 0, 0, 0, 1, 1, 1, 2, 2, 2])
ITEM = np.array([1, 0, 1, 2, 0, 1, 3, 1, 2, 4], dtype=np.int32)
TIME = np.array([1, 4, 6, 7, 2, 3, 8, 5, 9, 10])
#: The same as users × items.
TAKEN = np.array([[1, 1, 1, 0, 0], [1, 1, 0, 1, 0], [0, 1, 1, 0, 1]], dtype=np.float64)
SMALL = SyntheticConfig(users=250, items=120, interactions=3_000, clusters=6)


def positives(times: np.ndarray = TIME, shared_clock: bool = True) -> Positives:
    return Positives(USER, ITEM, times, shared_clock, 3, 5)


def asked(*rows: list[int]) -> sparse.csr_matrix:
    found = np.zeros((len(rows), 5), dtype=np.float32)
    for row, items in enumerate(rows):
        found[row, items] = 1
    return sparse.csr_matrix(found)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    folder: Path = tmp_path_factory.mktemp("data") / "small"
    write_synthetic(folder, SMALL)
    return read_dataset(folder)


def test_the_matrix_holds_each_pair_once() -> None:
    np.testing.assert_array_equal(positives().matrix.toarray(), TAKEN)
    np.testing.assert_array_equal(np.concatenate([part for _, part in positives().shared()]), TAKEN.T @ TAKEN)


def test_histories_hold_the_distinct_items_of_the_users_asked_for() -> None:
    users = EvaluationSet(
        np.arange(2),
        np.array([-1, 0], dtype=np.int32),
        np.array([0, 3, 4]),
        np.array([2, 0, 2, 4], dtype=np.int32),
        np.array([0, 1, 2]),
        np.array([1, 1], dtype=np.int32),
    )
    np.testing.assert_array_equal(histories(users, np.array([1, 0]), 5).toarray(), asked([4], [0, 2]).toarray())


def test_the_newer_part_is_split_off_like_the_test() -> None:
    older, newer = positives(np.where(ITEM == 4, 0, TIME)).split()  # the last of all: user 2 takes item 2
    assert older.item.tolist() == [1, 0, 1, 2, 0, 1, 3, 1, 4]
    assert (newer.user_id.tolist(), newer.relevant_items.tolist()) == ([2], [2])
    assert newer.history_items.tolist() == [1, 4]
    older, newer = positives(
        shared_clock=False
    ).split()  # the last of each user; items 3 and 4 are not in the older part
    assert older.item.tolist() == [1, 0, 1, 0, 1, 1, 2]
    assert (newer.user_id.tolist(), newer.relevant_items.tolist()) == ([0], [2])
    assert newer.history_items.tolist() == [1, 0, 1]


def test_recent_popularity_counts_users_of_the_newest_positives() -> None:
    assert RecentPopularity(positives(), 0.4).score(asked([0], [1])).tolist() == [[0, 0, 2, 1, 1]] * 2
    assert RecentPopularity(positives(), 0.001).score(asked([0])).tolist() == [[0, 0, 0, 0, 1]]


def test_recent_popularity_needs_a_clock() -> None:
    assert RECENT_POPULARITY.refusal(positives()) is None
    assert RECENT_POPULARITY.refusal(positives(shared_clock=False)) == "there is no clock common to all users"
    with pytest.raises(ValueError, match="shared_clock is False"):
        RecentPopularity(positives(shared_clock=False), 0.4)


def test_ease_is_the_closed_form() -> None:
    """The weights minimise the squared error with a diagonal of 0: each column is a ridge regression on the other items."""
    regularisation = 3.0
    found = Ease(positives(), regularisation).score(asked(*([item] for item in range(5))))
    for target in range(5):
        others = np.delete(np.arange(5), target)
        x, y = TAKEN[:, others], TAKEN[:, target]
        weight = np.linalg.solve(x.T @ x + regularisation * np.eye(4), x.T @ y)
        np.testing.assert_allclose(found[others, target], weight, rtol=1e-5)
        assert found[target, target] == 0


def test_ease_refuses_a_catalogue_whose_weights_would_not_fit(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ease, "MOST_ITEMS", 100)
    found = fit_baselines(dataset)
    assert found.left_out == {"ease": "the catalogue has 120 items; allowed: up to 100"}
    assert set(found.fitted) == {"recent_popularity", "ials", "item_knn"}


def test_item_knn_sums_the_similarities_of_the_nearest() -> None:
    """Items 0 to 2 have 2, 3 and 2 users, items 3 and 4 one each."""
    found = ItemKNN(positives(), 4, 1.0).score(asked([0], [1, 2]))
    of = {
        (i, j): TAKEN[:, i] @ TAKEN[:, j] / (np.sqrt(TAKEN[:, i].sum() * TAKEN[:, j].sum()) + 1)
        for i in range(5)
        for j in range(5)
    }
    np.testing.assert_allclose(found[0], [0, *(of[0, j] for j in range(1, 5))], rtol=1e-6)
    np.testing.assert_allclose(found[1, 3], of[1, 3] + of[2, 3], rtol=1e-6)
    # Of item 0, the nearest is item 1; items 2 and 3 are not its neighbours any more.
    np.testing.assert_allclose(
        ItemKNN(positives(), 1, 1.0).score(asked([1], [2], [3]))[:, 0], [of[0, 1], 0, 0], rtol=1e-6
    )


def test_ials_solves_for_a_user_by_their_history(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hu, Koren and Volinsky: (YᵀY + Yᵀ(C − I)Y + λI) x = YᵀCp, with a confidence of alpha for what was taken."""
    monkeypatch.setattr(ials, "FACTORS", 2)
    alpha, regularisation = 5.0, 0.5
    fitted = ImplicitALS(positives(), alpha, regularisation)
    y = fitted._model.item_factors.astype(np.float64)
    taken = np.array([1, 3])
    system = y.T @ y + (alpha - 1) * y[taken].T @ y[taken] + regularisation * np.eye(2)
    user = np.linalg.solve(system, alpha * y[taken].sum(axis=0))
    np.testing.assert_allclose(fitted.score(asked([1, 3]))[0], y @ user, rtol=1e-3, atol=1e-5)


def test_the_settings_are_the_best_on_the_newer_part(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is fitted last has seen all of the training; the settings before it only the older part."""
    seen = []

    class Target:
        def __init__(self, given: Positives, good: bool) -> None:
            seen.append((good, given.user.size))
            self.scale = 1 if good else -1
            self.users = np.asarray(given.matrix.sum(axis=0)).ravel()

        def score(self, histories: sparse.csr_matrix) -> np.ndarray:
            return np.tile(self.scale * self.users, (histories.shape[0], 1))

    settings = tuple({"good": good} for good in (False, True, False))
    monkeypatch.setattr(choice, "METHODS", (Method("target", Target, settings),))
    found = fit_baselines(dataset)
    total = dataset.train_items.size
    older = total - total // 10
    assert seen == [(False, older), (True, older), (False, older), (True, total)]
    assert found.fitted["target"].settings == {"good": True}
    popular = {"target": evaluate_popularity(dataset.item_popularity, dataset.test)}
    assert evaluate_baselines(found, dataset.test) == popular


def test_without_anyone_to_validate_on_the_first_settings_are_taken(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = replace(dataset, train_offsets=np.minimum(dataset.train_offsets, 1), train_items=dataset.train_items[:1])
    one = replace(one, train_times=dataset.train_times[:1])
    monkeypatch.setattr(choice, "METHODS", (Method("target", ItemKNN, ({"neighbours": 2, "shrinkage": 0.0}, {})),))
    assert fit_baselines(one).fitted["target"].settings == {"neighbours": 2, "shrinkage": 0.0}


def test_the_baselines_learn_the_tastes_of_the_made_up_data(dataset: Dataset) -> None:
    told: list[str] = []
    found = fit_baselines(dataset, told.append)
    assert told == ["recent_popularity", "ials", "ease", "item_knn"]
    figures = evaluate_baselines(found, dataset.test, longest=20)
    popular = evaluate_popularity(dataset.item_popularity, dataset.test, 20)
    assert all(set(one) == {"ndcg@10", "recall@20"} for one in figures.values())
    for name in ("ials", "ease", "item_knn"):
        assert figures[name]["ndcg@10"] > 1.3 * popular["ndcg@10"], name
    # Users are asked for by their history alone.
    assert evaluate_baselines(found, dataset.test.anonymous(), longest=20) == figures


@given(st.data())
def test_the_best_of_a_row_are_those_of_a_stable_sort(data: st.DataObject) -> None:
    users, n, k = (data.draw(st.integers(1, most)) for most in (4, 12, 14))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    score = rng.integers(0, data.draw(st.integers(1, 6)), (users, n)).astype(np.float64)
    score[rng.random(score.shape) < 0.2] = -np.inf
    everyone = EvaluationSet(
        np.arange(users),
        np.full(users, -1, dtype=np.int32),
        np.zeros(users + 1, dtype=np.int64),
        np.zeros(0, dtype=np.int32),
        np.arange(users + 1),
        np.zeros(users, dtype=np.int32),
    )
    order = np.argsort(-score, axis=1, kind="stable")
    expected = np.full((users, k), -1)
    width = min(k, n)
    expected[:, :width] = np.where(np.isinf(np.take_along_axis(score, order, axis=1)), -1, order)[:, :width]
    assert score_lists(lambda rows: score[rows], everyone, n, k).tolist() == expected.tolist()
