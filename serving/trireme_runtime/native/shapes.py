"""What compiled stages need of their tables: C reads them by their sizes, and cannot tell where they end."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from numbers import Integral, Real
from typing import Any

import numpy as np

from trireme_runtime.errors import ArtifactError
from trireme_runtime.native.tables import Tables

__all__ = ["DTYPES", "FLOATS", "joined", "verify"]

Sizes = Mapping[str, int]
#: The values of tables by name, and how many they are.
Counts = dict[str, int]

#: The types of tables; others hold float32.
DTYPES = {
    "user_ids": "int64",
    "item_ids": "int64",
    "history": "int32",
    "category": "int32",
    "number": "float32",
    "context_sizes": "int32",
    "tower_first": "int64",
    "seen_offsets": "int64",
    "seen_items": "int32",
    "codes": "int8",
    "mean_codes": "int8",
    "first": "int64",
    "item": "int32",
    "place": "int32",
    "rank_first": "int64",
    "popular": "int32",
}

#: The sizes that are no whole numbers.
FLOATS = ("margin", "longest", "longest_code")
#: The least value of sizes that may not be 0.
LEAST = {"candidates": 1, "list_length": 1}


def joined(tables: Mapping[str, Tables]) -> dict[str, Any]:
    """Returns the tables of several stages, by their names, as one.

    Raises:
        ArtifactError: two stages differ about a size, or about the shape of a table.
    """
    held: dict[str, Any] = {}
    said_by: dict[str, str] = {}
    for stage, own in tables.items():
        for name, value in own.items():
            other: Any = held.setdefault(name, value)
            if other is not value and (np.shape(value) != np.shape(other) or (np.ndim(value) == 0 and value != other)):
                raise ArtifactError(
                    f"compiled stages: {name} is {_short(other)} in {said_by[name]} and {_short(value)} in {stage}"
                )
            said_by.setdefault(name, stage)
    return held


def verify(stages: Iterable[str], tables: Tables) -> None:
    """Holds the tables of ``stages`` to their sizes, and small ones that are indices to their range.

    Raises:
        ArtifactError: names the table or the size.
    """
    for name, value in tables.items():
        _number(name, value)
    for stage in stages:
        try:
            counts = _COUNTS[stage](tables)
            for name in _SIZES.get(stage, ()):
                tables[name]
            for name, count in counts.items():
                if tables[name].size != count:
                    raise ArtifactError(f"compiled {stage}: {name} has {tables[name].size} values, needed: {count}")
                _of_type(stage, name, tables[name])
        except KeyError as error:
            raise ArtifactError(f"compiled {stage}: there is no {error.args[0]}; export again") from None
        for name in counts.keys() & _RANGES.keys():
            _within(stage, name, tables[name], _RANGES[name](tables))
        if "first" in counts:
            _inverted(stage, tables)


def _number(name: str, value: Any) -> None:
    """Holds what is no array to a size."""
    least, real = LEAST.get(name, 0), name in FLOATS
    of_kind = isinstance(value, Real if real else Integral)
    if not isinstance(value, np.ndarray) and not (of_kind and value >= least):
        kind = "a number" if real else "a whole number"
        raise ArtifactError(f"compiled stages: {name} is {value!r}, needed: {kind} from {least}")


def _within(stage: str, name: str, table: np.ndarray, allowed: tuple[int, int]) -> None:
    least, end = allowed
    if table.size and not (least <= table.min() and table.max() < end):
        raise ArtifactError(
            f"compiled {stage}: {name} holds {table.min()} to {table.max()}, allowed: {least} to {end - 1}"
        )


def _of_type(stage: str, name: str, table: np.ndarray) -> None:
    needed = DTYPES.get(name, "float32")
    if not np.can_cast(table.dtype, needed, "same_kind"):
        raise ArtifactError(f"compiled {stage}: {name} is {table.dtype.name}, needed: {needed}")


def _inverted(stage: str, tables: Tables) -> None:
    """Holds an inverted file to its form: search reads by ``first`` and ``place``, and answers what ``item`` says."""
    first, item, place = (tables[name].ravel() for name in ("first", "item", "place"))
    if first[0] != 0 or first[-1] != item.size or (first[1:] < first[:-1]).any() or (first % 8).any():
        raise ArtifactError(f"compiled {stage}: first is no order of lists of whole groups of 8 up to {item.size}")
    if (item[place] != np.arange(place.size)).any() or np.count_nonzero(item >= 0) != place.size:
        raise ArtifactError(f"compiled {stage}: item and place are not the inverse of each other")
    after_padding = np.flatnonzero((item[:-1] < 0) & (item[1:] >= 0)) + 1
    if not np.isin(after_padding, first).all():
        raise ArtifactError(f"compiled {stage}: item has padding before the end of a list")


def _padded(width: int, by: int = 16) -> int:
    return -(-width // by) * by


def _feature_transform(s: Sizes) -> Counts:
    users = s["users"] + 1
    return {
        "user_ids": s["users"],
        "item_ids": s["items"],
        "history": users * s["length"],
        "category": users * s["categories"],
        "number": users * (s["numbers"] - 1),
        "context_sizes": s["contexts"],
    }


def _user_tower(s: Sizes) -> Counts:
    heads, latent, hidden, dim = s["heads"], s["latent"], _padded(s["hidden"]), _padded(s["dim"])
    features = heads * latent + s["categories"] * s["category_width"] + s["numbers"]
    return {
        "read": (s["items"] + 1) * latent,
        "position": heads * s["length"],
        "item_score": heads * latent,
        "context": _padded(heads * s["key_width"]) * latent,
        "key": heads * s["key_width"] * _padded(latent),
        "tower_category": s["tower_values"] * s["category_width"],
        "tower_first": s["categories"],
        "tower_norm": 2 * features,
        "mix": hidden * features,
        "mix_bias": hidden,
        "query": dim * (_padded(heads * latent) + hidden),
        "query_bias": dim,
    }


def _retrieval(s: Sizes) -> Counts:
    dim, lists = s["dim"], s.get("lists", 0)
    places = s["places"] if lists else s["items"]
    inverted = {
        "mean_codes": _padded(lists, 8) * _padded(dim),
        "mean_step": _padded(lists, 8),
        "bonus": lists,
        "first": lists + 1,
        "item": places,
        "place": s["items"],
    }
    return {
        **_seen(s),
        **(inverted if lists else {}),
        "vectors": places * dim,
        "codes": _padded(places, 8) * _padded(dim),
        "step": _padded(places, 8),
        "error": _padded(places, 8),
        "centre": dim,
        "range": dim,
    }


def _ranking(s: Sizes) -> Counts:
    items, width, hidden = s["items"] + 1, s["rank_width"], s["rank_hidden"]
    features = width + s["categories"] * s["category_width"] + s["numbers"]
    if not s["rank_history"] <= s["length"]:
        raise ArtifactError(f"compiled ranking: rank_history is {s['rank_history']}, allowed: up to {s['length']}")
    return {
        "item_half": items * hidden,
        "item_vector": items * width,
        "recency": s["rank_heads"] * s["rank_history"],
        "rank_category": s["rank_values"] * s["category_width"],
        "rank_first": s["categories"],
        "rank_norm": 2 * features,
        "user_half": _padded(hidden) * features,
        "user_half_bias": _padded(hidden),
        "user_vector": _padded(width) * features,
        "user_vector_bias": _padded(width),
        "interaction": _padded(hidden) * (3 + s["rank_heads"] + s["groups"] + 1),
        "cross": _padded(hidden) * hidden,
        "cross_bias": _padded(hidden),
        "output": _padded(hidden),
    }


def _reranking(s: Sizes) -> Counts:
    popular = s["segments"] * s["popular_length"]
    return {**_seen(s), "item_ids": s["items"], "popular": popular, "popular_score": popular}


def _seen(s: Mapping[str, Any]) -> Counts:
    return {"seen_offsets": s["users"] + 2, "seen_items": int(s["seen_offsets"][-1])}


_COUNTS: Mapping[str, Callable[[Tables], Counts]] = {
    "feature_transform": _feature_transform,
    "user_tower": _user_tower,
    "retrieval": _retrieval,
    "ranking": _ranking,
    "reranking": _reranking,
}

#: Sizes on which no table depends.
_SIZES = {
    "user_tower": ("newest",),
    "retrieval": ("candidates", "longest", "longest_code"),
    "reranking": ("list_length", "segment_column"),
}

#: The least value of indices, and the end of the allowed ones. Those that grow with the users are checked for each request.
_RANGES: Mapping[str, Callable[[Tables], tuple[int, int]]] = {
    "tower_first": lambda s: (0, s["tower_values"]),
    "rank_first": lambda s: (0, s["rank_values"]),
    "popular": lambda s: (-1, s["items"]),
    "item": lambda s: (-1, s["items"]),
    "place": lambda s: (0, s["places"]),
}


def _short(value: Any) -> Any:
    return f"an array {list(value.shape)}" if isinstance(value, np.ndarray) else value
