"""Whether an answer is that of its user."""

from __future__ import annotations

import numpy as np
import pytest

from trireme_client import Reason, Recommendations, Rung
from trireme_perf.chaos.expected import Expected, Judge, kept_wrongly

POPULAR = np.array([7, 8, 9, 1, 2])
ITEMS, SCORES = np.array([1, 2, 3, 4, 5]), np.array([5.0, 4.00001, 4.0, 3.0, 2.0], np.float32)
JUDGE = Judge({41: Expected(ITEMS, SCORES, np.array([8, 9, 1]), frozenset({7}))}, POPULAR, "3", complete=True)


def answer(
    items: list[int],
    scores: list[float] | None = None,
    rung: Rung = Rung.FULL,
    version: str = "3",
    reason: Reason = Reason.NONE,
    age_s: float = 0.0,
) -> Recommendations:
    given = scores or [float(SCORES[ITEMS.tolist().index(item)]) if item in ITEMS else 0.0 for item in items]
    return Recommendations(
        41, np.array(items), np.array(given, np.float32), rung, reason, 0.0, "recommend", version, None, age_s
    )


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        (answer([1, 2, 3]), None),
        (answer([1, 3, 2]), None),  # their scores are the same but for rounding
        (answer([1, 2, 3], version="2"), "version 2 answered, expected 3"),
        (answer([1, 2]), "2 items, expected 3"),
        (answer([1, 1, 2]), "an item twice"),
        (answer([1, 2, 7]), "an item that the user has seen"),
        (answer([1, 2, 6]), "items of nobody's, or of somebody else's list"),
        (answer([1, 2, 4]), "other scores, or another order"),
        (answer([2, 1, 3]), "other scores, or another order"),
        (answer([1, 2, 3], [5.0, 4.0, 3.9]), "other scores, or another order"),
        (answer([5, 4, 3], rung=Rung.RETRIEVAL_ORDER), None),
        (answer([5, 4, 6], rung=Rung.RETRIEVAL_ORDER), "items that are not retrieved for the user"),
        (answer([8, 9, 1], rung=Rung.SEGMENT_POPULAR), None),
        (answer([8, 9, 1], rung=Rung.POPULAR), None),
        (answer([7, 8, 9], rung=Rung.POPULAR), None),  # the client's own, which knows nothing of what was seen
        (answer([7, 8, 9], rung=Rung.SEGMENT_POPULAR), "not the popular items"),
        (answer([8, 9, 2], rung=Rung.POPULAR), "not the popular items"),
    ],
)
def test_an_answer_is_that_of_its_user(given: Recommendations, problem: str | None) -> None:
    assert JUDGE.problem(41, 3, given) == problem


def test_where_lists_are_cut_the_order_of_retrieval_may_hold_other_items() -> None:
    cut = Judge(JUDGE.users, POPULAR, "3", complete=False)
    assert cut.problem(41, 3, answer([5, 4, 6], rung=Rung.RETRIEVAL_ORDER)) is None
    assert cut.problem(41, 3, answer([5, 4, 7], rung=Rung.RETRIEVAL_ORDER)) == "an item that the user has seen"


#: The user has taken item 1 since the bundle was made, by the feature store.
FRESH = Judge(
    {41: Expected(ITEMS[1:], SCORES[1:], np.array([8, 9]), frozenset({7, 1}))},
    POPULAR,
    "3",
    complete=True,
    stale=JUDGE.users,
)


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        (answer([2, 3, 4]), None),
        (answer([1, 2, 3]), "an item that the user has seen"),  # from the bundle's history, and does not say so
        (answer([1, 2, 3], reason=Reason.FEATURES_STALE), None),
        (answer([2, 3, 4], reason=Reason.FEATURES_STALE), "other scores, or another order"),
        (answer([8, 9], rung=Rung.POPULAR, reason=Reason.DEADLINE), None),
        (answer([8, 9, 1], rung=Rung.POPULAR, reason=Reason.DEADLINE), None),  # which does not say why it knows less
        (answer([9, 8, 1], rung=Rung.POPULAR, reason=Reason.DEADLINE), "not the popular items"),
    ],
)
def test_an_answer_without_what_the_user_did_lately_is_right_if_it_says_so(
    given: Recommendations, problem: str | None
) -> None:
    assert FRESH.problem(41, len(given.item_ids), given) == problem


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        (answer([1, 2, 3]), None),
        (answer([7, 8, 9], rung=Rung.POPULAR, reason=Reason.OVERLOAD), None),  # new
        (answer([1, 2, 3], age_s=3.0), None),
        (answer([1, 2, 3], age_s=3.1), "an answer that was kept for too long"),
        (
            answer([1, 2, 3], reason=Reason.FEATURES_STALE, age_s=1.0),
            "an answer that was kept though it is less than complete",
        ),
        (answer([7, 8, 9], rung=Rung.POPULAR, age_s=1.0), "an answer that was kept though it is less than complete"),
    ],
)
def test_what_a_cache_may_not_give(given: Recommendations, problem: str | None) -> None:
    assert kept_wrongly(given, 3.0) == problem
