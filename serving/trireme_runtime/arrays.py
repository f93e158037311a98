"""Array helpers that several stages share: id look-up, row-wise membership, left alignment."""

from __future__ import annotations

import numpy as np

__all__ = ["Pairs", "address", "contains", "lookup", "pairs_of_rows", "ragged_rows", "stable_partition"]

#: Items of the rows of a batch: row of the batch int64 [m], item index int32 [m].
Pairs = tuple[np.ndarray, np.ndarray]


def address(array: np.ndarray) -> int:
    """Where its values lie, for C."""
    return int(array.__array_interface__["data"][0])


def lookup(ids: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Positions of ``wanted`` (int64, any shape) in the ascending ``ids`` (int64 [n]); −1 where absent."""
    if ids.size == 0:
        return np.full(wanted.shape, -1, dtype=np.int32)
    position = np.searchsorted(ids, wanted)
    np.minimum(position, ids.size - 1, out=position)
    return np.where(ids[position] == wanted, position, -1).astype(np.int32)


def ragged_rows(offsets: np.ndarray, values: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The values of ``rows`` of a CSR table, flat, with the position in ``rows`` that each belongs to.

    Args:
        offsets: int64 [n + 1].
        values: [offsets[-1]].
        rows: int [batch], each in [0, n).

    Returns:
        ``(batch_position int64 [m], value [m])``, in the order of ``rows``.
    """
    if rows.size == 0:
        return np.empty(0, dtype=np.int64), values[:0]
    start, stop = offsets[rows], offsets[rows + 1]
    # A slice per row costs less than the index arrays that would gather all of them at once.
    parts = [values[first:last] for first, last in zip(start.tolist(), stop.tolist(), strict=True)]
    return np.repeat(np.arange(rows.size), stop - start), np.concatenate(parts)


def pairs_of_rows(pairs: Pairs, rows: np.ndarray, batch: int) -> Pairs:
    """Of ``pairs`` of a batch of so many rows those of ``rows`` (int [n]), with the place in ``rows`` for the row."""
    row, item = pairs
    place = np.full(batch, -1)
    place[rows] = np.arange(rows.size)
    inside = place[row] >= 0
    return place[row[inside]], item[inside]


def contains(row: np.ndarray, value: np.ndarray, wanted: np.ndarray, size: int) -> np.ndarray:
    """Whether each ``wanted[b, j]`` is among the pairs ``(row, value)`` with ``row == b``.

    One sort and one binary search over the whole batch instead of a Python loop over its rows.

    Args:
        row: int [m], position in the batch.
        value: int [m], in [0, size).
        wanted: int [batch, n], in [−1, size); −1 is never contained.
        size: number of distinct values.

    Returns:
        bool [batch, n].
    """
    if row.size == 0:
        return np.zeros(wanted.shape, dtype=bool)
    keys = np.sort(row.astype(np.int64) * size + value)
    # −1 would alias the last value of the row before, so it is looked up and then cleared.
    wanted_keys = np.arange(wanted.shape[0], dtype=np.int64)[:, None] * size + wanted
    # Most are not contained: a table of the keys' low bits rules nearly all of them out without a search.
    bits = np.int64(max(1 << 10, 1 << int(8 * keys.size).bit_length()) - 1)
    marked = np.zeros(int(bits) + 1, dtype=bool)
    marked[keys & bits] = True
    found = marked[wanted_keys & bits]
    likely = np.nonzero(found)
    asked = wanted_keys[likely]
    position = np.minimum(np.searchsorted(keys, asked), keys.size - 1)
    found[likely] = keys[position] == asked
    return found & (wanted >= 0)


def stable_partition(keep: np.ndarray, n: int) -> np.ndarray:
    """Column order int64 [batch, n] that puts kept columns first, both parts in their given order."""
    return np.argsort(~keep, axis=1, kind="stable")[:, :n]
