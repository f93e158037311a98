"""Fits all baselines: the settings of each are chosen on a validation part, then it is fitted on all of the training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from trireme_export.data.dataset import Dataset
from trireme_export.data.evaluation_set import EvaluationSet
from trireme_export.evaluation.baselines.ease import EASE
from trireme_export.evaluation.baselines.ials import IALS
from trireme_export.evaluation.baselines.item_knn import ITEM_KNN
from trireme_export.evaluation.baselines.method import Method, Scorer, Settings
from trireme_export.evaluation.baselines.positives import Positives, histories
from trireme_export.evaluation.baselines.recent_popularity import RECENT_POPULARITY
from trireme_export.evaluation.lists import score_lists
from trireme_export.evaluation.metrics import LONGEST, evaluate_lists

__all__ = ["METHODS", "Baselines", "Fitted", "evaluate_baselines", "fit_baselines"]

METHODS = (RECENT_POPULARITY, IALS, EASE, ITEM_KNN)
#: Places of the lists that the settings are chosen by.
JUDGED = 10

Report = Callable[[str], None]
"""Called with the name of each baseline before it is fitted."""


@dataclass(frozen=True)
class Fitted:
    """A baseline with its chosen settings."""

    settings: Settings
    scorer: Scorer


@dataclass(frozen=True)
class Baselines:
    """What was fitted, by name, and what was left out, with the reason."""

    fitted: dict[str, Fitted]
    left_out: dict[str, str]
    catalogue_size: int


def fit_baselines(dataset: Dataset, report: Report = lambda name: None) -> Baselines:
    """Fits every baseline on the training part of ``dataset``."""
    positives = Positives.of(dataset)
    refusals = {method.name: method.refusal(positives) for method in METHODS}
    left_out = {name: reason for name, reason in refusals.items() if reason is not None}
    methods = [method for method in METHODS if method.name not in left_out]
    older, newer = positives.split()
    fitted = {}
    for method in methods:
        report(method.name)
        fitted[method.name] = _choose(method, positives, older, newer)
    return Baselines(fitted, left_out, positives.catalogue_size)


def evaluate_baselines(
    baselines: Baselines, evaluation: EvaluationSet, longest: int = LONGEST
) -> dict[str, dict[str, float]]:
    """Returns the metrics of every fitted baseline, by name. For ``longest`` see ``mean_metrics``."""
    return {
        name: _evaluate(one.scorer, evaluation, baselines.catalogue_size, longest)
        for name, one in baselines.fitted.items()
    }


def _choose(method: Method, positives: Positives, older: Positives, newer: EvaluationSet) -> Fitted:
    """Chooses the settings with the best NDCG@10 on the newer part; the first ones where nobody can be evaluated on it."""

    def validate(settings: Settings) -> float:
        return _evaluate(method.fit(older, **settings), newer, older.catalogue_size, JUDGED)["ndcg@10"]

    settings = max(method.grid, key=validate) if newer.n_users else method.grid[0]
    return Fitted(settings, method.fit(positives, **settings))


def _evaluate(scorer: Scorer, evaluation: EvaluationSet, catalogue_size: int, longest: int) -> dict[str, float]:
    lists = score_lists(
        lambda rows: scorer.score(histories(evaluation, rows, catalogue_size)),
        evaluation,
        catalogue_size,
        min(LONGEST, longest),
    )
    return evaluate_lists(lists, evaluation, longest)
