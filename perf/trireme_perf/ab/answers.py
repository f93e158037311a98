"""How much the answers of two variants to the same users differ."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from trireme_perf.load.connections import Answer

__all__ = ["compare_answers"]


def compare_answers(a: Sequence[Answer], b: Sequence[Answer], k: int) -> dict[str, Any]:
    """Of the first k items of both, means over users.

    Args:
        a, b: answers to the same users, in the same order, at least one.
        k: at least 1.

    Returns:
        ``overlap``: items in both lists over the longer list's length; 1 where both are empty. ``same_lists``, ``same_rungs``:
        shares of the users. ``score_difference``: mean and largest of the absolute differences between both scores of the
        items that are in both lists; None if no list has one.
    """
    pairs = [(_scores(one, k), _scores(other, k)) for one, other in zip(a, b, strict=True)]
    apart = [abs(one[item] - other[item]) for one, other in pairs for item in one.keys() & other.keys()]
    return {
        "users": len(pairs),
        "k": k,
        "overlap": float(np.mean([_overlap(set(one), set(other)) for one, other in pairs])),
        "same_lists": float(np.mean([list(one) == list(other) for one, other in pairs])),
        "same_rungs": float(np.mean([one.rung == other.rung for one, other in zip(a, b, strict=True)])),
        "score_difference": {"mean": float(np.mean(apart)), "largest": float(max(apart))} if apart else None,
    }


def _scores(answer: Answer, k: int) -> dict[int, float]:
    """Score by item, best first, without the padding."""
    pairs = zip(answer.item_id[:k].tolist(), answer.score[:k].tolist(), strict=True)
    return {item: score for item, score in pairs if item >= 0}


def _overlap(a: set[int], b: set[int]) -> float:
    return len(a & b) / max(len(a), len(b)) if a or b else 1.0
