"""Funnels of any size, with the shipped models and random weights and tables, and requests to them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st
from torch import Tensor, nn

from trireme_export.exporters.inverted_file import inverted_file
from trireme_export.exporters.native import item_codes, ranker_tables, tower_tables
from trireme_export.models import ModelShape, Ranker, TwoTower
from trireme_runtime.features.seen import SeenItems
from trireme_runtime.index import ExactIndex, ItemIndex, IvfIndex
from trireme_runtime.schema import STAGES, STORED
from trireme_runtime.stages.feature_transform import FeatureTransform
from trireme_runtime.stages.ranking import Ranking
from trireme_runtime.stages.reranking import Reranking
from trireme_runtime.stages.retrieval import Retrieval
from trireme_runtime.stages.stage import Stage
from trireme_runtime.stages.user_tower import UserTower

SIZES = {
    "seed": st.integers(0, 2**16),
    "items": st.sampled_from([1, 2, 3, 8, 9, 41, 700]),
    "users": st.integers(0, 9),
    "length": st.sampled_from([1, 2, 3, 5, 17]),
    "categories": st.lists(st.integers(1, 4), min_size=1, max_size=4).map(tuple),
    "contexts": st.lists(st.integers(1, 4), max_size=2).map(tuple),
    "numbers": st.integers(1, 3),
    "popularity": st.integers(1, 2),
    "latent": st.integers(1, 40),
    "heads": st.integers(1, 3),
    "feature_dim": st.integers(1, 5),
    "hidden": st.integers(1, 40),
    "rank_dim": st.integers(8, 34),
    "rank_hidden": st.integers(1, 40),
    "rank_history": st.integers(1, 5),
    "rank_heads": st.integers(1, 3),
    "candidates": st.sampled_from([1, 2, 3, 8, 30]),
    "lists": st.sampled_from([0, 0, 1, 3, 7, 40]),
    "margin": st.sampled_from([0.05, 0.3, 1e9]),
    "popular_length": st.integers(0, 9),
}


def sizes(**fixed: int) -> st.SearchStrategy[dict[str, Any]]:
    """Draws the arguments of ``random_stages``."""
    return st.fixed_dictionaries({**SIZES, **{name: st.just(value) for name, value in fixed.items()}})


class Module:
    """A PyTorch module, or a function, as the model of a stage."""

    def __init__(self, module: Callable[..., Tensor], stage: str) -> None:
        self.module = module
        self.names = [tensor.name for tensor in STAGES[stage].inputs]

    def __call__(self, tensors: Mapping[str, np.ndarray]) -> np.ndarray:
        with torch.inference_mode():
            return self.module(*(torch.from_numpy(np.ascontiguousarray(tensors[name])) for name in self.names)).numpy()


class Product:
    """Inner products with all vectors; those of equal vectors are equal, too, which is not so of every BLAS."""

    def __init__(self, vectors: np.ndarray) -> None:
        self.vectors = vectors.astype(np.float64)

    def __call__(self, tensors: Mapping[str, np.ndarray]) -> np.ndarray:
        return (tensors["query"] @ self.vectors.T).astype(np.float32)


def model_shape(s: Mapping[str, Any]) -> ModelShape:
    return ModelShape(
        catalogue_size=s["items"],
        history_length=s["length"],
        user_category_sizes=s["categories"] + s.get("contexts", ()),
        user_numbers=s["numbers"],
        item_category_sizes=(3,),
        item_numbers=1,
        item_list_sizes=(),
        item_list_lengths=(),
        popularity=s["popularity"],
        dim=s["latent"] + 1 + s["popularity"],
        heads=s["heads"],
        feature_dim=s["feature_dim"],
        hidden=s["hidden"],
        rank_dim=s["rank_dim"],
        rank_hidden=s["rank_hidden"],
        rank_history=s["rank_history"],
        rank_heads=s["rank_heads"],
    )


def random_models(shape: ModelShape, rng: np.random.Generator) -> tuple[TwoTower, Ranker]:
    """Both models with random weights, none of them zero."""
    models = TwoTower(shape), Ranker(shape)
    with torch.no_grad():
        for module in models:
            for parameter in module.parameters():
                parameter.copy_(_normal(rng, parameter) * (0.5 if parameter.ndim < 2 else parameter.shape[1] ** -0.5))
        two_tower, ranker = models
        two_tower.read.weight.copy_(_normal(rng, two_tower.read.weight))
        two_tower.written.weight.copy_(_normal(rng, two_tower.written.weight))
        two_tower.popularity.copy_(_normal(rng, two_tower.popularity))
        ranker.vectors.copy_(nn.functional.normalize(_normal(rng, ranker.vectors)))
        ranker.statistics.copy_(_normal(rng, ranker.statistics))
    return models


def random_stages(s: Mapping[str, Any]) -> list[Stage]:
    """The five stages; models and tables have compiled forms."""
    rng = np.random.default_rng(s["seed"])
    two_tower, ranker = random_models(model_shape(s), rng)
    tower, ranker = two_tower.precompute(), ranker.precompute()
    with torch.no_grad():
        vectors = two_tower.item_vectors().numpy()
    vectors[rng.random(len(vectors)) < 0.1] = vectors[0]  # some are equal
    users, items, length = s["users"], s["items"], s["length"]
    item_ids = np.sort(rng.choice(10 * items, items, replace=False)).astype(np.int64)
    history = np.full((users + 1, length), -1, np.int32)
    for user in range(users):
        known = rng.integers(0, length + 1)
        history[user, length - known :] = rng.integers(0, items, known)
    category = np.stack([rng.integers(0, size, users + 1) for size in s["categories"]], axis=1).astype(np.int32)
    category[-1] = 0
    contexts = np.array(s.get("contexts", ()), np.int32)
    category = np.concatenate([category, np.zeros((users + 1, contexts.size), np.int32)], axis=1)
    number = rng.normal(size=(users + 1, s["numbers"] - 1)).astype(np.float32)
    user_ids = np.sort(rng.choice(1000, users, replace=False)).astype(np.int64)
    column = int(rng.integers(len(s["categories"])))
    popular, popular_score = _popular(rng, s["categories"][column], s["popular_length"], items)
    seen, candidates = _seen(rng, users, items), s["candidates"]
    return [
        FeatureTransform(user_ids, item_ids, history, category, number, contexts),
        UserTower(Module(tower, "user_tower"), tower_tables(tower)),
        Retrieval(_index(rng, vectors, s.get("lists", 0), s.get("margin", 0.0)), seen, candidates, item_ids),
        Ranking(Module(ranker, "ranking"), ranker_tables(ranker)),
        Reranking(item_ids, popular, popular_score, seen, int(rng.integers(1, candidates + 1)), column),
    ]


def _index(rng: np.random.Generator, vectors: np.ndarray, lists: int, margin: float) -> ItemIndex:
    """Exact search; an inverted file if there are lists."""
    if not lists:
        return ExactIndex(Product(vectors), len(vectors), item_codes(vectors))
    held = inverted_file(vectors, min(lists, len(vectors)))
    return IvfIndex({**held, "bonus": rng.random(held["lists"], dtype=np.float32)}, margin)


def random_request(stages: list[Stage], rows: int, seed: int, history: bool, excluding: bool) -> dict[str, Any]:
    """Users known and unknown; histories stored, given and empty, if any are; exclusions in any order, some of them twice."""
    rng = np.random.default_rng(seed)
    features: Any = stages[0]
    items, length = features.item_ids.size, features.history.shape[1]
    known = np.append(features.user_ids, [-1, 5000])
    request: dict[str, Any] = {
        "user_id": rng.choice(known, (rows, 1)),
        "history": None,
        "context": None,
        "excluded": None,
    }
    if history:
        given = rng.choice(np.append(features.item_ids, [-1, 10 * items + 1]), (rows, length))
        given[rng.random(rows) < 0.2] = -1
        given[rng.random(rows) < 0.3, 0] = STORED
        request["history"] = given
    if excluding and rows:
        count = int(rng.choice([1, items, 3 * items * rows]))
        request["excluded"] = rng.integers(0, rows, count), rng.integers(0, items, count).astype(np.int32)
    sizes = features.context_sizes
    # None, or some of an index that no value has.
    has_context = bool(sizes.size) and rng.random() < 0.7
    request["context"] = rng.integers(0, sizes + 2, (rows, sizes.size), np.int32) if has_context else None
    return request


def _normal(rng: np.random.Generator, like: Tensor) -> Tensor:
    return torch.from_numpy(rng.normal(size=tuple(like.shape)).astype(np.float32))


def _popular(rng: np.random.Generator, segments: int, length: int, items: int) -> tuple[np.ndarray, np.ndarray]:
    lists = np.full((segments, length), -1, np.int32)
    for row in lists:
        known = min(length, items, int(rng.integers(0, length + 1)))
        row[:known] = rng.choice(items, known, replace=False)
    return lists, -np.sort(-rng.random((segments, length)), axis=1).astype(np.float32)


def _seen(rng: np.random.Generator, users: int, items: int) -> SeenItems:
    """Some have seen nothing, some all."""
    rows = [np.flatnonzero(rng.random(items) < rng.choice([0, 0.1, 0.5, 1])) for _ in range(users)]
    offsets = np.cumsum([0, *(row.size for row in rows), 0]).astype(np.int64)
    return SeenItems(offsets, np.concatenate([*rows, []]).astype(np.int32), items)
