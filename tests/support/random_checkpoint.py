"""A checkpoint of the shipped models with random weights and tables, without training."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.support.random_funnel import model_shape, random_models, random_stages
from trireme_export.checkpoint import Checkpoint
from trireme_export.config import PipelineConfig
from trireme_export.models import TrainedModels
from trireme_export.tables import Tables

__all__ = ["SIZES", "random_checkpoint"]

#: Enough items for tables that are large.
SIZES: dict[str, Any] = {
    **{"seed": 1, "items": 3000, "users": 90, "length": 6, "categories": (3, 4), "numbers": 2, "popularity": 2},
    **{"latent": 12, "heads": 2, "feature_dim": 3, "hidden": 16, "rank_dim": 16, "rank_hidden": 12, "rank_history": 4},
    **{"rank_heads": 2, "candidates": 30, "popular_length": 40},
}


def random_checkpoint(**sizes: Any) -> Checkpoint:
    """Returns a checkpoint of ``SIZES``, or with other ``sizes``; the first of ``contexts`` is named c0, its values v1, v2, …."""
    chosen = {**SIZES, **sizes}
    features, _, retrieval, _, reranking = random_stages(chosen)
    shape = model_shape(chosen)
    two_tower, ranker = random_models(shape, np.random.default_rng(chosen["seed"]))
    tables = Tables(
        **{name: getattr(features, name) for name in ("user_ids", "item_ids", "history", "category", "number")},
        seen_offsets=retrieval.seen.offsets,
        seen_items=retrieval.seen.items,
        popular=reranking.popular,
        popular_score=reranking.popular_score,
        segment=np.array([reranking.segment_column]),
    )
    context = {f"c{n}": [f"v{value}" for value in range(1, size)] for n, size in enumerate(chosen.get("contexts", ()))}
    serving = {"candidates": chosen["candidates"], "list_length": min(8, chosen["candidates"])}
    config = PipelineConfig.model_validate({"serving": {**serving, "precision": "float32"}})
    return Checkpoint(config, TrainedModels(shape, two_tower, ranker), tables, {"name": "random", "context": context})
