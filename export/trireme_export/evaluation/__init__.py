"""How good lists are: metrics, popular lists, and the lists of the funnel and of baselines."""

from __future__ import annotations

from trireme_export.evaluation.lists import (
    evaluate_popularity,
    popular_order,
    popularity_lists,
    score_lists,
)
from trireme_export.evaluation.metrics import METRICS, evaluate_lists, hits, mean_metrics, ndcg_at_k, recall_at_k

__all__ = [
    "METRICS",
    "evaluate_lists",
    "evaluate_popularity",
    "hits",
    "mean_metrics",
    "ndcg_at_k",
    "popular_order",
    "popularity_lists",
    "recall_at_k",
    "score_lists",
]
