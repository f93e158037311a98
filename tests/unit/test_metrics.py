"""The protocol, the metrics and the baselines, computed by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trireme_export.data import EvaluationSet, build_evaluation
from trireme_export.evaluation import (
    evaluate_lists,
    evaluate_popularity,
    hits,
    ndcg_at_k,
    popular_order,
    popularity_lists,
    recall_at_k,
    score_lists,
)
from trireme_export.tables import popular_lists

#: Discounts of ranks 1, 2 and 3.
D1, D2, D3 = 1.0, 1 / math.log2(3), 0.5


def evaluation(history: list[list[int]], relevant: list[list[int]]) -> EvaluationSet:
    def csr(rows: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
        return np.cumsum([0, *map(len, rows)]), np.array([i for row in rows for i in row], dtype=np.int32)

    users = np.arange(len(history))
    return EvaluationSet(users, users.astype(np.int32), *csr(history), *csr(relevant))


def test_ndcg_discounts_by_rank_and_divides_by_the_best_list() -> None:
    hit = np.array([[True, False, False], [False, True, True], [False, False, False], [True, True, True]])
    value = ndcg_at_k(hit, np.array([1, 2, 5, 4]), 3)
    assert value == pytest.approx([1.0, (D2 + D3) / (D1 + D2), 0.0, 1.0])
    assert value.dtype == np.float64
    assert ndcg_at_k(hit, np.array([1, 2, 5, 4]), 1) == pytest.approx([1, 0, 0, 1])


def test_ndcg_of_a_list_shorter_than_k_has_misses_in_the_places_it_lacks() -> None:
    assert ndcg_at_k(np.array([[True]]), np.array([2]), 10) == pytest.approx([D1 / (D1 + D2)])


def test_recall_divides_by_what_k_places_can_hold() -> None:
    hit = np.array([[True, False, True, True], [False, False, False, True]])
    assert recall_at_k(hit, np.array([5, 1]), 2) == pytest.approx([1 / 2, 0])
    assert recall_at_k(hit, np.array([5, 1]), 4) == pytest.approx([3 / 4, 1])
    assert recall_at_k(hit, np.array([30, 1]), 20) == pytest.approx([3 / 20, 1])


def test_a_user_without_relevant_items_is_refused() -> None:
    for metric in (ndcg_at_k, recall_at_k):
        with pytest.raises(ValueError, match="without relevant items"):
            metric(np.zeros((1, 3), dtype=bool), np.array([0]), 3)


def test_hits_are_per_user_and_padding_never_hits() -> None:
    ranked = np.array([[3, 1, -1, -1], [1, 3, 0, -1]])
    assert hits(ranked, np.array([0, 1, 3]), np.array([3, 0, 3])).tolist() == [
        [True, False, False, False],
        [False, True, True, False],
    ]


@pytest.mark.parametrize(
    ("ranked", "message"),
    [
        ([[1, 2, 1]], "user 0 holds item 1 twice"),
        ([[1, -2, 3]], "holds -2; item indices are >= 0"),
        ([[1], [2]], r"shape \(2, 1\), needs \(1 users, K\)"),
        ([1, 2], r"shape \(2,\)"),
    ],
)
def test_lists_that_cannot_be_evaluated(ranked: list, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        hits(np.array(ranked), np.array([0, 1]), np.array([1]))


def test_no_users_to_evaluate_is_an_error() -> None:
    with pytest.raises(ValueError, match="no users to evaluate"):
        evaluate_lists(np.zeros((0, 5), dtype=np.int32), evaluation([], []))


def test_the_means_over_users() -> None:
    asked = evaluation([[0], [1]], [[2], [0, 2]])
    result = evaluate_lists(np.array([[1, 2], [0, 2]]), asked)
    assert result == pytest.approx({"ndcg@10": (D2 + 1) / 2, "recall@20": 1.0, "recall@200": 1.0})


def test_metrics_of_shorter_lists_are_named_by_their_length() -> None:
    asked = evaluation([[0]], [[1, 2, 3]])
    lists = np.array([[1, 4, 2]])
    assert set(evaluate_lists(lists, asked, 40)) == {"ndcg@10", "recall@20", "recall@40"}
    assert set(evaluate_lists(lists, asked, 20)) == {"ndcg@10", "recall@20"}
    assert evaluate_lists(lists, asked, 2) == pytest.approx({"ndcg@2": 1 / (1 + D2), "recall@2": 1 / 2})


@given(st.data())
def test_metrics_stay_in_the_unit_interval_and_the_best_list_reaches_one(data: st.DataObject) -> None:
    relevant = sorted(data.draw(st.sets(st.integers(0, 30), min_size=1, max_size=25)))
    order = data.draw(st.permutations(range(31)))
    asked = evaluation([[]], [relevant])
    found = evaluate_lists(np.array([order]), asked)
    best = evaluate_lists(np.array([relevant + [i for i in range(31) if i not in relevant]]), asked)
    assert all(0 <= value <= 1 + 1e-12 for value in found.values())
    assert list(best.values()) == pytest.approx([1, 1, 1])
    gain = sum(1 / math.log2(r + 2) for r, item in enumerate(order[:10]) if item in relevant)
    ideal = sum(1 / math.log2(r + 2) for r in range(min(10, len(relevant))))
    assert found["ndcg@10"] == pytest.approx(gain / ideal)


def test_which_users_are_evaluated_and_what_is_right() -> None:
    users = np.array([5, 6, 7, 8])
    #  user 5: item 1 in training twice; tests a new item, a training item, and one out of training
    #  user 6: all their test items are in their training; user 7: no training; user 8: a repeat in the test
    train = np.array([0, 0, 1, 3, 0]), np.array([1, 0, 2, 0, 1])
    test = np.array([0, 0, 0, 1, 2, 3, 3, -1]), np.array([2, 0, -1, 2, 1, 2, 2, 1])
    asked = build_evaluation(users, np.arange(4, dtype=np.int32), train, test, 3)
    assert asked.user_id.tolist() == [5, 8]
    assert asked.user_row.tolist() == [0, 3]
    assert asked.history_offsets.tolist() == [0, 3, 4]
    assert asked.history_items.tolist() == [1, 0, 1, 0]
    assert asked.relevant_offsets.tolist() == [0, 1, 2]
    assert asked.relevant_items.tolist() == [2, 2]
    assert asked.relevant_count.tolist() == [1, 1]


def test_taking_some_users_keeps_their_rows_together() -> None:
    asked = evaluation([[0, 1], [2], [3, 4]], [[5], [6, 7], [8]]).take(np.array([2, 0]))
    assert asked.user_id.tolist() == [2, 0]
    assert asked.history_items.tolist() == [3, 4, 0, 1]
    assert asked.relevant_offsets.tolist() == [0, 1, 2]
    assert asked.relevant_items.tolist() == [8, 5]


def test_popular_lists_skip_what_the_user_has_and_pad() -> None:
    asked = evaluation([[2, 2], [0, 1, 3]], [[0], [2]])
    popularity = np.array([1, 5, 9, 5])
    assert popular_order(popularity).tolist() == [2, 1, 3, 0]
    assert popularity_lists(popularity, asked, 3).tolist() == [[1, 3, 0], [2, -1, -1]]
    assert evaluate_popularity(popularity, asked)["recall@20"] == 1.0


def test_popular_lists_of_segments_are_those_of_a_full_sort() -> None:
    rng = np.random.default_rng(0)
    counts = rng.poisson(0.6, (5, 40))
    counts[0] = counts.sum(axis=0)
    for depth in (1, 7, 39, 60):
        order = np.stack([np.lexsort((-counts[0], -row))[:depth] for row in counts])
        found, score = popular_lists(iter(counts), depth)
        np.testing.assert_array_equal(found, order)
        np.testing.assert_array_equal(score, np.log1p(np.take_along_axis(counts, order, axis=1)).astype(np.float32))


def test_score_lists_rank_ties_by_index_and_leave_out_history_and_minus_infinity() -> None:
    asked = evaluation([[1], [0]], [[0], [2]])
    score = np.array([[1.0, 9, 1, 2], [5, np.nan, -np.inf, 0]])
    assert score_lists(lambda rows: score[rows], asked, 4, 5).tolist() == [[3, 0, 2, -1, -1], [3, 1, -1, -1, -1]]


@given(st.data())
def test_popularity_is_a_score_like_any_other(data: st.DataObject) -> None:
    n = data.draw(st.integers(1, 12))
    popularity = np.array(data.draw(st.lists(st.integers(0, 4), min_size=n, max_size=n)))
    history = data.draw(st.lists(st.lists(st.integers(0, n - 1)), min_size=1, max_size=4))
    asked = evaluation(history, [[0]] * len(history))
    by_score = score_lists(lambda rows: np.tile(popularity, (rows.size, 1)), asked, n, 6)
    assert popularity_lists(popularity, asked, 6).tolist() == by_score.tolist()
