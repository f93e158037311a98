"""The gate: what quantisation and approximate search cost the funnel, and whether pipeline.yaml allows it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from trireme_export.checkpoint import Checkpoint
from trireme_export.errors import ExportError
from trireme_export.evaluation import evaluate_lists
from trireme_export.evaluation.funnel import Ask, offline_lists, served_lists
from trireme_runtime.stages.chain import Funnel

__all__ = ["check_gate"]


def check_gate(checkpoint: Checkpoint, funnel: Funnel) -> dict[str, Any]:
    """Compares the exported funnel with the float32 models and exact search on the test users.

    Returns:
        ``{"users", "float": {"ndcg@10", "recall@20", "recall@200"}, "exported": {the same}, "ndcg_loss", "recall_loss"}``, losses
        relative; ``{"users": 0}`` where the checkpoint has no test part and nothing was measured.

    Raises:
        ExportError: a loss is greater than the ``gate:`` section allows; the message names both figures.
    """
    if checkpoint.test is None:
        return {"users": 0}
    gate, serving = checkpoint.config.gate, checkpoint.config.serving
    chosen = np.random.default_rng(0).permutation(checkpoint.test.n_users)[: gate.users]
    users = checkpoint.test.take(np.sort(chosen))
    lists = offline_lists(checkpoint.models, checkpoint.tables, users, serving.candidates, serving.list_length)
    expected = evaluate_lists(lists, users)
    found = evaluate_lists(served_lists(_asker(funnel), checkpoint.tables, users), users)
    record: dict[str, Any] = {"users": users.n_users, "float": expected, "exported": found}
    for name, metric, allowed in (
        ("ndcg_loss", "ndcg@10", gate.ndcg_loss),
        ("recall_loss", "recall@200", gate.recall_loss),
    ):
        loss = 1 - found[metric] / expected[metric] if expected[metric] > 0 else 0.0
        if loss > allowed:
            raise ExportError(
                f"the exported funnel has {metric} {found[metric]:.4f}, the float models with exact search "
                f"{expected[metric]:.4f}: a loss of {loss:.2%}, allowed by gate.{name}: {allowed:.2%}"
            )
        record[name] = loss
    return record


def _asker(funnel: Funnel) -> Ask:
    length = funnel.stages[0].history.shape[1]  # type: ignore[attr-defined]  # the first stage is feature_transform

    def ask(users: Sequence[int], histories: Sequence[np.ndarray] | None) -> np.ndarray:
        user_id = np.asarray(users, dtype=np.int64)[:, None]
        if histories is None:
            return funnel(user_id).item_id
        history = np.full((len(users), length), -1, dtype=np.int64)
        for row, given in zip(history, histories, strict=True):
            newest = given[-length:]
            row[length - len(newest) :] = newest
        return funnel(user_id, history).item_id

    return ask
