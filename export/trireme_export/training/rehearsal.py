"""Whether the ranker is better than the retrieval order when it is served, found by a rehearsal.

A ranker learns from the lists of one tower, and is served with another that was trained later, on newer data, and with item
tables to match. The rehearsal does the same in small, so that something is left to judge by: its newer tower has not seen the
later half of the slice; where users share no clock, it has not seen what a third of the users of the slice took in it, and
its ranker has not learned from them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from trireme_export.data.training_data import TrainingData
from trireme_export.models.two_tower import TwoTower
from trireme_export.training.examples import clock_of
from trireme_export.training.options import TrainingConfig
from trireme_export.training.ranker import (
    Lists,
    RankerTrainer,
    draw_lists,
    metrics_by_score,
    ranking_scores,
    standard_score,
)
from trireme_export.training.two_tower import Report, TowerTrainer
from trireme_export.training.validation import Slice, cut_slice

__all__ = ["Rehearsal", "plan_rehearsal", "rehearse"]

#: Users of the slice are judged in the rehearsal, one of so many, where users share no clock.
PARTS = 3


@dataclass(frozen=True)
class Rehearsal:
    """What the newer tower is trained on, whom the ranker learns from, and the users who judge both."""

    older: TrainingData
    learners: np.ndarray
    """int, positions in the lists."""
    hits: np.ndarray
    """bool (V, C), what the ranker learns."""
    judged: Slice


def plan_rehearsal(data: TrainingData, lists: Lists, cut: float, config: TrainingConfig) -> Rehearsal:
    """Divides the data after the clock ``cut``, where the slice of ``lists`` begins."""
    clock, part, rng = clock_of(data), lists.part, np.random.default_rng(config.seed)
    everybody = np.arange(len(part.rows))
    if data.shared_clock:
        middle = (1.0 + cut) / 2
        judged = cut_slice(data, middle, config.history_length, config.ranker.max_users, rng)
        return Rehearsal(data.keep(clock < middle), everybody, lists.early, judged)
    chosen = rng.permutation(everybody) % PARTS == 0
    hidden = np.isin(data.users, part.rows[chosen]) & (clock >= cut)
    return Rehearsal(data.keep(~hidden), np.flatnonzero(~chosen), lists.hits, part.take(np.flatnonzero(chosen)))


def rehearse(
    rankers: RankerTrainer,
    tower: TwoTower,
    lists: Lists,
    cut: float,
    steps: int,
    record: dict[str, Any],
    report: Report,
) -> dict[str, Any]:
    """Returns the record of a ranker, with the judgement of the rehearsal in place of its own.

    Args:
        rankers: what the ranker was trained by.
        tower: the one that drew ``lists``, trained on the past before the clock ``cut``.
        lists: what the ranker was trained on.
        cut: where their slice begins.
        steps: of the newer tower.
        record: what ``RankerTrainer.fit`` returned. There is nothing to judge where it switches the ranker off.
        report: is told of the progress.
    """
    if not record["beats_retrieval"]:
        return record
    plan = plan_rehearsal(rankers.data, lists, cut, rankers.config)
    if not len(plan.judged.rows):
        return record
    newer = RankerTrainer(plan.older, rankers.shape, rankers.config)
    ranker = rankers.learn(tower, lists, plan.learners, plan.hits, record["chosen_epochs"], cut)
    newer_tower = TowerTrainer(plan.older, rankers.shape, rankers.config).refit(steps, report, "two-tower, rehearsal")
    newer.tables(ranker, newer_tower, 1.0, ranker.vectors.numpy().copy())
    found = draw_lists(newer_tower, plan.older, plan.judged, rankers.config.ranker.candidates)
    base = standard_score(found)
    score = base + record["blend"] * (ranking_scores(ranker, found, np.arange(len(plan.judged.rows))) - base)
    retrieval, ranked = metrics_by_score(found, base), metrics_by_score(found, score)
    beats = ranked["ndcg@10"] > retrieval["ndcg@10"]
    served = {"users": len(plan.judged.rows), "retrieval": retrieval, "ranked": ranked}
    return {**record, "served": served, "beats_retrieval": beats, "blend": record["blend"] if beats else 0.0}
