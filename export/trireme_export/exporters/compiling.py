"""Holds the compiled stages to the others: they answer the same, and a lone request faster, or the bundle goes without them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, cast

import numpy as np
from threadpoolctl import threadpool_limits

from trireme_export.errors import ExportError
from trireme_runtime.native import library
from trireme_runtime.native.binding import NativeStages
from trireme_runtime.stages.chain import Funnel
from trireme_runtime.stages.ranking import Ranking
from trireme_runtime.stages.stage import EXCLUDED, Stage
from trireme_runtime.stages.user_tower import UserTower

__all__ = ["choose_compiled"]

#: Known users that are asked for, as many with a history of their own as without, at least a thousand where there are so many.
USERS = 1024
#: Largest difference of a score: of what the scores of a list span, or of 1 where they span less.
TOLERANCE = 1e-4
#: Outputs that have to be the same.
EXACT = ("user_row", "history_index", "user_category", "rung", "reason", "feature_age_s")
#: Indices or ids whose order does not matter where scores are equal, and their scores.
LISTS = {"candidate_index": "retrieval_score", "item_id": "score"}
#: The largest share of users who may differ because of rounding.
FORGIVEN = 0.05
#: Users per call whose time is compared, and how many calls.
ROUNDS = {1: 60, 64: 12}


@dataclass(frozen=True)
class Cost:
    """µs per user of a batch of so many, medians of interleaved calls on one thread of this machine."""

    batch: int
    staged_us: float
    compiled_us: float


def choose_compiled(funnel: Funnel, users: np.ndarray) -> tuple[Funnel, dict[str, Any]]:
    """Returns ``funnel``, with the compiled form of its models if that is faster for a lone user, and the record of the choice.

    Args:
        funnel: as exported.
        users: int64 [n, 1], ids to compare on and to measure with.

    Returns:
        The funnel, and ``{"stages": names of the stages that are compiled, "users", "score_difference", "costs": [{"batch",
        "staged_us", "compiled_us"}, …]}``; without costs where nothing can be compiled.

    Raises:
        ExportError: the compiled stages answer other rungs or reasons, other items (but for those whose scores are equal), or
            scores that differ by more than is allowed.
    """
    if library() is None or not funnel.compiled:
        return funnel, {"stages": [], "users": 0, "score_difference": None, "costs": []}
    users = users[:USERS]
    largest = 0.0
    for inputs in _requests(funnel, users):
        largest = max(largest, _compare(funnel, funnel.staged(**inputs)))
    costs = [_measure(funnel, users, batch, calls) for batch, calls in ROUNDS.items()]
    if costs[0].compiled_us >= costs[0].staged_us:
        funnel = _without(funnel)
    return funnel, {
        "stages": list(funnel.compiled),
        "users": len(users),
        "score_difference": largest,
        "costs": [asdict(cost) for cost in costs],
    }


def _requests(funnel: Funnel, users: np.ndarray) -> Iterator[dict[str, Any]]:
    """Yields stored histories, other users' histories of every length, and exclusions with contexts, an unknown user each."""
    features: Any = funnel.stages[0]
    users = np.append(users, [[-1]], axis=0)
    yield {"user_id": users, "history": None}
    row = np.searchsorted(features.user_ids, users[:-1, 0])
    stored = features.history[row]
    history = np.append(np.where(stored >= 0, features.item_ids[stored], -1), np.full((1, stored.shape[1]), -1), axis=0)
    keep = np.linspace(0, history.shape[1], len(history)).astype(int)
    history[np.arange(history.shape[1]) < history.shape[1] - keep[:, None]] = -1
    yield {"user_id": users, "history": np.roll(history, 1, axis=0)}
    popular = np.flatnonzero(np.arange(features.item_ids.size) % 7 == 0)[:100].astype(np.int32)
    pairs = np.repeat(np.arange(len(users)), popular.size), np.tile(popular, len(users))
    context = np.arange(len(users), dtype=np.int32)[:, None] % (
        features.context_sizes + 1
    )  # one beyond the last is unknown
    yield {"user_id": users, "history": None, "context": context, EXCLUDED: pairs}


def _compare(funnel: Funnel, expected: Mapping[str, Any]) -> float:
    """Runs the compiled stages on what the stages before them answer; returns the largest difference, see ``TOLERANCE``.

    Raises:
        ExportError: there is one that is not allowed.
    """
    worst = 0.0
    for part in funnel.compiled_parts:
        found = dict(expected)
        part.run(found)
        for name in part.answered:
            if name in EXACT:
                if wrong := np.count_nonzero((found[name] != expected[name]).any(axis=1)):
                    raise ExportError(f"compiled stages: another {name} for {wrong} of {len(found[name])} users")
            else:
                worst = float(np.max([worst, _difference(funnel, part, name, found, expected)]))  # NaN if one is
    if not worst <= TOLERANCE:
        raise ExportError(f"compiled stages: scores differ by {worst:.1e}, at most {TOLERANCE:.0e} is allowed")
    return worst


def _difference(
    funnel: Funnel, part: NativeStages, name: str, found: Mapping[str, Any], expected: Mapping[str, Any]
) -> float:
    """Returns the largest difference of an output that is no index."""
    if name in LISTS.values():  # with what they are the scores of
        return 0.0
    if name not in LISTS:
        valid = (
            expected["candidate_index"] >= 0 if name == "ranking_score" else np.ones_like(expected[name], dtype=bool)
        )
        difference = np.where(valid, np.abs(found[name] - expected[name]), 0)
        return float((difference.max(axis=1) / _span(expected[name], valid)).max())
    keys, scores = name, LISTS[name]
    differences = []
    for row, scale in enumerate(_span(expected[scores], expected[keys] >= 0)):
        one = dict(zip(expected[keys][row].tolist(), expected[scores][row].tolist(), strict=True))
        other = dict(zip(found[keys][row].tolist(), found[scores][row].tolist(), strict=True))
        worst = np.max([0.0, *(abs(one[key] - other[key]) / scale for key in one.keys() & other.keys())])
        # Those whose scores are equal to the last one's may be left out for each other.
        last, held = min(one.values()) + TOLERANCE * scale, one | other
        if alone := sorted(key for key in one.keys() ^ other.keys() if held[key] > last):
            margin = _margin(funnel, expected, row, keys, alone) if "retrieval" in part.names else np.inf
            worst = np.max([worst, margin])
        differences.append(worst)
    if "retrieval" in part.names:
        _forgive(funnel, np.flatnonzero(np.array(differences) > TOLERANCE), expected, differences)
    return float(np.max(differences))


def _forgive(funnel: Funnel, rows: np.ndarray, expected: Mapping[str, Any], differences: list[float]) -> None:
    """Drops the differences of users of whom rounding decides which lists of the index are looked into, as long as they are few:
    one list more or less changes the candidates, and with them what a ranker makes of each."""
    index = cast("Any", funnel.stages[2]).index
    if len(rows) > FORGIVEN * len(differences):
        return
    for row in rows:
        if index.borderline(expected["query"][row], np.arange(index.catalogue_size)).any():
            differences[row] = 0.0


def _span(scores: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """What the valid scores of each row span, at least 1."""
    lowest = np.where(valid, scores, np.inf).min(axis=1)
    return np.maximum(
        np.where(valid, scores, -np.inf).max(axis=1) - lowest, 1, where=valid.any(axis=1), out=np.ones(len(scores))
    )


def _margin(funnel: Funnel, expected: Mapping[str, Any], row: int, keys: str, alone: list[int]) -> float:
    """How far items that only one of two lists holds are from being the last candidate, or from not being looked at."""
    features, _, search, *_ = cast("tuple[Any, ...]", funnel.stages)
    query, index = expected["query"][row], np.array(alone)
    items = index if keys == "candidate_index" else np.searchsorted(features.item_ids, index)
    items = items[~search.index.borderline(query, items)]
    candidates = expected["retrieval_score"][row][expected["candidate_index"][row] >= 0]
    apart = np.abs(search.index.vectors(items) @ query - candidates.min())
    return float(apart.max(initial=0) / max(1, np.ptp(candidates)))


def _measure(funnel: Funnel, users: np.ndarray, batch: int, calls: int) -> Cost:
    spent: tuple[list[float], list[float]] = [], []
    with threadpool_limits(1):
        for call in range(calls + 1):
            first = call * batch % max(1, len(users) - batch + 1)
            asked = users[first : first + batch]
            inputs = {"user_id": asked, "history": None}
            for times, run in zip(spent, (funnel.staged, funnel.run), strict=True):
                start = time.perf_counter()
                run(**inputs)
                times.append((time.perf_counter() - start) / len(asked))
    return Cost(batch, *(statistics.median(times[1:]) * 1e6 for times in spent))


def _without(funnel: Funnel) -> Funnel:
    def plain(stage: Stage) -> Stage:
        return type(stage)(stage.model) if isinstance(stage, UserTower | Ranking) else stage

    return Funnel([plain(stage) for stage in funnel.stages])
