"""A checkpoint of any size without training: for latency, memory and the recall of an index, and for nothing else.

Vectors, popularity and histories are drawn so that retrieval meets what it meets in learned models: clusters of skewed sizes in
larger groups, near neighbours inside clusters, norms and popularity that vary, queries near the clusters of a user's history. The
strengths below were set by eye on two-towers trained on three public data sets, of up to 10,000 items; larger catalogues are an
extrapolation. No user ever liked these items: NDCG means nothing, and the ranker's weights are noise.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import isqrt

import numpy as np
import torch

from trireme_export.checkpoint import Checkpoint
from trireme_export.config import PipelineConfig
from trireme_export.data.histories import csr, distinct_pairs, gather_history
from trireme_export.models import ModelShape, Ranker, TrainedModels, TwoTower
from trireme_export.tables import POPULAR_DEPTH, Tables, popular_lists
from trireme_perf.errors import PerfError

__all__ = ["synthetic_checkpoint"]

BLOCK = 1 << 16
"""Items, or users, drawn at a time: bounds the memory of intermediate arrays."""
SEGMENTS = 4

CLUSTER_ZIPF = 0.7
"""Exponent of a cluster's size over its rank."""
SERIES = 6
"""Mean number of items that are variants of one thing."""
VARIANCE = (0.18, 0.44, 0.22, 0.16)
"""Share of a vector's variance that its group, its cluster, its series and the item itself decide."""
SPECTRUM = 0.2
"""Exponent by which the standard deviation falls over the dimensions."""
READ_COSINE = 0.89
"""Cosine between the vector that the history reads for an item and the one that is scored."""
NORM = (1.6, 0.25)
"""Median length of the latent part of an item vector, and the standard deviation of its log."""
NORM_BOUND = 2.8
"""Most standard deviations of that: the longest vectors of a large catalogue are no longer than those that were learned."""
POPULARITY_SPREAD = 1.28
"""Standard deviation of log popularity: 1 % of the items get 15 % of the interactions, 10 % get half."""
POPULARITY_COLUMN = (-1.0, 1.5)
"""Mean and standard deviation of the popularity columns, before they are cut to their bounds."""
POPULARITY_BOUNDS = (-2.3, 4.0)
"""Learned columns have a floor, that of items not taken lately: without it, unpopular items would have the longest vectors."""

TASTES = 8
"""Clusters that a user takes most items from."""
TASTE_SKEW = 2.0
"""The larger, the more items come from the first few clusters of a user."""
EXPLORATION = 0.05
"""Share of the items that a user takes from anywhere."""
LENGTH = (0.4, 1.0)
"""Median number of a user's items as a share of L, and the standard deviation of its log."""
LONGEST = 4
"""Most items of a user, as a multiple of L."""
QUERY_SCALE = 7.0
"""Factor of the queries: training makes them longer than the mean of the history, from which an untrained tower starts."""
QUERY_POPULARITY = 0.7
"""Sum of the query's weights of the popularity columns."""


@dataclass(frozen=True)
class _Items:
    """N items on shelves, cluster by cluster; ``item`` int64 [N] is the item index by place on the shelves.

    weight float64 [N], share of the interactions, and series int64 [N] by place; first int64 [clusters + 1], where a cluster's
    shelf begins. group int64 [clusters].
    """

    item: np.ndarray
    weight: np.ndarray
    series: np.ndarray
    first: np.ndarray
    group: np.ndarray

    @property
    def cluster(self) -> np.ndarray:
        """int64 [N] by place."""
        return np.repeat(np.arange(self.group.size), np.diff(self.first))


def synthetic_checkpoint(
    items: int,
    users: int,
    *,
    history: int = 100,
    candidates: int = 200,
    list_length: int | None = None,
    clusters: int | None = None,
    seed: int = 0,
) -> Checkpoint:
    """Returns a checkpoint with the default model sizes that was not trained; equal arguments give an equal one.

    Args:
        items: N, size of the catalogue.
        users: U, known users, each with a history.
        history: L, newest items that the models read.
        candidates: C, items that retrieval hands to ranking.
        list_length: K, items in an answer; default as in pipeline.yaml, at most C.
        clusters: of the item vectors; default the square root of ``items``.
        seed: of every random choice.

    Raises:
        PerfError: a size is out of its range; names it, its value and what is allowed.
    """
    if clusters is None:
        clusters = isqrt(max(items, 0))
    # As large as pipeline.yaml allows; a list must also be filled after what a user knows is taken out.
    _check("items", items, 100, 50_000_000)
    _check("users", users, 1, 50_000_000)
    _check("history", history, 1, 512)
    _check("candidates", candidates, 1, min(items, 10_000))
    _check("clusters", clusters, 1, items)
    _check("seed", seed, 0, 2**32 - 1)
    defaults = PipelineConfig().serving
    length = min(defaults.list_length, candidates) if list_length is None else list_length
    _check("list_length", length, 1, candidates)
    config = PipelineConfig.model_validate(
        {
            "training": {"history_length": history, "seed": seed},
            "serving": {"candidates": candidates, "list_length": length},
        }
    )
    rng = np.random.default_rng(seed)
    shelves = _draw_items(rng, items, clusters)
    models = _models(rng, shelves, config)
    tables = _tables(rng, shelves, users, config)
    data = {
        "name": f"synthetic-{items}",
        "items": items,
        "users": users,
        "interactions": int(tables.seen_offsets[-1]),
        "clusters": clusters,
        "seed": seed,
        "trained": False,
    }
    return Checkpoint(config, models, tables, data)


def _check(name: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        raise PerfError(f"{name} is {value}, allowed are {low} to {high}")


def _draw_items(rng: np.random.Generator, items: int, clusters: int) -> _Items:
    share = np.arange(1, clusters + 1) ** -CLUSTER_ZIPF
    # Every cluster has an item, whatever is drawn.
    size = 1 + rng.multinomial(items - clusters, share / share.sum())
    first = np.concatenate([[0], np.cumsum(size)])
    begins = rng.random(items) < 1 / SERIES
    begins[first[:-1]] = True
    weight = np.exp(rng.normal(0.0, POPULARITY_SPREAD, items))
    group = rng.integers(max(2, isqrt(clusters)), size=clusters)
    return _Items(rng.permutation(items), weight / weight.sum(), np.cumsum(begins) - 1, first, group)


def _models(rng: np.random.Generator, shelves: _Items, config: PipelineConfig) -> TrainedModels:
    popularity = len(config.training.tower.half_lives) + 1
    shape = ModelShape(
        catalogue_size=shelves.item.size,
        history_length=config.training.history_length,
        user_category_sizes=(SEGMENTS + 1,),
        user_numbers=2,
        item_category_sizes=(int(shelves.group.max()) + 2,),
        item_numbers=0,
        item_list_sizes=(),
        item_list_lengths=(),
        popularity=popularity,
    )
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(config.training.seed)
        tower, ranker = TwoTower(shape), Ranker(shape)
        _fill_tower(rng, tower, shelves)
        _fill_ranker(ranker, tower)
    return TrainedModels(shape, tower.eval(), ranker.eval(), {"trained": False, "seed": config.training.seed})


def _fill_tower(rng: np.random.Generator, tower: TwoTower, shelves: _Items) -> None:
    for place, written, read in _draw_vectors(rng, shelves, tower.shape.latent):
        item = torch.from_numpy(shelves.item[place])
        tower.written.weight[item] = torch.from_numpy(written)
        tower.read.weight[item] = torch.from_numpy(read)
    mean, deviation = POPULARITY_COLUMN
    level = np.empty((shelves.item.size, 1), dtype=np.float32)
    level[shelves.item, 0] = np.log(shelves.weight)
    level = (level - level.mean()) / level.std()
    noise = rng.standard_normal(tuple(tower.popularity.shape), dtype=np.float32)
    # Popularity over different spans of time is nearly the same.
    columns = mean + deviation * (0.95 * level + 0.31 * noise)
    tower.popularity.copy_(torch.from_numpy(columns.clip(*POPULARITY_BOUNDS)))
    tower.bias.copy_(torch.from_numpy(rng.normal(0.0, 0.03, shelves.item.size)))
    tower.features.item_category[torch.from_numpy(shelves.item), 0] = torch.from_numpy(
        shelves.group[shelves.cluster] + 1
    ).int()
    tower.user.merge.weight.mul_(QUERY_SCALE)
    tower.user.popularity.bias.fill_(QUERY_POPULARITY / tower.shape.popularity)


def _draw_vectors(
    rng: np.random.Generator, shelves: _Items, width: int
) -> Iterator[tuple[slice, np.ndarray, np.ndarray]]:
    """Yields block by block of places: the scored and the read vectors, float32 [block, width] each.

    A hierarchical mixture of Gaussians: an item lies around its series, that around its cluster, that around its group.
    """
    spectrum = (np.arange(1, width + 1) ** -SPECTRUM).astype(np.float32)
    of_group, of_cluster, of_series, own = np.sqrt(VARIANCE, dtype=np.float32)
    groups = rng.standard_normal((int(shelves.group.max()) + 1, width), dtype=np.float32)
    centres = of_group * groups[shelves.group]
    centres += of_cluster * rng.standard_normal(centres.shape, dtype=np.float32)
    series = of_series * rng.standard_normal((int(shelves.series[-1]) + 1, width), dtype=np.float32)
    cluster = shelves.cluster
    for start in range(0, cluster.size, BLOCK):
        place = slice(start, min(start + BLOCK, cluster.size))
        written = centres[cluster[place]] + series[shelves.series[place]]
        written += own * rng.standard_normal(written.shape, dtype=np.float32)
        noise = rng.standard_normal(written.shape, dtype=np.float32)
        read = READ_COSINE * written + np.float32((1 - READ_COSINE**2) ** 0.5) * noise
        median, deviation = NORM
        for vectors in (written, read):
            vectors *= spectrum
            spread = rng.standard_normal((len(vectors), 1), dtype=np.float32).clip(-NORM_BOUND, NORM_BOUND)
            vectors *= median * np.exp(deviation * spread) / np.linalg.norm(vectors, axis=1, keepdims=True)
        yield place, written, read


def _fill_ranker(ranker: Ranker, tower: TwoTower) -> None:
    """Fills the item side from the tower's; weights stay as initialised, except those of the output, which would be zero."""
    width = ranker.shape.rank_dim
    ranker.vectors.copy_(torch.nn.functional.normalize(tower.written.weight[:, :width], dim=1))
    ranker.statistics.copy_(torch.cat([tower.popularity, tower.bias[:, None]], dim=1) / 4.0)
    ranker.features.item_category.copy_(tower.features.item_category)
    torch.nn.init.normal_(ranker.core.output.weight, std=ranker.shape.rank_hidden**-0.5)


def _tables(rng: np.random.Generator, shelves: _Items, users: int, config: PipelineConfig) -> Tables:
    length, items = config.training.history_length, shelves.item.size
    offsets, taken = _draw_interactions(rng, shelves, users, length)
    history = gather_history(taken, offsets[:-1], offsets[1:], length)
    user, item = distinct_pairs(np.repeat(np.arange(users), np.diff(offsets)), taken, items)
    seen_offsets, seen_items = csr(user, item, users)
    segment = rng.integers(1, SEGMENTS + 1, size=users)
    chosen = [slice(None), *(segment[user] == number for number in range(1, SEGMENTS + 1))]
    counts = np.stack([np.bincount(item[rows], minlength=items) for rows in chosen])
    popular, popular_score = popular_lists(counts, POPULAR_DEPTH * config.serving.list_length)
    number = rng.standard_normal((users, 1), dtype=np.float32)
    # Ids have gaps, and the last row of a user table is for unknown users, as in tables of real data.
    return Tables(
        user_ids=50_000 + 7 * np.arange(users, dtype=np.int64),
        item_ids=1_000 + 3 * np.arange(items, dtype=np.int64),
        history=np.concatenate([history, np.full((1, length), -1, dtype=np.int32)]),
        category=np.append(segment, 0)[:, None].astype(np.int32),
        number=np.concatenate([number, np.zeros((1, 1), dtype=np.float32)]),
        seen_offsets=np.append(seen_offsets, seen_offsets[-1]),
        seen_items=seen_items,
        popular=popular,
        popular_score=popular_score,
        segment=np.array([0]),
    )


def _draw_interactions(
    rng: np.random.Generator, shelves: _Items, users: int, history: int
) -> tuple[np.ndarray, np.ndarray]:
    """Draws what each user took, oldest first: offsets int64 [users + 1], item index int32 [offsets[-1]]."""
    median, deviation = LENGTH
    count = np.rint(rng.lognormal(np.log(median * history), deviation, users)).astype(np.int64)
    count = count.clip(1, LONGEST * history)
    offsets = np.concatenate([[0], np.cumsum(count)])
    edges = np.concatenate([[0.0], np.cumsum(shelves.weight)])
    taken = np.empty(offsets[-1], dtype=np.int32)
    for start in range(0, users, BLOCK // 4):
        block = count[start : start + BLOCK // 4]
        low, high = _draw_shelves(rng, shelves, edges, block)
        place = np.searchsorted(edges, low + rng.random(low.size) * (high - low), side="right") - 1
        taken[offsets[start] : offsets[start + block.size]] = shelves.item[place.clip(0, shelves.item.size - 1)]
    return offsets, taken


def _draw_shelves(
    rng: np.random.Generator, shelves: _Items, edges: np.ndarray, count: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Draws the range of ``edges``, the cumulated weights, that each of ``count`` interactions per user comes from."""
    bounds = edges[shelves.first]
    tastes = np.searchsorted(bounds, rng.random((count.size, TASTES)) * bounds[-1], side="right") - 1
    share = np.cumsum(rng.standard_exponential((count.size, TASTES), dtype=np.float32) ** TASTE_SKEW, axis=1)
    user = np.repeat(np.arange(count.size), count)
    wanted = rng.random((user.size, 1), dtype=np.float32) * share[user, -1:]
    column = (share[user] <= wanted).sum(axis=1).clip(max=TASTES - 1)
    cluster = tastes[user, column].clip(max=shelves.group.size - 1)
    anywhere = rng.random(user.size) < EXPLORATION
    low = np.where(anywhere, 0.0, bounds[cluster])
    high = np.where(anywhere, bounds[-1], bounds[cluster + 1])
    return low, high
