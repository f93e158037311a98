"""Columns to arrays that a model can read. It knows kinds (``schema``), not files.

Category index 0 and number 0.0 mean unknown, rare or missing in every column.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from trireme_export.data.reader import EntityTable
from trireme_export.data.schema import SEPARATOR, ColumnKind, to_float
from trireme_runtime.arrays import lookup

__all__ = [
    "FeatureTable",
    "ListFeature",
    "encode_category",
    "encode_features",
    "feature_values",
    "standardise",
    "text_bytes",
]

#: Share of values at each end that are pulled in to the quantile, so that one outlier does not set the scale.
TAIL = 0.005
#: Skewness above which a number that is never negative is read on a logarithmic scale.
SKEWED = 1.0
#: Largest size of a standardised number.
LIMIT = 5.0


@dataclass(frozen=True)
class ListFeature:
    """A multi-valued column as CSR: the values of row i are ``values[offsets[i]:offsets[i + 1]]``."""

    name: str
    offsets: np.ndarray
    """int64 [n + 1]."""
    values: np.ndarray
    """int32 [offsets[-1]], in [1, size)."""
    vocabulary: tuple[str, ...]
    """Names of the indices; the first is the empty name of 0."""

    @property
    def size(self) -> int:
        return len(self.vocabulary)


@dataclass(frozen=True)
class FeatureTable:
    """Features of n rows."""

    category: np.ndarray
    """int32 [n, F]."""
    category_names: tuple[str, ...]
    vocabularies: tuple[tuple[str, ...], ...]
    """Names of the indices per column; the first is the empty name of 0."""
    number: np.ndarray
    """float32 [n, D], about mean 0 and deviation 1 over the rows that have a value."""
    number_names: tuple[str, ...]
    lists: tuple[ListFeature, ...]
    dropped: Mapping[str, str]
    """Columns that turned out to give no feature, with the reason."""

    @property
    def category_sizes(self) -> tuple[int, ...]:
        """Number of indices per column, 0 (unknown) counted."""
        return tuple(len(vocabulary) for vocabulary in self.vocabularies)


def encode_features(
    table: EntityTable | None,
    kinds: Mapping[str, ColumnKind],
    ids: np.ndarray,
    *,
    min_count: int,
    max_categories: int,
) -> FeatureTable:
    """Encodes the features of the rows ``ids``, fitted on those rows only.

    Args:
        table: the file read, or None: then there are no features.
        kinds: kind of each column.
        ids: int64 [n], external ids; one that the table lacks gets unknown in every column.
        min_count: rows in which a value must occur to have an index of its own.
        max_categories: most indices of a column; the most frequent values get them.
    """
    row = _row_of(table, ids)

    def of(kind: str) -> Iterator[tuple[str, pa.Array]]:
        for name, column in ({} if table is None else table.columns).items():
            if kinds[name].kind == kind:
                yield name, column.take(pa.array(row, mask=row < 0))

    found = {name: encode_category(column, min_count, max_categories) for name, column in of("category")}
    scaled = {name: standardise(to_float(column)) for name, column in of("number")}
    split = [_list(name, column, min_count, max_categories) for name, column in of("list")]
    categories = {name: entry for name, entry in found.items() if len(entry[1]) > 1}
    numbers = {name: values for name, values in scaled.items() if values.any()}
    lists = tuple(feature for feature in split if feature.size > 1)
    rare = [
        *(name for name in found if name not in categories),
        *(feature.name for feature in split if feature.size == 1),
    ]
    constant = [name for name in scaled if name not in numbers]
    return FeatureTable(
        category=_stack([index for index, _ in categories.values()], ids.size, np.int32),
        category_names=tuple(categories),
        vocabularies=tuple(vocabulary for _, vocabulary in categories.values()),
        number=_stack(list(numbers.values()), ids.size, np.float32),
        number_names=tuple(numbers),
        lists=lists,
        dropped=dict.fromkeys(rare, f"no value occurs in {min_count} rows")
        | dict.fromkeys(constant, "has a single value"),
    )


def feature_values(table: EntityTable | None, features: FeatureTable, ids: np.ndarray) -> dict[str, np.ndarray]:
    """Returns what the ``features`` of the rows ``ids`` (int64 [n]) were made from, by column, the same on every machine.

    Numbers are those of the file, float64 [n]: the last bits of standardised ones depend on the processor.
    """
    values: dict[str, np.ndarray] = {}
    for name, vocabulary, index in zip(
        features.category_names, features.vocabularies, features.category.T, strict=True
    ):
        values |= {f"{name} names": text_bytes(vocabulary), f"{name} index": index}
    for part in features.lists:
        values |= {f"{part.name} names": text_bytes(part.vocabulary), f"{part.name} index": part.values}
        values[f"{part.name} offsets"] = part.offsets
    if table is not None:
        row = _row_of(table, ids)
        rows = pa.array(row, mask=row < 0)
        values |= {name: to_float(table.columns[name].take(rows)) for name in features.number_names}
    return values


def text_bytes(names: tuple[str, ...]) -> np.ndarray:
    """Returns ``names`` as bytes that differ where one of them does: uint8 [m]."""
    return np.frombuffer("\0".join(names).encode(), dtype=np.uint8)


def standardise(values: np.ndarray) -> np.ndarray:
    """Puts a number column on a scale that outliers do not set.

    Values are pulled in to the quantiles ``TAIL`` and ``1 − TAIL``, put on a logarithmic scale where they are
    skewed and never negative, shifted and scaled to mean 0 and deviation 1, and cut at ±``LIMIT``.

    Args:
        values: float64 [n], NaN where missing.

    Returns:
        float32 [n], 0 where missing; all 0 for a column with a single value.
    """
    known = np.isfinite(values)
    result = np.zeros(values.size, dtype=np.float32)
    if not known.any():
        return result
    low, high = np.quantile(values[known], [TAIL, 1 - TAIL])
    kept = np.clip(values[known], low, high)
    if low >= 0 and _skewness(kept) > SKEWED:
        kept = np.log1p(kept)
    deviation = kept.std()
    if deviation <= 1e-9 * max(1.0, float(np.abs(kept).max())):
        return result
    result[known] = np.clip((kept - kept.mean()) / deviation, -LIMIT, LIMIT)
    return result


def _skewness(values: np.ndarray) -> float:
    centred = values - values.mean()
    deviation = centred.std()
    return float(np.mean(centred**3) / deviation**3) if deviation > 0 else 0.0


def _row_of(table: EntityTable | None, ids: np.ndarray) -> np.ndarray:
    """Returns the row of each id in the file, −1 where it is absent: int64 [n]."""
    if table is None:
        return np.full(ids.size, -1, dtype=np.int64)
    order = np.argsort(table.ids)
    position = lookup(table.ids[order], ids)
    return np.where(position >= 0, order[position], -1).astype(np.int64)


def encode_category(column: pa.Array, min_count: int, max_categories: int) -> tuple[np.ndarray, tuple[str, ...]]:
    """Returns the index of each row, int32 [n], and the names of the indices: most frequent first, ties by name."""
    encoded = column.dictionary_encode()
    code = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False)
    names = ["" if value is None else str(value) for value in encoded.dictionary.to_pylist()]
    count = np.bincount(code[code >= 0], minlength=len(names))
    frequent = [i for i in range(len(names)) if count[i] >= min_count and names[i] not in ("", "nan")]
    frequent.sort(key=lambda i: (-int(count[i]), names[i]))
    frequent = frequent[: max_categories - 1]
    index_of_code = np.zeros(len(names) + 1, dtype=np.int32)  # the last entry serves code −1, missing
    index_of_code[frequent] = np.arange(1, len(frequent) + 1)
    return index_of_code[code], ("", *(names[i] for i in frequent))


def _list(name: str, column: pa.Array, min_count: int, max_categories: int) -> ListFeature:
    parts = column
    if not (pa.types.is_list(column.type) or pa.types.is_large_list(column.type)):
        parts = pc.split_pattern(column, SEPARATOR)
    row = pc.list_parent_indices(parts).to_numpy(zero_copy_only=False)
    index, vocabulary = encode_category(pc.list_flatten(parts), min_count, max_categories)
    # One sort drops unknown parts and parts that a row repeats.
    keys = np.unique(row.astype(np.int64) * len(vocabulary) + index)
    keys = keys[keys % len(vocabulary) != 0] if len(vocabulary) > 1 else keys[:0]
    counts = np.bincount(keys // len(vocabulary), minlength=len(column))
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    return ListFeature(name, offsets, (keys % len(vocabulary)).astype(np.int32), vocabulary)


def _stack(columns: list[np.ndarray], rows: int, dtype: type) -> np.ndarray:
    return np.stack(columns, axis=1).astype(dtype) if columns else np.zeros((rows, 0), dtype=dtype)
