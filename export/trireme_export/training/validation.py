"""A slice of the end of the training data, judged by the evaluation protocol, to choose epochs and to teach the ranker."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from .data import Int32, TrainingData, gather_history
from .examples import clock_of

Scorer = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Slice:
    """Users with a past before the cut and something new after it.

    `rows` int64 (V,), `history` int32 (V, L), `seen` and `relevant` sparse (V, N) of zeros and ones.
    """

    rows: np.ndarray
    history: Int32
    seen: sp.csr_matrix
    relevant: sp.csr_matrix

    def take(self, index: np.ndarray) -> Slice:
        """The users at `index`."""
        return Slice(self.rows[index], self.history[index], self.seen[index], self.relevant[index])


def cut_slice(data: TrainingData, cut: float, length: int, max_users: int, rng: np.random.Generator) -> Slice:
    """The slice after the clock `cut`; items must occur before it, seen items are not relevant."""
    user = np.repeat(np.arange(data.n_users), np.diff(data.user_offsets))
    past = clock_of(data) < cut
    seen = _incidence(data, user, past)
    known = (np.asarray(seen.sum(axis=0)).ravel() > 0).astype(np.float32)
    later = _incidence(data, user, ~past)
    relevant = ((later - later.multiply(seen)) @ sp.diags(known)).tocsr()
    relevant.eliminate_zeros()
    rows = np.flatnonzero((np.diff(relevant.indptr) > 0) & (np.diff(seen.indptr) > 0))
    if len(rows) > max_users:
        rows = np.sort(rng.choice(rows, max_users, replace=False))
    before = np.bincount(user[past], minlength=data.n_users)[rows]
    start = data.user_offsets[rows]
    history = gather_history(data.user_items, start, start + before, length)
    return Slice(rows, history, seen[rows], relevant[rows])


def _incidence(data: TrainingData, user: np.ndarray, chosen: np.ndarray) -> sp.csr_matrix:
    ones = np.ones(int(chosen.sum()), dtype=np.float32)
    table = sp.csr_matrix((ones, (user[chosen], data.user_items[chosen])), shape=(data.n_users, data.n_items))
    table.sum_duplicates()
    table.data[:] = 1.0
    return table


def top_candidates(part: Slice, score: Scorer, count: int, block: int = 512) -> tuple[Int32, np.ndarray]:
    """The best `count` unseen items per user: `candidate_ids` int32 (V, count), `retrieval_score` float32, best first.

    Where a catalogue has fewer, the rest is -1 with a score of -inf. `score` maps positions in the slice to float32 (b, N).
    """
    total, n = part.seen.shape
    width = min(count, n)
    ids = np.full((total, count), -1, dtype=np.int32)
    scores = np.full((total, count), -np.inf, dtype=np.float32)
    for low in range(0, total, block):
        index = np.arange(low, min(low + block, total))
        value = np.array(score(index), dtype=np.float32)
        seen = part.seen[index]
        value[np.repeat(np.arange(len(index)), np.diff(seen.indptr)), seen.indices] = -np.inf
        top = np.argpartition(-value, width - 1, axis=1)[:, :width]
        best = np.take_along_axis(value, top, axis=1)
        order = np.argsort(-best, axis=1, kind="stable")
        best = np.take_along_axis(best, order, axis=1)
        ids[index, :width] = np.where(np.isfinite(best), np.take_along_axis(top, order, axis=1), -1)
        scores[index, :width] = best
    return ids, scores


def hits_of(part: Slice, ids: Int32, block: int = 1024) -> np.ndarray:
    """bool, the shape of `ids`: whether the candidate is relevant."""
    out = np.zeros(ids.shape, dtype=bool)
    for low in range(0, len(ids), block):
        rows = slice(low, low + block)
        dense = part.relevant[rows].toarray() > 0
        out[rows] = np.take_along_axis(dense, np.maximum(ids[rows], 0), axis=1) & (ids[rows] >= 0)
    return out


def list_metrics(part: Slice, hits: np.ndarray) -> dict[str, float]:
    """Means over users of NDCG@10, Recall@20 (over min(20, relevant)) and Recall@200 (all of the list)."""
    relevant = np.diff(part.relevant.indptr)
    gain = 1.0 / np.log2(np.arange(2, 12))
    first = hits[:, :10]
    ideal = np.cumsum(gain)[np.minimum(relevant, 10) - 1]
    return {
        "ndcg@10": float((first @ gain[: first.shape[1]] / ideal).mean()),
        "recall@20": float((hits[:, :20].sum(axis=1) / np.minimum(20, relevant)).mean()),
        "recall@200": float((hits.sum(axis=1) / np.minimum(200, relevant)).mean()),
    }
