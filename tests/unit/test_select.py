"""Selection against a full sort: ties, −inf, rows on which the guess of a bound fails."""

from __future__ import annotations

import numpy as np
import pytest

from trireme_runtime.select import descending, top_columns


def expected(score: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    columns = np.full((len(score), k), -1, dtype=np.int32)
    values = np.zeros((len(score), k), dtype=np.float32)
    for row, line in enumerate(score):
        best = np.sort(np.argsort(-line, kind="stable")[:k])
        best = best[line[best] > -np.inf]
        columns[row, : best.size], values[row, : best.size] = best, line[best]
    return columns, values


def matrix(kind: str, rows: int, n: int) -> np.ndarray:
    rng = np.random.default_rng(n)
    score = rng.standard_normal((rows, n)).astype(np.float32)
    if kind == "ties":
        return np.round(score, 1)
    if kind == "mostly excluded":
        score[rng.random(score.shape) < 0.95] = -np.inf
    if kind == "sample misleads":
        score[:, :: max(1, n // 500)] += 10
    if kind == "constant":
        score[:] = 1
        score[0] = -np.inf
    return score


@pytest.mark.parametrize("k", [1, 7, 200])
@pytest.mark.parametrize("n", [1, 5, 300, 2000, 5000])
@pytest.mark.parametrize("kind", ["plain", "ties", "mostly excluded", "sample misleads", "constant"])
def test_top_columns_equals_a_full_sort(kind: str, n: int, k: int) -> None:
    score = matrix(kind, 6, n)
    column, value = top_columns(score, k)
    wanted_column, wanted_value = expected(score, k)
    assert column.tolist() == wanted_column.tolist()
    assert value.tolist() == wanted_value.tolist()
    assert (column.dtype, value.dtype) == (np.int32, np.float32)


def test_a_row_does_not_depend_on_its_batch() -> None:
    score = np.concatenate([matrix("ties", 3, 3000), matrix("mostly excluded", 3, 3000)])
    together, _ = top_columns(score, 200)
    for row in range(len(score)):
        assert top_columns(score[row : row + 1], 200)[0][0].tolist() == together[row].tolist()


def test_descending_is_a_stable_sort() -> None:
    score = np.concatenate([matrix("ties", 4, 300), matrix("mostly excluded", 4, 300)])
    score[0, :4] = [0.0, -0.0, 0.0, -0.0]
    assert descending(score).tolist() == np.argsort(-(score + 0.0), axis=1, kind="stable").tolist()
