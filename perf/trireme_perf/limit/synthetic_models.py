"""A checkpoint of any size without training: for latency, memory and the recall of an index, and for nothing else.

Vectors, popularity and histories are drawn so that retrieval meets what it meets in learned models: clusters of skewed sizes in
larger groups, near neighbours inside clusters, norms and popularity that vary, queries near the clusters of a user's history. The
constants, here and in ``synthetic_items`` and ``synthetic_users``, were set by eye on two-towers trained on three public data
sets of up to 10,000 items; larger catalogues are an extrapolation. No user ever liked these items: NDCG means nothing, and the
ranker's weights are noise.
"""

from __future__ import annotations

from math import isqrt

import numpy as np
import torch

from trireme_export.checkpoint import Checkpoint
from trireme_export.config import PipelineConfig, ServingConfig
from trireme_export.models import ModelShape, Ranker, TrainedModels, TwoTower
from trireme_perf.errors import PerfError
from trireme_perf.limit.synthetic_items import Items, draw_items, draw_vectors
from trireme_perf.limit.synthetic_users import SEGMENTS, draw_tables

__all__ = ["synthetic_checkpoint"]

POPULARITY_COLUMN = (-1.0, 1.5)
"""Mean and standard deviation of the popularity columns, before they are cut to their bounds."""
POPULARITY_BOUNDS = (-2.3, 4.0)
"""Learned columns have a floor, that of items not taken lately: without it, unpopular items would have the longest vectors."""
QUERY_SCALE = 7.0
"""Factor of the queries: training makes them longer than the mean of the history, from which an untrained tower starts."""
QUERY_POPULARITY = 0.7
"""Sum of the query's weights of the popularity columns."""


def synthetic_checkpoint(
    items: int,
    users: int,
    *,
    history: int = 100,
    candidates: int = 200,
    seed: int = 0,
) -> Checkpoint:
    """Returns a checkpoint with the default model sizes that was not trained; equal arguments give an equal one.

    Args:
        items: N, size of the catalogue.
        users: U, known users, each with a history.
        history: L, newest items that the models read.
        candidates: C, items that retrieval hands to ranking. Answers have as many as in pipeline.yaml, at most C.
        seed: of every random choice.

    Raises:
        PerfError: a size is out of its range; names it, its value and what is allowed.
    """
    # As large as pipeline.yaml allows.
    for name, value, low, high in (
        ("items", items, 100, 50_000_000),
        ("users", users, 1, 50_000_000),
        ("history", history, 1, 512),
        ("candidates", candidates, 1, min(items, 10_000)),
        ("seed", seed, 0, 2**32 - 1),
    ):
        if not low <= value <= high:
            raise PerfError(f"{name} is {value}, allowed are {low} to {high}")
    clusters, length = isqrt(items), min(ServingConfig().list_length, candidates)
    config = PipelineConfig.model_validate(
        {
            "training": {"history_length": history, "seed": seed},
            "serving": {"candidates": candidates, "list_length": length},
        }
    )
    rng = np.random.default_rng(seed)
    shelves = draw_items(rng, items, clusters)
    models = _models(rng, shelves, config)
    tables = draw_tables(rng, shelves, users, config)
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


def _models(rng: np.random.Generator, shelves: Items, config: PipelineConfig) -> TrainedModels:
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


def _fill_tower(rng: np.random.Generator, tower: TwoTower, shelves: Items) -> None:
    for place, written, read in draw_vectors(rng, shelves, tower.shape.latent):
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


def _fill_ranker(ranker: Ranker, tower: TwoTower) -> None:
    """Fills the item side from the tower's; weights stay as initialised, except those of the output, which would be zero."""
    width = ranker.shape.rank_dim
    ranker.vectors.copy_(torch.nn.functional.normalize(tower.written.weight[:, :width], dim=1))
    ranker.statistics.copy_(torch.cat([tower.popularity, tower.bias[:, None]], dim=1) / 4.0)
    ranker.features.item_category.copy_(tower.features.item_category)
    torch.nn.init.normal_(ranker.core.output.weight, std=ranker.shape.rank_hidden**-0.5)
