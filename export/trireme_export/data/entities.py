"""items.parquet or users.parquet: its rows, the kinds of its columns, and features of the rows that are wanted."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from trireme_export.data.errors import DataColumnError
from trireme_export.data.features import FeatureTable, encode_features, feature_values
from trireme_export.data.options import DataConfig
from trireme_export.data.reader import EntityTable, read_entities
from trireme_export.data.schema import ColumnKind, infer_kinds
from trireme_runtime.arrays import lookup

__all__ = ["Entities", "open_entities"]


@dataclass(frozen=True)
class Entities:
    """One of items.parquet and users.parquet with the kinds of its columns; without a table where there is no file."""

    table: EntityTable | None
    kinds: dict[str, ColumnKind]

    def lacking(self, ids: np.ndarray) -> np.ndarray:
        """Returns those of ``ids`` (int64 [n]) that the file has no row for; none where there is no file."""
        return ids[:0] if self.table is None else np.setdiff1d(ids, self.table.ids)

    def beyond(self, ids: np.ndarray) -> np.ndarray:
        """Returns the ids of the file that are not among ``ids`` (int64 [n]); none where there is no file."""
        return ids[:0] if self.table is None else np.setdiff1d(self.table.ids, ids)

    def encode(self, ids: np.ndarray, config: DataConfig) -> FeatureTable:
        """Returns the features of the rows ``ids`` (int64 [n])."""
        return encode_features(
            self.table, self.kinds, ids, min_count=config.min_category_count, max_categories=config.max_categories
        )

    def values(self, features: FeatureTable, ids: np.ndarray) -> dict[str, np.ndarray]:
        """Returns what the ``features`` of the rows ``ids`` (int64 [n]) were made from: see ``feature_values``."""
        return feature_values(self.table, features, ids)

    def texts(self, column: str | None, ids: np.ndarray) -> tuple[str, ...]:
        """Returns the values of ``column`` for ``ids`` (int64 [n]) as text, empty where there is none."""
        if self.table is None or column is None:
            return ("",) * ids.size
        order = np.argsort(self.table.ids)
        position = lookup(self.table.ids[order], ids)
        row = pa.array(order[np.maximum(position, 0)], mask=position < 0)
        return tuple("" if value is None else str(value) for value in self.table.columns[column].take(row).to_pylist())

    def explained(self, features: FeatureTable) -> dict[str, str]:
        """Returns ``kind: reason`` of each column, as it was used in the end."""
        explained = {name: f"{column.kind}: {column.reason}" for name, column in self.kinds.items()}
        return explained | {name: f"ignore: {reason}" for name, reason in features.dropped.items()}


def open_entities(directory: Path, name: str, config: DataConfig) -> Entities:
    """Reads ``items.parquet`` (``name="item"``) or ``users.parquet`` (``"user"``) and infers the kinds of its columns.

    Raises:
        DataError: the file cannot be used, or a column that is configured is missing or of the wrong type.
    """
    overrides = config.user_features if name == "user" else config.item_features
    table = read_entities(directory, name)
    if table is None:
        if overrides:
            raise DataColumnError(f"{directory / name}s.parquet: missing, but {', '.join(overrides)} are configured")
        return Entities(None, {})
    return Entities(table, infer_kinds(table, overrides))
