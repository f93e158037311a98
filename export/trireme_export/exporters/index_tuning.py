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

import faiss
import numpy as np
from threadpoolctl import threadpool_limits

from trireme_export.errors import ExportError
from trireme_export.exporters.product import exact_index
from trireme_runtime.features.seen import SeenItems
from trireme_runtime.index import ExactIndex, ItemIndex, IvfIndex
from trireme_runtime.index.ivf import lengthened
from trireme_runtime.native import library
from trireme_runtime.native.binding import NativeStages

__all__ = ["IndexTarget", "tune_index"]

#: Below this size, exact search costs less than the fixed part of an approximate one on every machine that was tried.
SMALLEST = 8_000
#: What an approximate index must save of the time of exact search.
SAVING = 0.2
#: Half of them teach the index which lists are promising, the other half measure it.
QUERIES = 512
BATCH = 32
#: Queries that are timed one by one.
ALONE = 64
#: Queries whose inner products with all items are held at a time.
TAUGHT_AT_ONCE = 16
#: Vectors per list that the coarse quantiser is trained on.
TRAINING_VECTORS = 64
ITERATIONS = 10
DEPTHS = (1.5, 2, 3, 4, 6, 8, 12)
"""Items that are refined, per candidate."""


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
    probes: int
    depth: int
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
        ``{"kind", "lists", "probes", "depth", "recall", "us_alone", "us_per_query"}``.

    Raises:
        ExportError: ``target.kind`` is ivf and no setting reaches the recall, or the catalogue is too small for it.
    """
    queries = queries[:QUERIES]
    taught, queries = (queries[::2], queries[1::2]) if len(queries) > 1 else (queries, queries)
    vectors = np.ascontiguousarray(vectors)
    exact = exact_index(vectors, folder)
    curve = [Point("exact", 0, 0, 0, 1.0, *_costs(exact, queries, target.candidates))]
    best: tuple[ItemIndex, Point] = exact, curve[0]
    if target.kind == "ivf" or (target.kind == "auto" and len(vectors) >= SMALLEST):
        if len(vectors) < max(256, 2 * target.candidates):
            raise ExportError(f"serving.index is 'ivf', but {len(vectors)} items are too few for lists; allowed: exact")
        settings = list(_settings(vectors, exact, taught, queries, target))
        curve += [point for _, point in settings]
        best = _cheapest(settings, target) if target.kind == "ivf" else _clearly_cheaper(settings, best)
    record = {
        "target_recall": target.recall,
        "queries": len(queries),
        "chosen": asdict(best[1]),
        "curve": [asdict(point) for point in curve],
    }
    return best[0], record


def _cheapest(settings: Sequence[tuple[ItemIndex, Point]], target: IndexTarget) -> tuple[ItemIndex, Point]:
    """Returns the cheapest of the settings that reach the recall."""
    fast = [entry for entry in settings if entry[1].us_alone is not None]
    if not fast:
        reached = max(point.recall for _, point in settings)
        raise ExportError(
            f"serving.index is 'ivf' and reaches a recall of {reached:.3f}, "
            f"allowed by gate.index_recall: at least {target.recall}"
        )
    return min(fast, key=lambda entry: _cost(entry[1]))


def _clearly_cheaper(
    settings: Sequence[tuple[ItemIndex, Point]], exact: tuple[ItemIndex, Point]
) -> tuple[ItemIndex, Point]:
    """Returns the cheapest of the settings if it saves ``SAVING`` of the cost of ``exact``, else ``exact``."""
    allowed = (1 - SAVING) * _cost(exact[1])
    fast = [entry for entry in settings if entry[1].us_alone is not None and _cost(entry[1]) < allowed]
    return min(fast, key=lambda entry: _cost(entry[1]), default=exact)


def _cost(point: Point) -> float:
    assert point.us_alone is not None
    return point.us_alone


def _settings(
    vectors: np.ndarray, exact: ExactIndex, taught: np.ndarray, queries: np.ndarray, target: IndexTarget
) -> Iterator[tuple[IvfIndex, Point]]:
    """Yields, for every number of lists and every depth, the fewest probes that reach the recall, or all there are."""
    nothing = (np.empty(0, np.int64), np.empty(0, np.int64))
    truth = exact.search(queries, nothing, target.candidates)[0]
    catalogue_size = len(vectors)
    for lists in _list_counts(catalogue_size):
        codes = _train(vectors, lists)
        means, bonus = _promise(codes, vectors, exact, taught)
        waiting = {min(catalogue_size, int(target.candidates * factor)) for factor in DEPTHS}
        for probes in _probe_counts(lists):
            widest = IvfIndex(codes, vectors, means, bonus, probes, max(waiting))
            recalls = _recalls(widest, queries, truth, sorted(waiting))
            last = probes == lists
            for depth, recall in recalls.items():
                if recall >= target.recall or last:
                    waiting.discard(depth)
                    index = IvfIndex(codes, vectors, means, bonus, probes, depth)
                    reached = recall >= target.recall
                    costs = _costs(index, queries, target.candidates) if reached else (None, None)
                    yield index, Point("ivf", lists, probes, depth, recall, *costs)
            if not waiting:
                break


def _list_counts(catalogue_size: int) -> list[int]:
    """Returns the powers of two near √N and 4 √N."""
    return [1 << max(4, round(np.log2(factor * np.sqrt(catalogue_size)))) for factor in (1, 4)]


def _probe_counts(lists: int) -> list[int]:
    """Returns powers of two and the numbers halfway between them, up to all lists (a power of two itself)."""
    return [
        count for power in range(2, lists.bit_length()) for count in (1 << power, 3 << (power - 1)) if count <= lists
    ]


def _train(vectors: np.ndarray, lists: int) -> Any:
    """Returns a Faiss index that holds all ``vectors``; equal vectors give an equal one."""
    catalogue_size, width = vectors.shape
    longest = float(np.sqrt(np.einsum("nd,nd->n", vectors, vectors).max()))
    size = width + 1 + (width + 1) % 2  # two dimensions per code
    quantizer = faiss.IndexFlatL2(size)
    codes = faiss.IndexIVFPQFastScan(quantizer, size, lists, size // 2, 4, faiss.METRIC_INNER_PRODUCT)
    codes.by_residual = False  # one table of distances per query instead of one per list
    codes.cp.niter = ITERATIONS
    codes.cp.spherical = False  # lists are by distance, whatever the codes estimate
    codes.cp.max_points_per_centroid = TRAINING_VECTORS
    rows = np.random.default_rng(0).permutation(catalogue_size)[: TRAINING_VECTORS * lists]
    codes.train(lengthened(vectors[np.sort(rows)], longest, size))
    for start in range(0, catalogue_size, 1 << 17):
        codes.add(lengthened(vectors[start : start + (1 << 17)], longest, size))
    return codes


def _promise(codes: Any, vectors: np.ndarray, exact: ExactIndex, queries: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns ``means`` and ``bonus`` of the lists, see ``IvfIndex``; an empty list promises nothing."""
    members = [
        faiss.rev_swig_ptr(codes.invlists.get_ids(number), codes.invlists.list_size(number)).copy()
        for number in range(codes.nlist)
    ]
    means = np.zeros((codes.nlist, vectors.shape[1]), dtype=np.float32)
    bonus = np.full(codes.nlist, -np.inf, dtype=np.float32)
    filled = np.array([number for number, items in enumerate(members) if items.size])
    for number in filled:
        means[number] = vectors[members[number]].mean(axis=0)
    order = np.concatenate(members)
    first = np.cumsum([0, *(members[number].size for number in filled[:-1])])
    above = np.zeros(filled.size)
    for start in range(0, len(queries), TAUGHT_AT_ONCE):
        part = queries[start : start + TAUGHT_AT_ONCE]
        best = np.maximum.reduceat(exact.product({"query": part})[:, order], first, axis=1)
        above += (best - part @ means[filled].T).sum(axis=0)
    bonus[filled] = above / len(queries)
    return means, bonus


def _recalls(index: IvfIndex, queries: np.ndarray, truth: np.ndarray, depths: list[int]) -> dict[int, float]:
    """Returns the recall by depth, from one search to the greatest depth."""
    found = index.nearest(queries, depths[-1], index.probes)
    score = np.where(found >= 0, index.inner_products(queries, found), -np.inf)
    count = truth.shape[1]
    recalls = {}
    for depth in depths:
        order = np.argsort(-score[:, :depth], axis=1, kind="stable")[:, :count]
        best = np.take_along_axis(found, order, axis=1)
        hits = [np.isin(row, wanted).sum() for row, wanted in zip(best, truth, strict=True)]
        recalls[depth] = float(np.mean(hits) / count)
    return recalls


def _costs(index: ItemIndex, queries: np.ndarray, count: int) -> tuple[float, float]:
    """Returns the time per query alone and in batches, µs, on one thread."""
    with threadpool_limits(1):
        return _microseconds(index, queries[:ALONE], count, 1), _microseconds(index, queries, count, BATCH)


def _microseconds(index: ItemIndex, queries: np.ndarray, count: int, size: int) -> float:
    """Returns the median time per query over batches of ``size``, µs; the first batch only warms up."""
    nothing = (np.empty(0, np.int64), np.empty(0, np.int64))
    search = _as_served(index, count)
    batches = [queries[start : start + size] for start in range(0, len(queries), size)]
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        seconds = []
        for batch in batches:
            start = time.perf_counter()
            search(batch, nothing, count)
            seconds.append((time.perf_counter() - start) / len(batch))
    finally:
        faiss.omp_set_num_threads(threads)
    return float(np.median(seconds[1:] or seconds) * 1e6)


def _as_served(index: ItemIndex, count: int) -> Callable[..., tuple[np.ndarray, np.ndarray]]:
    """Returns the search of ``index``: exact search is served in its compiled form, where there is one."""
    kernels = library()
    if kernels is None or not isinstance(index, ExactIndex) or index.compiled is None:
        return index.search
    nobody = SeenItems(np.zeros(2, np.int64), np.empty(0, np.int32), index.catalogue_size)
    tables = {**nobody.tables(), **index.compiled, "candidates": count}
    stages = NativeStages(kernels, ["retrieval"], tables, {"candidate_index", "retrieval_score"})

    def search(query: np.ndarray, excluded: Any, count: int) -> tuple[np.ndarray, np.ndarray]:
        unknown = np.full((len(query), 1), -1, dtype=np.int32)
        tensors: dict[str, Any] = {"query": query, "user_row": unknown, "history_index": unknown}
        stages.run(tensors)
        return tensors["candidate_index"], tensors["retrieval_score"]

    return search
