"""A slice of the end of the training data, judged by the evaluation protocol, to choose epochs and to teach the ranker."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from trireme_export.data.histories import Int32, gather_history
from trireme_export.data.training_data import TrainingData
from trireme_export.evaluation.metrics import mean_metrics
from trireme_export.training.examples import clock_of
from trireme_runtime.arrays import contains

#: Scores of items that are held at a time.
SCORES = 1 << 25

Scorer = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Slice:
    """V users with a past before the cut and something new after it."""

    rows: np.ndarray
    """int64 (V,), rows of the training data."""
    history: Int32
    """int32 (V, L), what was taken before the cut, left-padded with −1."""
    seen: sp.csr_matrix
    """(V, N) of zeros and ones: taken before the cut."""
    relevant: sp.csr_matrix
    """(V, N) of zeros and ones: taken after the cut and not seen."""
    late: sp.csr_matrix
    """The part of ``relevant`` from the later half of the slice; all of it where users share no clock."""
    context: Int32 | None = None
    """int32 (V, C), that of the user's first positive after the cut; only what was taken in it counts. None without a context."""

    def take(self, positions: np.ndarray) -> Slice:
        """Returns only the users at ``positions`` int [v]."""
        relevant = self.relevant[positions]
        late = self.late[positions] if self.halves else relevant
        context = None if self.context is None else self.context[positions]
        return Slice(self.rows[positions], self.history[positions], self.seen[positions], relevant, late, context)

    @property
    def halves(self) -> bool:
        """Whether ``late`` is only a part of ``relevant``."""
        return self.late is not self.relevant


def cut_slice(data: TrainingData, cut: float, length: int, max_users: int, rng: np.random.Generator) -> Slice:
    """Cuts the slice after the clock ``cut``; items must occur before it, and seen items are not relevant."""
    clock = clock_of(data)
    past = clock < cut
    seen = data.incidence(past)
    known = (np.asarray(seen.sum(axis=0)).ravel() > 0).astype(np.float32)
    context, asked = _contexts(data, past)
    relevant = _new_items(data.incidence(asked), seen, known)
    late = relevant
    if data.shared_clock:
        late = _new_items(data.incidence(asked & (clock >= (1.0 + cut) / 2)), seen, known)
    rows = np.flatnonzero((np.diff(relevant.indptr) > 0) & (np.diff(seen.indptr) > 0))
    if len(rows) > max_users:
        rows = np.sort(rng.choice(rows, max_users, replace=False))
    start = data.user_offsets[:-1]
    before = np.bincount(data.users[past], minlength=data.n_users)
    history = gather_history(data.user_items, start[rows], (start + before)[rows], length)
    relevant_rows = relevant[rows]
    late_rows = relevant_rows if late is relevant else late[rows]
    return Slice(rows, history, seen[rows], relevant_rows, late_rows, None if context is None else context[rows])


def _contexts(data: TrainingData, past: np.ndarray) -> tuple[Int32 | None, np.ndarray]:
    """Returns the context of each user's first positive that is not ``past`` (bool (P,)), int32 (U, C), and which positives
    are neither past nor of another context: bool (P,)."""
    if data.context is None:
        return None, ~past
    after, user = np.flatnonzero(~past), data.users
    found, first = np.unique(user[after], return_index=True)
    context = np.zeros((data.n_users, data.context.shape[1]), np.int32)
    context[found] = data.context[after[first]]
    return context, ~past & (data.context == context[user]).all(axis=1)


def _new_items(taken: sp.csr_matrix, seen: sp.csr_matrix, known: np.ndarray) -> sp.csr_matrix:
    new = ((taken - taken.multiply(seen)) @ sp.diags(known)).tocsr()
    new.eliminate_zeros()
    return new


def top_candidates(part: Slice, score: Scorer, count: int) -> tuple[Int32, np.ndarray]:
    """Returns the best ``count`` unseen items per user, best first: item indices int32 (V, count) and scores float32.

    Where a catalogue has fewer, the rest is -1 with a score of -inf. ``score`` maps positions in the slice to float32 (b, N).
    """
    total, n = part.seen.shape
    width, block = min(count, n), max(1, min(512, SCORES // n))
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


def hits_of(relevant: sp.csr_matrix, ids: Int32) -> np.ndarray:
    """Marks the candidates that are in the user's row of ``relevant`` (V, N): bool, the shape of ``ids``."""
    rows, n = relevant.shape
    return contains(np.repeat(np.arange(rows), np.diff(relevant.indptr)), relevant.indices, ids, n)


def list_metrics(relevant: sp.csr_matrix, hits: np.ndarray) -> dict[str, float]:
    """Returns the metrics of the evaluation, from ``relevant`` (V, N) and the ``hits`` bool (V, count) of ranked lists."""
    return mean_metrics(hits, np.diff(relevant.indptr))
