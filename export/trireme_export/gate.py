"""The gate: what quantisation and approximate search cost the funnel, and whether it is better than no model.

What was not measured has not passed. A fault can be waived by its name; the record, which the manifest keeps, then says so.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from trireme_export.checkpoint import Checkpoint
from trireme_export.config import GateConfig
from trireme_export.errors import ExportError, GateError
from trireme_export.evaluation import evaluate_lists, evaluate_popularity
from trireme_export.evaluation.funnel import Answering, Ask, offline_lists, served_lists

__all__ = ["FAULTS", "check_gate"]

#: What the gate may find, by the name that waives it.
FAULTS = ("measurement", "ndcg_loss", "recall_loss", "popularity")
LOSSES = {"ndcg_loss": "ndcg@10", "recall_loss": "recall@200"}
#: Popularity needs no model: lists that are worse than it show that something is wrong.
FLOOR = "ndcg@10"


def check_gate(checkpoint: Checkpoint, funnel: Answering, waive: Collection[str] = ()) -> dict[str, Any]:
    """Compares the exported funnel on the test users with the float32 models and exact search, and with popularity.

    Args:
        checkpoint: what was exported; its ``gate:`` section says what may be lost.
        funnel: as exported.
        waive: those of ``FAULTS`` that are recorded and let through.

    Returns:
        ``{"verdict": "passed" or "waived", "users", "float": {"ndcg@10", "recall@20", "recall@200"}, "exported": {the same},
        "popularity": {the same}, "ndcg_loss", "recall_loss", "faults": {name: what was found}}``. Losses are relative, and None
        where the float models have no hit. Without a test part, there are only ``verdict``, ``users`` and ``faults``.

    Raises:
        ExportError: ``waive`` holds another name.
        GateError: there is a fault that is not waived, which the message explains.
    """
    for name in waive:
        if name not in FAULTS:
            raise ExportError(f"the gate has no fault {name!r} to waive; allowed: {', '.join(FAULTS)}")
    record = _measure(checkpoint, funnel)
    faults = dict(_faults(record, checkpoint.config.gate))
    record["faults"] = faults
    refused = [name for name in faults if name not in waive]
    record["verdict"] = "failed" if refused else "waived" if faults else "passed"
    if refused:
        raise GateError(
            f"gate: {'; '.join(faults[name] for name in refused)}. To export all the same, waive it: "
            f"trireme export {' '.join(f'--waive-gate {name}' for name in refused)}",
            record,
        )
    return record


def _measure(checkpoint: Checkpoint, funnel: Answering) -> dict[str, Any]:
    if checkpoint.test is None:
        return {"users": 0}
    gate, serving, tables = checkpoint.config.gate, checkpoint.config.serving, checkpoint.tables
    chosen = np.random.default_rng(0).permutation(checkpoint.test.n_users)[: gate.users]
    users = checkpoint.test.take(np.sort(chosen))
    lists = offline_lists(checkpoint.models, tables, users, serving.candidates, serving.list_length)
    expected = evaluate_lists(lists, users)
    found = evaluate_lists(served_lists(_asker(funnel, tables.history.shape[1]), tables, users), users)
    taken = np.bincount(tables.seen_items, minlength=tables.item_ids.size)
    return {
        "users": users.n_users,
        "float": expected,
        "exported": found,
        "popularity": evaluate_popularity(taken, users),
        **{name: _loss(expected[metric], found[metric]) for name, metric in LOSSES.items()},
    }


def _loss(expected: float, found: float) -> float | None:
    return 1 - found / expected if expected > 0 else None


def _faults(record: Mapping[str, Any], gate: GateConfig) -> Iterator[tuple[str, str]]:
    """Yields the name of each fault of what was measured, and what is wrong."""
    if not record["users"]:
        yield (
            "measurement",
            "the checkpoint has no test part, so nothing was measured: no user of the training has an item in the test "
            "that is in the training and new to them. Train again with a larger data.test_fraction, or with "
            "data.split_by: user, in pipeline.yaml",
        )
        return
    expected, found, popularity = record["float"], record["exported"], record["popularity"]
    unmeasured = [LOSSES[name] for name in LOSSES if record[name] is None]
    if unmeasured:
        yield (
            "measurement",
            f"the float models with exact search have {' and '.join(unmeasured)} 0 on {record['users']} test users, so "
            "a loss cannot be measured: look at `trireme evaluate`",
        )
    for name, metric in LOSSES.items():
        allowed = getattr(gate, name)
        if record[name] is not None and record[name] > allowed:
            yield (
                name,
                f"the exported funnel has {metric} {found[metric]:.4f}, the float models with exact search "
                f"{expected[metric]:.4f}: a loss of {record[name]:.2%}, allowed by gate.{name}: {allowed:.2%}",
            )
    if found[FLOOR] < popularity[FLOOR]:
        yield (
            "popularity",
            f"the exported funnel has {FLOOR} {found[FLOOR]:.4f}, the list of the most popular items "
            f"{popularity[FLOOR]:.4f}: the models are worse than no model",
        )


def _asker(funnel: Answering, length: int) -> Ask:
    def ask(users: Sequence[int], histories: Sequence[np.ndarray] | None) -> np.ndarray:
        user_id = np.asarray(users, dtype=np.int64)[:, None]
        if histories is None:
            return funnel(user_id, None).item_id
        history = np.full((len(users), length), -1, dtype=np.int64)
        for row, given in zip(history, histories, strict=True):
            newest = given[-length:]
            row[length - len(newest) :] = newest
        return funnel(user_id, history).item_id

    return ask
