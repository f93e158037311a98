"""The weights of the shipped models as the compiled stages read them, see ``trireme_runtime/native/funnel.h``."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from trireme_export.models.features import CategoryEncoder
from trireme_export.models.ranker import GROUPS, RankerCore, ServingRanker
from trireme_export.models.two_tower import NEWEST, ServingTower, UserTower

__all__ = ["EIGHT", "interleaved", "item_codes", "panels", "quantised", "ranker_tables", "tower_tables"]

#: Outputs of a layer that lie side by side.
PAD = 16
#: Items whose codes lie side by side.
EIGHT = 8
#: The share of values of a dimension that codes represent without clipping the steps of the others.
COMMON = 0.99
#: Items that those ranges are taken from, and items whose codes are made at a time.
SAMPLE, AT_ONCE = 1 << 16, 1 << 16


def panels(weight: np.ndarray) -> np.ndarray:
    """Returns a layer's weight (outputs, inputs) as float32 (outputs / 16, inputs, 16), with zeros at the end."""
    outputs, inputs = weight.shape
    padded = np.zeros((-(-outputs // PAD) * PAD, inputs), dtype=np.float32)
    padded[:outputs] = weight
    return np.ascontiguousarray(padded.reshape(-1, PAD, inputs).transpose(0, 2, 1))


def _padded(array: np.ndarray, axis: int = -1) -> np.ndarray:
    """Returns ``array`` with zeros at the end of ``axis``, up to a multiple of 16."""
    more = [(0, 0)] * array.ndim
    more[axis] = (0, -array.shape[axis] % PAD)
    return np.pad(array.astype(np.float32), more)


def tower_tables(module: nn.Module) -> dict[str, Any] | None:
    """Returns the tables of a user tower of the shipped form; None for others."""
    if type(module) is not ServingTower or not _shipped(module.user, UserTower):
        return None
    user, shape = module.user, module.user.shape
    pooling, mix = user.pooling, user.mix[1]
    assert isinstance(mix, nn.Linear)
    keys = pooling.key.weight.shape[0] // shape.heads
    key = _array(pooling.key.weight).reshape(shape.heads, keys, shape.latent)
    rest = np.zeros((1 + shape.popularity, shape.heads * shape.latent))
    pooled = np.concatenate([_array(user.merge.weight), rest])
    mixed = np.concatenate([_array(user.residual.weight), np.zeros((1, shape.hidden)), _array(user.popularity.weight)])
    bias = np.concatenate([_array(user.residual.bias), np.ones(1), _array(user.popularity.bias)])
    return {
        "read": _array(module.table),
        "position": _array(pooling.position),
        "item_score": _array(pooling.item_score.weight),
        "context": panels(_array(pooling.context.weight)),
        "key": np.stack([panels(head.T) for head in key]),
        **_categories(user.categories, "tower"),
        "tower_norm": _norm(user.norm),
        "mix": panels(_array(mix.weight)),
        "mix_bias": _padded(_array(mix.bias)),
        "query": panels(np.concatenate([_padded(pooled), _padded(mixed)], axis=1)),
        "query_bias": _padded(bias),
        "items": len(module.table) - 1,
        "length": shape.history_length,
        "categories": len(shape.user_category_sizes),
        "numbers": shape.user_numbers,
        "tower_values": sum(shape.user_category_sizes),
        "latent": shape.latent,
        "heads": shape.heads,
        "key_width": keys,
        "newest": NEWEST,
        "category_width": shape.feature_dim,
        "hidden": shape.hidden,
        "dim": shape.dim,
    }


def ranker_tables(module: nn.Module) -> dict[str, Any] | None:
    """Returns the tables of a ranker of the shipped form; None for others."""
    if type(module) is not ServingRanker or not _shipped(module.core, RankerCore):
        return None
    core, shape = module.core, module.core.shape
    with torch.no_grad():
        recency = torch.exp(core.recency - core.recency.amax(dim=1, keepdim=True))
        interaction = core.interaction.weight * core._scales().t()
        output = core.output.weight[0] * core.blend
    return {
        "item_half": _array(module.item_half),
        "item_vector": _array(module.item_vector),
        "recency": _array(recency),
        **_categories(core.categories, "rank"),
        "rank_norm": _norm(core.user_norm),
        "user_half": panels(_array(core.user_half.weight)),
        "user_half_bias": _padded(_array(core.user_half.bias)),
        "user_vector": panels(_array(core.user_vector.weight)),
        "user_vector_bias": _padded(_array(core.user_vector.bias)),
        "interaction": panels(_array(interaction)),
        "cross": panels(_array(core.cross.weight)),
        "cross_bias": _padded(_array(core.cross.bias) + 1),
        "output": _padded(_array(output)),
        "items": len(module.item_half) - 1,
        "length": shape.history_length,
        "categories": len(shape.user_category_sizes),
        "numbers": shape.user_numbers,
        "category_width": shape.feature_dim,
        "rank_values": sum(shape.user_category_sizes),
        "rank_width": shape.rank_dim,
        "rank_hidden": shape.rank_hidden,
        "rank_history": shape.rank_history,
        "rank_heads": shape.rank_heads,
        "groups": GROUPS,
    }


def item_codes(vectors: np.ndarray) -> dict[str, Any]:
    """Returns what search reads of ``vectors`` float32 (N, Q) before it reads some of them in full.

    Every dimension is divided by its range, so that a step of a code means about as much in each.
    """
    centre = vectors.mean(axis=0)
    centred = np.abs(vectors[:: max(1, len(vectors) // SAMPLE)] - centre)
    span = np.quantile(centred, COMMON, axis=0)
    span[span <= 0] = np.maximum(centred.max(axis=0), 1e-30)[span <= 0]
    parts = [quantised((vectors[start : start + AT_ONCE] - centre) / span) for start in range(0, len(vectors), AT_ONCE)]
    codes, step, error, length = (np.concatenate(column) for column in zip(*parts, strict=True))
    return {
        "vectors": vectors,
        "codes": interleaved(codes),
        "step": np.pad(step, (0, -len(step) % EIGHT)),
        # The bounds count on it, so it is rounded up.
        "error": np.pad(np.nextafter(error, np.float32(np.inf)), (0, -len(error) % EIGHT)),
        "centre": centre.astype(np.float32),
        "range": span.astype(np.float32),
        "items": len(vectors),
        "dim": vectors.shape[1],
        "longest": float(np.linalg.norm(vectors, axis=1).max()),
        "longest_code": float(length.max()),
    }


def quantised(scaled: np.ndarray) -> tuple[np.ndarray, ...]:
    """Returns codes int8 (n, Q) of rows (n, Q), what their unit stands for, what they leave out, and the lengths, float32 (n)."""
    step = np.maximum(np.abs(scaled).max(axis=1), 1e-30) / 127
    codes = np.rint(scaled / step[:, None])
    error = np.linalg.norm(scaled - codes * step[:, None], axis=1)
    length = np.linalg.norm(scaled, axis=1)
    return codes.astype(np.int8), *(value.astype(np.float32) for value in (step, error, length))


def interleaved(codes: np.ndarray) -> np.ndarray:
    """Returns codes int8 (N, Q) as (N / 8, Q / 2, 8, 2), with zeros where eight items or sixteen dimensions are not full."""
    codes = np.pad(codes, [(0, -codes.shape[0] % EIGHT), (0, -codes.shape[1] % PAD)])
    pairs = codes.reshape(-1, EIGHT, codes.shape[1] // 2, 2)
    return np.ascontiguousarray(pairs.transpose(0, 2, 1, 3))


def _shipped(module: UserTower | RankerCore, kind: type[UserTower | RankerCore]) -> bool:
    """Whether ``module`` is of this kind, and so is every layer in it of the kind that it is made of."""
    with torch.device("meta"):  # without memory, and without a draw from the generator
        made = kind(module.shape)
    return [(name, type(layer)) for name, layer in module.named_modules()] == [
        (name, type(layer)) for name, layer in made.named_modules()
    ]


def _array(tensor: Tensor) -> np.ndarray:
    return np.ascontiguousarray(tensor.detach().cpu().numpy())


def _norm(layer: nn.LayerNorm) -> np.ndarray:
    return np.stack([_array(layer.weight), _array(layer.bias)])


def _categories(encoder: CategoryEncoder, prefix: str) -> dict[str, np.ndarray]:
    table = torch.cat([table.weight for table in encoder.tables if isinstance(table, nn.Embedding)])
    return {f"{prefix}_category": _array(table), f"{prefix}_first": _array(encoder.first).astype(np.int64)}
