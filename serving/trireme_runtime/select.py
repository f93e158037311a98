"""Top-k of every row of a score matrix, without sorting more than what is kept.

−inf marks entries that are never taken. Ties go to the lower column, so that an answer does not depend on its batch.
"""

from __future__ import annotations

import numpy as np

__all__ = ["descending", "flat", "top_columns"]

#: Entries of a row that are looked at to guess where its k-th largest lies.
SAMPLE = 500
#: Up to so many rows are done one by one: the batched steps cost more than they save.
FEW = 2


def top_columns(score: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k largest entries of every row, in no order of score.

    A sample of the row gives a bound that the k-th largest entry exceeds almost surely; only what is above it is
    partitioned. Rows for which the guess was wrong are done again in full, so the result is exact.

    Args:
        score: float32 [batch, n], without NaN.
        k: at least 1.

    Returns:
        ``(column int32 [batch, k], score float32 [batch, k])``: columns ascending; where fewer than k entries are
        finite, −1 with a score of 0 at the end.
    """
    rows, n = score.shape
    column = np.full((rows, k), -1, dtype=np.int32)
    value = np.zeros((rows, k), dtype=np.float32)
    done = _by_threshold(score, k, column, value) if rows > FEW and n > 2 * k else np.zeros(rows, dtype=bool)
    for row in np.flatnonzero(~done):
        best = _top_of_row(score[row], k)
        column[row, : best.size] = best
        value[row, : best.size] = score[row, best]
    return column, value


def _top_of_row(score: np.ndarray, k: int) -> np.ndarray:
    """The columns of a row, ascending."""
    kth = np.float32(-np.inf) if score.size <= k else np.partition(score, score.size - k)[score.size - k]
    best = np.flatnonzero(score >= kth) if kth > -np.inf else np.flatnonzero(score > -np.inf)
    if best.size > k:  # several are equal to the k-th: the first of them are taken
        equal = np.flatnonzero(score[best] == kth)
        best = np.delete(best, equal[k - best.size :])
    return best


def _by_threshold(score: np.ndarray, k: int, column: np.ndarray, value: np.ndarray) -> np.ndarray:
    """Fills the rows of ``column`` and ``value`` in which exactly k entries reach the k-th largest; returns which."""
    rows, n = score.shape
    bound = _lower_bound(score, k)
    above = np.flatnonzero(score >= bound[:, None])
    count = _count(above, rows, n)
    if count.min() < k:
        bound[count < k] = np.inf
        above = np.flatnonzero(score >= bound[:, None])
        count = _count(above, rows, n)
    width = int(count.max())
    if width == 0:
        return np.zeros(rows, dtype=bool)
    candidate = score.ravel()[above]
    padded = np.full((rows, width), -np.inf, dtype=np.float32)
    padded[np.arange(width) < count[:, None]] = candidate
    kth = np.partition(padded, width - k, axis=1)[:, width - k]
    kept = candidate >= np.repeat(kth, count)
    chosen = above[kept]
    done = (_count(chosen, rows, n) == k) & (kth > -np.inf)
    if not done.all():
        inside = np.repeat(done, _count(chosen, rows, n))
        chosen, kept = chosen[inside], np.flatnonzero(kept)[inside]
    column[done] = (chosen % n).reshape(-1, k)
    value[done] = candidate[kept].reshape(-1, k)
    return done


def _count(flat: np.ndarray, rows: int, n: int) -> np.ndarray:
    """Ascending flat positions per row of n columns."""
    return np.diff(np.searchsorted(flat, np.arange(rows + 1) * n))


def _lower_bound(score: np.ndarray, k: int) -> np.ndarray:
    """float32 [batch]: below the k-th largest of the row, unless the sample is three standard deviations off."""
    step = max(1, score.shape[1] // SAMPLE)
    sample = np.ascontiguousarray(score[:, ::step])
    expected = k / step
    rank = min(sample.shape[1], int(expected + 3 * np.sqrt(expected)) + 1)
    cut = sample.shape[1] - rank
    return np.partition(sample, cut, axis=1)[:, cut]


def flat(column: np.ndarray, n: int) -> np.ndarray:
    """Positions int64 [batch, k] in the ravelled rows of ``n`` columns: cheaper to take from than along an axis."""
    return column + np.arange(0, len(column) * n, n)[:, None]


def descending(score: np.ndarray) -> np.ndarray:
    """Column order int64 [batch, n] from the largest score to the lowest; equal ones in the order of their columns.

    One sort of integers that carry score and column is faster than a stable argsort. float32 [batch, n], n < 2³¹.
    """
    bits = (score + np.float32(0)).view(np.int32)  # −0.0 becomes 0.0, which it equals
    # Integers in the order of the floats: the bits below the sign are flipped where it is set.
    ordered = bits ^ ((bits >> 31) & np.int32(0x7FFFFFFF))
    packed = (~ordered).astype(np.int64) << 32 | np.arange(score.shape[1])
    packed.sort(axis=1)
    return np.asarray(packed & 0xFFFFFFFF)
