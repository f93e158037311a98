"""From a directory of parquet files to a ``Dataset``: reads, splits, encodes, and reports what was left out."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from trireme_export.data.dataset import Dataset
from trireme_export.data.errors import DataColumnError, DataValueError
from trireme_export.data.evaluation_set import EvaluationSet, build_evaluation
from trireme_export.data.features import FeatureTable, encode_features
from trireme_export.data.histories import csr, distinct_pairs
from trireme_export.data.options import DataConfig
from trireme_export.data.reader import EntityTable, Interactions, read_entities, read_interactions
from trireme_export.data.report import DataReport
from trireme_export.data.schema import ColumnKind, infer_kinds, pick_segment, pick_title
from trireme_export.data.split import SplitBy, draw_holdout, test_mask
from trireme_export.data.synthetic import write_synthetic
from trireme_runtime.arrays import lookup

__all__ = ["SYNTHETIC", "load_dataset", "read_dataset"]

SYNTHETIC = "synthetic"
EXAMPLES = 3
#: Stands in where users have no categorical column: everybody is unknown in it.
NO_CATEGORY = "none"


@dataclass(frozen=True)
class Entities:
    """One of items.parquet and users.parquet with the kinds of its columns; no table where there is no file."""

    table: EntityTable | None
    kinds: dict[str, ColumnKind]

    def lacking(self, ids: np.ndarray) -> np.ndarray:
        """Those of ``ids`` (int64 [n]) that the file has no row for; none where there is no file."""
        return ids[:0] if self.table is None else np.setdiff1d(ids, self.table.ids)

    def beyond(self, ids: np.ndarray) -> np.ndarray:
        """Ids of the file that are not among ``ids`` (int64 [n]); none where there is no file."""
        return ids[:0] if self.table is None else np.setdiff1d(self.table.ids, ids)

    def encode(self, ids: np.ndarray, config: DataConfig) -> FeatureTable:
        """Features of the rows ``ids`` (int64 [n])."""
        return encode_features(
            self.table,
            self.kinds,
            ids,
            min_count=config.min_category_count,
            max_categories=config.max_categories,
        )


@dataclass(frozen=True)
class Parts:
    """Positives in ascending time, and the part of each. Rows in no part are not used."""

    user_id: np.ndarray
    item_id: np.ndarray
    time: np.ndarray
    train: np.ndarray
    """bool [n], of known users."""
    test: np.ndarray
    """bool [n], of known users."""
    past: np.ndarray
    """bool [n], of users held out: their history when served."""
    future: np.ndarray
    """bool [n], of users held out: their test."""
    held_users: np.ndarray
    """int64 [h], ascending."""


def load_dataset(source: Path | str, config: DataConfig | None = None) -> Dataset:
    """A directory, or the word ``synthetic``: then a small data set is made and read like any other.

    Raises:
        DataError: see ``trireme_export.data.errors``.
    """
    if str(source) != SYNTHETIC:
        return read_dataset(Path(source), config)
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / SYNTHETIC
        write_synthetic(path)
        return read_dataset(path, config)


def read_dataset(directory: Path, config: DataConfig | None = None) -> Dataset:
    """Read a directory with interactions.parquet and, if there, items.parquet and users.parquet.

    Raises:
        DataError: see ``trireme_export.data.errors``.
    """
    config = config or DataConfig()
    interactions = read_interactions(
        directory,
        time_column=config.time_column,
        label_column=config.label_column,
        label_minimum=config.label_minimum,
    )
    by: SplitBy = config.split_by or ("user" if interactions.time_column == "seq" else "time")
    parts = _split(directory, interactions, config, by)
    users = _entities(directory, "user", config)
    items = _entities(directory, "item", config)
    return _assemble(directory.name, interactions, parts, users, items, by, config)


def _entities(directory: Path, name: str, config: DataConfig) -> Entities:
    overrides = config.user_features if name == "user" else config.item_features
    table = read_entities(directory, name)
    if table is None:
        if overrides:
            raise DataColumnError(f"{directory / name}s.parquet: missing, but {', '.join(overrides)} are configured")
        return Entities(None, {})
    return Entities(table, infer_kinds(table, overrides, snapshots=name == "item"))


def _split(directory: Path, interactions: Interactions, config: DataConfig, by: SplitBy) -> Parts:
    """Positives first, then the split: the test is the last part of the positives."""
    positive = interactions.positive
    user_id, item_id = interactions.user_id[positive], interactions.item_id[positive]
    test = test_mask(user_id, config.test_fraction, by)
    held_users = draw_holdout(user_id[~test], config.holdout_users, np.random.default_rng(config.holdout_seed))
    held = np.isin(user_id, held_users)
    train = ~test & ~held
    train &= _frequent(item_id, train, config.min_item_interactions)
    train &= _frequent(user_id, train, config.min_user_interactions)
    if not train.any():
        raise DataValueError(
            f"{directory / 'interactions.parquet'}: nothing to train on: of {user_id.size} positives "
            f"{np.count_nonzero(test)} are test and {np.count_nonzero(held)} are of users held out; "
            "lower test_fraction, holdout_users or the minimum counts"
        )
    time = interactions.time[positive]
    return Parts(user_id, item_id, time, train, test & ~held, ~test & held, test & held, held_users)


def _frequent(ids: np.ndarray, counted: np.ndarray, minimum: int) -> np.ndarray:
    """bool [n]: ids (int64 [n]) that occur at least ``minimum`` times among the ``counted`` (bool [n])."""
    if minimum <= 1:
        return np.ones(ids.size, dtype=bool)
    values, counts = np.unique(ids[counted], return_counts=True)
    return np.isin(ids, values[counts >= minimum])


def _assemble(
    name: str,
    interactions: Interactions,
    parts: Parts,
    users: Entities,
    items: Entities,
    by: SplitBy,
    config: DataConfig,
) -> Dataset:
    item_ids = np.unique(parts.item_id[parts.train])
    user_ids = _user_ids(parts, users)
    user_features, item_features = users.encode(user_ids, config), items.encode(item_ids, config)
    segment, title = _segment(user_features, config), pick_title(items.kinds, config.title_column)
    user_features = _with_category(user_features)
    row, index = lookup(user_ids, parts.user_id), lookup(item_ids, parts.item_id)
    train = row[parts.train], index[parts.train]
    offsets, train_items = csr(*train, user_ids.size)
    catalogue_size = item_ids.size
    test = build_evaluation(
        user_ids,
        np.arange(user_ids.size, dtype=np.int32),
        train,
        (row[parts.test], index[parts.test]),
        catalogue_size,
    )
    report = DataReport(
        **_counts(interactions, parts, users, items),
        split_by=by,
        users=int(user_ids.size),
        users_without_history=int(np.count_nonzero(np.diff(offsets) == 0)),
        users_evaluated=test.n_users,
        items=int(catalogue_size),
        items_untrained=int(items.beyond(item_ids).size),
        user_columns=_explained(users, user_features),
        item_columns=_explained(items, item_features),
        title_column=title,
        segment_column=segment,
    )
    return Dataset(
        name=name,
        item_ids=item_ids,
        user_ids=user_ids,
        train_offsets=offsets,
        train_items=train_items,
        train_times=None if by == "user" else parts.time[parts.train][np.argsort(train[0], kind="stable")],
        users=user_features,
        items=item_features,
        segment=user_features.category_names.index(segment) if segment else 0,
        item_titles=_titles(items.table, title, item_ids),
        item_popularity=np.bincount(distinct_pairs(*train, catalogue_size)[1], minlength=catalogue_size),
        test=test,
        holdout=_holdout(parts, index, catalogue_size) if config.holdout_users else None,
        report=report,
    )


def _user_ids(parts: Parts, users: Entities) -> np.ndarray:
    """int64 [U], ascending; users held out are unknown even if users.parquet has them."""
    known = np.unique(parts.user_id[parts.train])
    if users.table is not None:
        known = np.union1d(known, users.table.ids)
    return np.setdiff1d(known, parts.held_users, assume_unique=True)


def _segment(users: FeatureTable, config: DataConfig) -> str | None:
    sizes = {n: size - 1 for n, size in zip(users.category_names, users.category_sizes, strict=True)}
    return pick_segment(sizes, config.segment_column)


def _with_category(users: FeatureTable) -> FeatureTable:
    """Models and tensors need one category at least."""
    if users.category_names:
        return users
    return FeatureTable(
        np.zeros((users.number.shape[0], 1), dtype=np.int32),
        (NO_CATEGORY,),
        (("",),),
        users.number,
        users.number_names,
        users.lists,
        users.dropped,
    )


def _titles(table: EntityTable | None, column: str | None, item_ids: np.ndarray) -> tuple[str, ...]:
    if table is None or column is None:
        return ("",) * item_ids.size
    order = np.argsort(table.ids)
    position = lookup(table.ids[order], item_ids)
    row = pa.array(order[np.maximum(position, 0)], mask=position < 0)
    return tuple("" if value is None else str(value) for value in table.columns[column].take(row).to_pylist())


def _holdout(parts: Parts, index: np.ndarray, catalogue_size: int) -> EvaluationSet:
    """Users held out, with the items of their past that training knows."""
    user = lookup(parts.held_users, parts.user_id)
    past = parts.past & (index >= 0)
    return build_evaluation(
        parts.held_users,
        np.full(parts.held_users.size, -1, dtype=np.int32),
        (user[past], index[past]),
        (user[parts.future], index[parts.future]),
        catalogue_size,
    )


def _counts(interactions: Interactions, parts: Parts, users: Entities, items: Entities) -> dict[str, Any]:
    """The part of the report that the files and the split decide."""
    no_item = items.lacking(np.unique(interactions.item_id))
    no_user = users.lacking(np.unique(interactions.user_id))
    return {
        "interactions": int(interactions.user_id.size),
        "positives": int(parts.user_id.size),
        "label": interactions.label,
        "time_column": interactions.time_column,
        "out_of_order": interactions.out_of_order,
        "train": int(np.count_nonzero(parts.train)),
        "test": int(np.count_nonzero(parts.test | parts.future)),
        "users_held_out": int(parts.held_users.size),
        "items_without_features": int(no_item.size),
        "items_without_features_such_as": tuple(no_item[:EXAMPLES].tolist()),
        "users_without_features": int(no_user.size),
        "users_without_features_such_as": tuple(no_user[:EXAMPLES].tolist()),
    }


def _explained(entities: Entities, features: FeatureTable) -> dict[str, str]:
    """``kind: reason`` of each column, as it was used in the end."""
    explained = {name: f"{column.kind}: {column.reason}" for name, column in entities.kinds.items()}
    return explained | {name: f"ignore: {reason}" for name, reason in features.dropped.items()}
