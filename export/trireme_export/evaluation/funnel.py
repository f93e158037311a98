"""The lists of the funnel, to be evaluated: offline in PyTorch with exact search, and as served.

Both follow one procedure, so that their figures can be compared: candidates leave out what the server knows to be
seen (all of a known user's training items, the history given for an unknown one); every item of
the user's past is then dropped from the ranked list, as the protocol asks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from trireme_export.data.evaluation_set import EvaluationSet
from trireme_export.data.histories import append_history_size, gather_history
from trireme_export.models import TrainedModels
from trireme_export.tables import Tables
from trireme_runtime.arrays import contains, lookup, ragged_rows, stable_partition
from trireme_runtime.select import top_columns
from trireme_runtime.stages.reranking import Slate

__all__ = ["Answering", "Ask", "drop_past", "offline_lists", "served_lists"]

CHUNK = 256
#: Scores of items that are held at a time.
SCORES = 1 << 25

#: Returns lists for (user ids, −1 is anonymous; histories or None): item ids int64 [users, K], −1 is padding.
Ask = Callable[[Sequence[int], Sequence[np.ndarray] | None], np.ndarray]
#: What a funnel is to those who ask it: (user_id int64 [n, 1], history int64 [n, L] or None) → lists.
Answering = Callable[[np.ndarray, "np.ndarray | None"], Slate]


def offline_lists(
    models: TrainedModels,
    tables: Tables,
    evaluation: EvaluationSet,
    candidates: int,
    k: int,
    context: np.ndarray | None = None,
) -> np.ndarray:
    """Returns what the trained models answer, in float32 and with exact search: item indices int32 [E, k].

    ``context``: of each request, int32 [E, C]; None is unknown.
    """
    tower, ranker = models.two_tower.precompute(), models.ranker.precompute()
    with torch.inference_mode():
        vectors = models.two_tower.item_vectors().numpy()
    parts = []
    for rows in evaluation.chunks(max(1, min(CHUNK, SCORES // len(vectors)))):
        history, category, number = _inputs(tables, evaluation, rows)
        if context is not None:
            category[:, category.shape[1] - context.shape[1] :] = context[rows]
        given = tuple(map(torch.from_numpy, (history, category, number)))
        with torch.inference_mode():
            query = tower(*given)
        score = query.numpy() @ vectors.T
        score[_excluded(tables, evaluation, rows, history)] = -np.inf
        index, best = top_columns(score, candidates)
        with torch.inference_mode():
            ranking = ranker(query, *given, torch.from_numpy(index), torch.from_numpy(best)).numpy()
        order = np.argsort(-np.where(index >= 0, ranking, -np.inf), axis=1, kind="stable")
        parts.append(np.take_along_axis(index, order, axis=1)[:, :k])
    return drop_past(np.concatenate(parts), evaluation, tables.item_ids.size)


def served_lists(ask: Ask, tables: Tables, evaluation: EvaluationSet) -> np.ndarray:
    """Returns what a server answers: item indices int32 [E, K]. For users it does not know, their history is sent.

    An item id that the checkpoint does not know counts as a miss: −1.
    """
    parts = []
    for rows in evaluation.chunks(CHUNK):
        if (evaluation.user_row[rows] >= 0).all():
            answer = ask(evaluation.user_id[rows].tolist(), None)
        else:
            history, _, _ = _inputs(tables, evaluation, rows)
            answer = ask([-1] * rows.size, [tables.item_ids[row[row >= 0]] for row in history])
        parts.append(lookup(tables.item_ids, answer))
    return drop_past(np.concatenate(parts), evaluation, tables.item_ids.size)


def _inputs(tables: Tables, evaluation: EvaluationSet, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns history_index, user_category and user_number of the users at ``rows``."""
    offsets = evaluation.history_offsets
    length = tables.history.shape[1]
    history = gather_history(evaluation.history_items, offsets[rows], offsets[rows + 1], length)
    user = evaluation.user_row[rows]
    return history, tables.category[user], append_history_size(tables.number[user], history)


def _excluded(tables: Tables, evaluation: EvaluationSet, rows: np.ndarray, history: np.ndarray) -> np.ndarray:
    """Returns what the server leaves out of the candidates: bool [b, N]."""
    mask = np.zeros((rows.size, tables.item_ids.size), dtype=bool)
    user = evaluation.user_row[rows].astype(np.int64)
    position, item = ragged_rows(
        tables.seen_offsets, tables.seen_items, np.where(user < 0, tables.seen_offsets.size - 2, user)
    )
    mask[position, item] = True
    row, column = np.nonzero(history >= 0)
    mask[row, history[row, column]] = True
    return mask


def drop_past(lists: np.ndarray, evaluation: EvaluationSet, catalogue_size: int) -> np.ndarray:
    """Returns ``lists`` (item indices int32 [E, K]) without the items of each user's past, which make room for what follows."""
    user = np.repeat(np.arange(evaluation.n_users), np.diff(evaluation.history_offsets))
    keep = (lists >= 0) & ~contains(user, evaluation.history_items, lists, catalogue_size)
    order = stable_partition(keep, lists.shape[1])
    return np.where(np.take_along_axis(keep, order, axis=1), np.take_along_axis(lists, order, axis=1), np.int32(-1))
