"""Chooses how retrieval searches: exactly, or in an inverted file tuned to a recall at least cost.

Recall is that of the candidates: how many of the C best items by exact search the index finds too, for queries of real users.
Cost is the time of a lone query, measured on one thread, on this machine; that in batches is recorded beside it. Exact search
loses nothing, so an approximate index must be clearly cheaper to replace it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from trireme_export.errors import ExportError
from trireme_export.exporters.inverted_file import inverted_file
from trireme_export.exporters.product import exact_index
from trireme_runtime.features.seen import SeenItems
from trireme_runtime.index import ExactIndex, ItemIndex, IvfIndex
from trireme_runtime.native import library
from trireme_runtime.native.binding import NativeStages
from trireme_runtime.native.tables import Tables

__all__ = ["IndexTarget", "tune_index"]

#: Below this size, exact search costs less than the fixed part of an approximate one on every machine that was tried.
SMALLEST = 8_000
#: What an approximate index must save of the time of exact search.
SAVING = 0.2
#: Half of them teach the index which lists are promising, a quarter how far to look, and a quarter measures it.
QUERIES = 1024
BATCH = 32
#: Queries that are timed one by one.
ALONE = 64
#: Queries whose inner products with all items are held at a time.
TAUGHT_AT_ONCE = 16
#: Of the candidates of the queries that set the margin; 1 stands for all lists, which lose nothing.
SHARES = (0.9, 0.95, 0.98, 0.985, 0.99, 0.995, 0.999, 1)
EVERYTHING = 1e9
"""A margin that leaves no list out."""


@dataclass(frozen=True)
class IndexTarget:
    """What the index must be: ``kind`` is auto, exact or ivf; ``recall`` of the C candidates binds an approximate one."""

    kind: str
    candidates: int
    recall: float


@dataclass(frozen=True)
class Point:
    """One setting that was measured."""

    kind: str
    lists: int
    margin: float
    """See ``IvfIndex``."""
    recall: float
    us_alone: float | None
    """Time of a query that is searched alone, µs, by which the choice is made; None where the recall is not reached."""
    us_per_query: float | None
    """The same in batches of 32."""


def tune_index(
    vectors: np.ndarray, queries: np.ndarray, target: IndexTarget, folder: Path
) -> tuple[ItemIndex, dict[str, Any]]:
    """Returns the cheapest index that reaches the recall, and the record of the choice.

    Args:
        vectors: float32 [N, Q].
        queries: float32 [n, Q], of real users.
        target: what the index must be.
        folder: where the graph of exact search is written.

    Returns:
        The index, and ``{"target_recall", "queries", "chosen": point, "curve": [point, …]}`` with a point as
        ``{"kind", "lists", "margin", "recall", "us_alone", "us_per_query"}``.

    Raises:
        ExportError: ``target.kind`` is ivf and the catalogue is too small for it; or vectors are no numbers or too long.
    """
    if not np.isfinite(np.einsum("nd,nd->n", vectors, vectors)).all():
        raise ExportError("item vectors are no numbers, or too long to be searched")  # Faiss would end the process
    queries = queries[:QUERIES]
    taught, queries = (queries[::2], queries[1::2]) if len(queries) > 1 else (queries, queries)
    vectors = np.ascontiguousarray(vectors)
    exact = exact_index(vectors, folder)
    curve = [Point("exact", 0, 0.0, 1.0, *_costs(exact, queries, target.candidates))]
    best: tuple[ItemIndex, Point] = exact, curve[0]
    if target.kind == "ivf" or (target.kind == "auto" and len(vectors) >= SMALLEST):
        if len(vectors) < max(256, 2 * target.candidates):
            raise ExportError(f"serving.index is 'ivf', but {len(vectors)} items are too few for lists; allowed: exact")
        settings = list(_settings(vectors, exact, taught, queries, target))
        curve += [point for _, point in settings]
        best = _cheapest(settings, None if target.kind == "ivf" else best)
    record = {
        "target_recall": target.recall,
        "queries": len(queries),
        "chosen": asdict(best[1]),
        "curve": [asdict(point) for point in curve],
    }
    return best[0], record


def _cheapest(
    settings: Sequence[tuple[IvfIndex, Point]], exact: tuple[ItemIndex, Point] | None
) -> tuple[ItemIndex, Point]:
    """Returns the cheapest of the settings that reach the recall; ``exact``, unless that saves ``SAVING`` of its cost."""
    best = min((entry for entry in settings if entry[1].us_alone is not None), key=lambda entry: _cost(entry[1]))
    return exact if exact and _cost(best[1]) >= (1 - SAVING) * _cost(exact[1]) else best


def _cost(point: Point) -> float:
    assert point.us_alone is not None
    return point.us_alone


def _settings(
    vectors: np.ndarray, exact: ExactIndex, taught: np.ndarray, queries: np.ndarray, target: IndexTarget
) -> Iterator[tuple[IvfIndex, Point]]:
    """Yields, for every number of lists, margins that found these shares of the candidates of every second query; the other
    queries measure them."""
    tuned, measured = queries[::2], queries[1::2]
    nothing = (np.empty(0, np.int64), np.empty(0, np.int64))
    truth = [exact.search(part, nothing, target.candidates)[0] for part in (tuned, measured)]
    for lists in _list_counts(len(vectors)):
        held = inverted_file(vectors, lists)
        held = {**held, "bonus": _bonus(held, taught)}
        index = IvfIndex(held, 0.0)
        needed = np.sort(index.needed_margin(tuned, truth[0]).ravel())
        margins = index.needed_margin(measured, truth[1])
        for share in SHARES:
            margin = EVERYTHING if share == 1 else max(0.0, float(needed[int(share * (needed.size - 1))]))
            index, recall = IvfIndex(held, margin), float((margins <= margin).mean())
            reached = recall >= target.recall
            costs = _costs(index, measured, target.candidates) if reached else (None, None)
            yield index, Point("ivf", held["lists"], margin, recall, *costs)


def _list_counts(catalogue_size: int) -> list[int]:
    """Returns the powers of two near √N, 4 √N and 16 √N: few items to a list, where the best ones are spread over many."""
    return [1 << max(4, round(np.log2(factor * np.sqrt(catalogue_size)))) for factor in (1, 4, 16)]


def _bonus(held: Tables, queries: np.ndarray) -> np.ndarray:
    """Returns how much the best item of each list was above its mean for these queries, as a share of their length."""
    length = np.maximum(np.linalg.norm(queries, axis=1, keepdims=True), 1e-30)
    above = np.zeros(held["lists"])
    for start in range(0, len(queries), TAUGHT_AT_ONCE):
        part = queries[start : start + TAUGHT_AT_ONCE]
        score = part @ held["vectors"].T
        score[:, held["item"] < 0] = -np.inf
        best = np.maximum.reduceat(score, held["first"][:-1], axis=1)
        above += ((best - part @ held["mean"].T) / length[start : start + TAUGHT_AT_ONCE]).sum(axis=0)
    return (above / len(queries)).astype(np.float32)


def _costs(index: ItemIndex, queries: np.ndarray, count: int) -> tuple[float, float]:
    """Returns the time per query alone and in batches, µs, on one thread."""
    with threadpool_limits(1):
        return _microseconds(index, queries[:ALONE], count, 1), _microseconds(index, queries, count, BATCH)


def _microseconds(index: ItemIndex, queries: np.ndarray, count: int, size: int) -> float:
    """Returns the median time per query over batches of ``size``, µs; the first batch only warms up."""
    nothing = (np.empty(0, np.int64), np.empty(0, np.int64))
    search = _as_served(index, count)
    batches = [queries[start : start + size] for start in range(0, len(queries), size)]
    seconds = []
    for batch in batches:
        start = time.perf_counter()
        search(batch, nothing, count)
        seconds.append((time.perf_counter() - start) / len(batch))
    return float(np.median(seconds[1:] or seconds) * 1e6)


def _as_served(index: ItemIndex, count: int) -> Callable[..., tuple[np.ndarray, np.ndarray]]:
    """Returns the search of ``index`` as it is served: in its compiled form, where there is one."""
    kernels, compiled = library(), index.compiled
    if kernels is None or compiled is None:
        return index.search
    nobody = SeenItems(np.zeros(2, np.int64), np.empty(0, np.int32), index.catalogue_size)
    tables = {**nobody.tables(), **compiled, "candidates": count}
    stages = NativeStages(kernels, ["retrieval"], tables, {"candidate_index", "retrieval_score"})

    def search(query: np.ndarray, excluded: Any, count: int) -> tuple[np.ndarray, np.ndarray]:
        unknown = np.full((len(query), 1), -1, dtype=np.int32)
        tensors: dict[str, Any] = {"query": query, "user_row": unknown, "history_index": unknown}
        stages.run(tensors)
        return tensors["candidate_index"], tensors["retrieval_score"]

    return search
