"""Whether contestants do the same work: their answers against those of the funnel in this process."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from trireme_perf.errors import PerfError
from trireme_perf.load.connections import Answer

__all__ = ["DifferenceError", "check_answer", "check_rung"]

TOLERANCE = 1e-4


class DifferenceError(PerfError):
    """A contestant's answer differs from that of the funnel."""


def check_answer(name: str, user_id: int, answer: Answer, expected: Answer) -> None:
    """Compares item ids, scores (within 1e-4) and rung.

    Items whose expected scores are equal may change places: rounding of the last bits decides their order.

    Raises:
        DifferenceError: names the contestant, the user and the first difference.
    """
    check_rung(name, user_id, answer, expected)
    found, wanted = _items(answer), _items(expected)
    if len(found.item_id) != len(wanted.item_id):
        raise _difference(name, user_id, f"{len(found.item_id)} items", f"{len(wanted.item_id)}")
    far = np.flatnonzero(~(np.abs(found.score - wanted.score) <= TOLERANCE))  # a NaN is far
    if far.size:
        rank = int(far[0])
        raise _difference(name, user_id, f"score {found.score[rank]:g} at rank {rank + 1}", f"{wanted.score[rank]:g}")
    scores = dict(zip(wanted.item_id.tolist(), wanted.score.tolist(), strict=True))
    for rank, item in enumerate(found.item_id.tolist()):
        score = scores.pop(item, float("nan"))  # an item that is not expected, or comes twice, has no score
        if not abs(score - float(wanted.score[rank])) <= TOLERANCE:
            raise _difference(name, user_id, f"item {item} at rank {rank + 1}", f"{wanted.item_id[rank]}")


def check_rung(name: str, user_id: int, answer: Answer, expected: Answer) -> None:
    """Checks that the answer is as complete as expected: a fallback costs less than a full answer.

    Raises:
        DifferenceError: it is more or less complete.
    """
    if answer.rung != expected.rung:
        raise _difference(name, user_id, f"rung {answer.rung}", f"{expected.rung}")


def _items(answer: Answer) -> Answer:
    """Returns the answer without its padding."""
    kept: NDArray[np.bool_] = answer.item_id >= 0
    return Answer(answer.item_id[kept], answer.score[kept], answer.rung)


def _difference(name: str, user_id: int, found: str, wanted: str) -> DifferenceError:
    return DifferenceError(f"{name} answers user {user_id} with {found}; the funnel in this process with {wanted}")
