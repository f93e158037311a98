"""What each user took, as arrays: grouped by user, without repeats, cut to the newest. Index space only."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["Float32", "Int32", "Int64", "append_history_size", "csr", "distinct_pairs", "gather_history", "row_offsets"]

Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]
Float32 = npt.NDArray[np.float32]


def csr(row: np.ndarray, value: np.ndarray, n_rows: int) -> tuple[Int64, Int32]:
    """Groups values by row; within a row they keep their given order.

    Args:
        row: int [m], in [0, n_rows).
        value: int [m].
        n_rows: number of rows.

    Returns:
        ``(offsets int64 [n_rows + 1], values int32 [m])``.
    """
    order = np.argsort(row, kind="stable")
    return row_offsets(row, n_rows), value[order].astype(np.int32)


def row_offsets(row: np.ndarray, n_rows: int) -> Int64:
    """Returns where each row begins once ``row`` (int [m]) is sorted, and the end: int64 [n_rows + 1]."""
    counts = np.bincount(row.astype(np.int64), minlength=n_rows)
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)


def distinct_pairs(user: np.ndarray, item: np.ndarray, catalogue_size: int) -> tuple[Int64, Int64]:
    """Returns each pair of user row and item index (int [p] each) once, ascending: ``(int64 [d], int64 [d])``."""
    pair = np.unique(user.astype(np.int64) * catalogue_size + item)
    return pair // catalogue_size, pair % catalogue_size


def gather_history(items: Int32, starts: npt.NDArray, ends: npt.NDArray, length: int) -> Int32:
    """Returns the newest ``length`` of ``items[start:end]`` per row: int32 [rows, length], left-padded with −1."""
    position = ends[:, None] - np.arange(length, 0, -1)
    valid = position >= starts[:, None]
    if not len(items):
        return np.full(position.shape, -1, dtype=np.int32)
    return np.where(valid, items[np.where(valid, position, 0)], -1).astype(np.int32)


def append_history_size(user_number: Float32, history: Int32) -> Float32:
    """Returns the given numbers [B, D − 1] and, as the last column, log1p of the valid history items: float32 [B, D]."""
    size = np.log1p((history >= 0).sum(axis=1, keepdims=True))
    return np.concatenate([user_number, size], axis=1).astype(np.float32)
