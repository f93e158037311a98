"""How different two answers are, worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from trireme_perf.ab.answers import compare_answers
from trireme_perf.load.connections import Answer


def answer(items: list[int], scores: list[float], rung: int = 0) -> Answer:
    return Answer(np.array(items, dtype=np.int64), np.array(scores, dtype=np.float32), rung)


FULL = answer([1, 2, 3, 4], [4.0, 3.0, 2.0, 1.0])


def test_equal_answers() -> None:
    assert compare_answers([FULL, FULL], [FULL, FULL], 3) == {
        "users": 2,
        "k": 3,
        "overlap": 1.0,
        "same_lists": 1.0,
        "same_rungs": 1.0,
        "score_difference": {"mean": 0.0, "largest": 0.0},
    }


def test_different_answers() -> None:
    swapped = answer([2, 1, 9, 3], [3.5, 3.0, 2.0, 1.0])  # of the first three, two are in both: 1 (−1), 2 (+.5)
    fallback = answer([7, 8, -1, -1], [1.0, 0.5, 0.0, 0.0], rung=3)  # padding is nothing
    found = compare_answers([FULL, FULL], [swapped, fallback], 3)
    assert found["overlap"] == pytest.approx((2 / 3 + 0) / 2)
    assert (found["same_lists"], found["same_rungs"]) == (0.0, 0.5)
    assert found["score_difference"] == {"mean": 0.75, "largest": 1.0}


def test_a_shorter_list_covers_less() -> None:
    short = answer([1, 2, -1, -1], [4.0, 3.0, 0.0, 0.0])
    assert compare_answers([FULL], [short], 4)["overlap"] == 0.5


def test_empty_lists_are_equal_and_have_no_scores() -> None:
    empty = answer([-1, -1], [0.0, 0.0])
    found = compare_answers([empty], [empty], 2)
    assert (found["overlap"], found["same_lists"], found["score_difference"]) == (1.0, 1.0, None)
