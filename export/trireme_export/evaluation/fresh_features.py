"""What a feature store is worth: lists that know what users took a moment ago, against those of the bundle's snapshot.

Figures are means over a user's moments, then over users, so that each user counts once. Intervals come from the bootstrap of
users, as the moments of one depend on each other.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from trireme_export.evaluation.funnel import drop_past, offline_lists
from trireme_export.evaluation.metrics import LONGEST, hits, user_metrics
from trireme_export.evaluation.moments import Moments
from trireme_export.models import TrainedModels
from trireme_export.tables import Tables

__all__ = ["CONTEXT", "FRESH", "SNAPSHOT", "WITHOUT_TAKEN", "compare_lists", "moment_lists", "ratio_of_means"]

#: The lists: of the bundle's snapshot; the same without what users took since; of the snapshot with what a store holds;
#: with the context of the request as well, where the data has one.
SNAPSHOT, WITHOUT_TAKEN, FRESH, CONTEXT = "snapshot", "without_taken", "fresh", "context"
CONFIDENCE, RESAMPLES = 0.95, 2000
#: Entries of a table of resamples that are held at a time.
TABLE = 1 << 22


def moment_lists(
    models: TrainedModels, tables: Tables, moments: Moments, candidates: int, k: int
) -> dict[str, np.ndarray]:
    """Returns what the models answer at each moment, in float32 and with exact search: item indices int32 [M, k], by kind."""
    _, first, user = np.unique(moments.user_row, return_index=True, return_inverse=True)
    frozen = offline_lists(models, tables, moments.take(first).asked(tables, with_fresh=False), candidates, k)[user]
    known = moments.asked(tables, with_fresh=True)
    lists = {
        SNAPSHOT: frozen,
        WITHOUT_TAKEN: drop_past(frozen, known, tables.item_ids.size),
        FRESH: offline_lists(models, tables, known, candidates, k),
    }
    if moments.context is not None:
        lists[CONTEXT] = offline_lists(models, tables, known, candidates, k, moments.context)
    return lists


def compare_lists(lists: Mapping[str, np.ndarray], moments: Moments, longest: int = LONGEST) -> dict[str, Any]:
    """Compares lists (item indices int32 [M, K]) with those of SNAPSHOT, which is one of them.

    Returns:
        ``{"users", "moments", "targets", "lists": {kind: {metric: mean}}, "ratios": {other kind: {metric: {"value", "low",
        "high"}}}}``; a ratio, and its interval of 95 %, is that to the snapshot, None where that has no hit. For the metrics and
        ``longest`` see ``user_metrics``.
    """
    _, user = np.unique(moments.user_row, return_inverse=True)
    values = {kind: _user_means(ranked, moments, user, longest) for kind, ranked in lists.items()}
    frozen = values[SNAPSHOT]
    return {
        "users": int(user.max(initial=-1)) + 1,
        "moments": int(user.size),
        "targets": int(moments.relevant_items.size),
        "lists": {
            kind: {metric: float(value.mean()) for metric, value in found.items()} for kind, found in values.items()
        },
        "ratios": {
            kind: {metric: ratio_of_means(frozen[metric], value) for metric, value in found.items()}
            for kind, found in values.items()
            if kind != SNAPSHOT
        },
    }


def _user_means(ranked: np.ndarray, moments: Moments, user: np.ndarray, longest: int) -> dict[str, np.ndarray]:
    """The metrics of each user, float64 [users]."""
    hit = hits(ranked, moments.relevant_offsets, moments.relevant_items)
    found = user_metrics(hit, moments.relevant_count, longest)
    return {metric: np.bincount(user, value) / np.bincount(user) for metric, value in found.items()}


def ratio_of_means(before: np.ndarray, after: np.ndarray) -> dict[str, float] | None:
    """Returns mean ``after`` ÷ mean ``before`` (both float64 [users]) as ``value``, and the ``low`` and ``high`` end of its
    percentile interval by the bootstrap of users; None where ``before`` is 0 for all of them."""
    if not before.any():
        return None
    users = before.size
    pairs = np.stack([before, after], axis=1)
    rng = np.random.default_rng(0)
    step = max(1, TABLE // users)
    sums = np.concatenate(
        [
            rng.multinomial(users, np.full(users, 1 / users), min(step, RESAMPLES - start)) @ pairs
            for start in range(0, RESAMPLES, step)
        ]
    )
    sums = sums[sums[:, 0] > 0]
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(sums[:, 1] / sums[:, 0], [tail, 1 - tail])
    return {"value": float(after.mean() / before.mean()), "low": float(low), "high": float(high)}
