"""From a directory of parquet files to a ``Dataset``: reads, splits, encodes, and reports what was left out."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from trireme_export.data.context import Context, encode_context
from trireme_export.data.dataset import Dataset
from trireme_export.data.entities import Entities, open_entities
from trireme_export.data.evaluation_set import EvaluationSet, build_evaluation
from trireme_export.data.features import FeatureTable, text_bytes
from trireme_export.data.histories import csr, distinct_pairs
from trireme_export.data.options import DataConfig
from trireme_export.data.parts import Parts, split_positives
from trireme_export.data.reader import Interactions, read_interactions
from trireme_export.data.report import DataReport
from trireme_export.data.schema import pick_segment, pick_title
from trireme_export.data.split import SplitBy
from trireme_export.data.synthetic import write_synthetic
from trireme_export.digest import digest_of
from trireme_runtime.arrays import lookup

__all__ = ["SYNTHETIC", "load_dataset", "read_dataset"]

SYNTHETIC = "synthetic"
EXAMPLES = 3
#: Stands in where users have no categorical column: every user is unknown in it.
NO_CATEGORY = "none"


def load_dataset(source: Path | str, config: DataConfig | None = None) -> Dataset:
    """Reads a directory, or makes a small data set and reads it like any other where ``source`` is ``synthetic``.

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
    """Reads a directory with interactions.parquet and, if there, items.parquet and users.parquet.

    Raises:
        DataError: see ``trireme_export.data.errors``.
    """
    config = config or DataConfig()
    interactions = read_interactions(
        directory,
        time_column=config.time_column,
        label_column=config.label_column,
        label_minimum=config.label_minimum,
        context=config.context,
    )
    by: SplitBy = config.split_by or ("user" if interactions.time_column == "seq" else "time")
    parts = split_positives(directory, interactions, config, by)
    users, items = open_entities(directory, "user", config), open_entities(directory, "item", config)
    columns = {name: column.take(pa.array(parts.place)) for name, column in interactions.context.items()}
    file = str(directory / "interactions.parquet")
    context = encode_context(columns, parts.train, config.min_category_count, file)
    return _Assembly(directory.name, config, by, interactions, parts, users, items, context).dataset()


@dataclass(frozen=True)
class _Assembly:
    """What a data set is made of, and what follows from it step by step."""

    name: str
    config: DataConfig
    by: SplitBy
    interactions: Interactions
    parts: Parts
    users: Entities
    items: Entities
    context: Context
    """Of every positive."""

    def dataset(self) -> Dataset:
        train = self.train
        trained, tested = (
            self._by_user(self.parts.train),
            self._by_user(self.parts.test & (self.row >= 0) & (self.index >= 0)),
        )
        train_offsets, train_items, train_times = self._grouped(trained)
        test_offsets, test_items, test_times = self._grouped(tested)
        features, segment = self.user_features, self.segment
        return Dataset(
            name=self.name,
            item_ids=self.item_ids,
            user_ids=self.user_ids,
            train_offsets=train_offsets,
            train_items=train_items,
            train_times=train_times,
            test_offsets=test_offsets,
            test_items=test_items,
            test_times=test_times,
            shared_clock=self.by == "time",
            users=_with_category(features),
            items=self.item_features,
            segment=features.category_names.index(segment) if segment else 0,
            item_titles=self.items.texts(self.title, self.item_ids),
            item_popularity=np.bincount(distinct_pairs(*train, self.item_ids.size)[1], minlength=self.item_ids.size),
            test=self.test,
            holdout=self._holdout() if self.config.holdout_users else None,
            report=self._report(),
            train_context=replace(self.context, index=self.context.take(trained)),
            test_context=replace(self.context, index=self.context.take(tested)),
        )

    @cached_property
    def item_ids(self) -> np.ndarray:
        """int64 [N], ascending."""
        return np.unique(self.parts.item_id[self.parts.train])

    @cached_property
    def user_ids(self) -> np.ndarray:
        """int64 [U], ascending; users held out are unknown even if users.parquet has them."""
        known = np.unique(self.parts.user_id[self.parts.train])
        if self.users.table is not None:
            known = np.union1d(known, self.users.table.ids)
        return np.setdiff1d(known, self.parts.held_users, assume_unique=True)

    @cached_property
    def user_features(self) -> FeatureTable:
        return self.users.encode(self.user_ids, self.config)

    @cached_property
    def item_features(self) -> FeatureTable:
        return self.items.encode(self.item_ids, self.config)

    @cached_property
    def segment(self) -> str | None:
        """The user category whose values have popular lists of their own."""
        features = self.user_features
        sizes = {n: size - 1 for n, size in zip(features.category_names, features.category_sizes, strict=True)}
        return pick_segment(sizes, self.config.segment_column)

    @cached_property
    def title(self) -> str | None:
        """The column that names an item to people."""
        return pick_title(self.items.kinds, self.config.title_column)

    @cached_property
    def index(self) -> np.ndarray:
        """int32 [n]: the item index of every positive, −1 where training does not know the item."""
        return lookup(self.item_ids, self.parts.item_id)

    @cached_property
    def row(self) -> np.ndarray:
        """int32 [n]: the user row of every positive, −1 where training does not know the user."""
        return lookup(self.user_ids, self.parts.user_id)

    def _by_user(self, chosen: np.ndarray) -> np.ndarray:
        """Returns the places of the ``chosen`` positives (bool [n], of known users and items), grouped by user: int64 [p]."""
        place = np.flatnonzero(chosen)
        return place[np.argsort(self.row[place], kind="stable")]

    def _grouped(self, place: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Returns offsets, items and times of positives that are grouped by user."""
        offsets, items = csr(self.row[place], self.index[place], self.user_ids.size)
        return offsets, items, self.parts.time[place]

    @cached_property
    def train(self) -> tuple[np.ndarray, np.ndarray]:
        """User row and item index of each training positive, in ascending time."""
        return self.row[self.parts.train], self.index[self.parts.train]

    @cached_property
    def test(self) -> EvaluationSet:
        """The users of training who can be evaluated."""
        test = self.row[self.parts.test], self.index[self.parts.test]
        rows = np.arange(self.user_ids.size, dtype=np.int32)
        return build_evaluation(self.user_ids, rows, self.train, test, self.item_ids.size)

    def _holdout(self) -> EvaluationSet:
        """Returns the users held out, with the items of their past that training knows."""
        parts, index = self.parts, self.index
        user = lookup(parts.held_users, parts.user_id)
        past = parts.past & (index >= 0)
        unknown = np.full(parts.held_users.size, -1, dtype=np.int32)
        train, test = (user[past], index[past]), (user[parts.future], index[parts.future])
        return build_evaluation(parts.held_users, unknown, train, test, self.item_ids.size)

    def _report(self) -> DataReport:
        history = np.bincount(self.train[0], minlength=self.user_ids.size)
        return DataReport(
            **self._counts(),
            fingerprint=self._fingerprint(),
            split_by=self.by,
            users=int(self.user_ids.size),
            users_without_history=int(np.count_nonzero(history == 0)),
            users_evaluated=self.test.n_users,
            items=int(self.item_ids.size),
            items_untrained=int(self.items.beyond(self.item_ids).size),
            user_columns=self.users.explained(self.user_features),
            item_columns=self.items.explained(self.item_features),
            title_column=self.title,
            segment_column=self.segment,
            context=self.context.values,
        )

    def _fingerprint(self) -> str:
        """Returns the same for the same positives and features, in whatever order the files hold rows and columns."""
        parts = self.parts
        order = np.lexsort((parts.item_id, parts.user_id, parts.time))
        arrays = {"time": parts.time[order], "user": parts.user_id[order], "item": parts.item_id[order]}
        for kind, entities, features, ids in (
            ("user", self.users, self.user_features, self.user_ids),
            ("item", self.items, self.item_features, self.item_ids),
        ):
            arrays[f"{kind} ids"] = ids
            arrays |= {f"{kind} {name}": array for name, array in sorted(entities.values(features, ids).items())}
        for name, vocabulary, index in zip(
            self.context.names, self.context.vocabularies, self._context_rows(order), strict=True
        ):
            arrays |= {f"context {name} names": text_bytes(vocabulary), f"context {name} index": index}
        return digest_of(arrays)

    def _context_rows(self, order: np.ndarray) -> np.ndarray:
        """Returns the context of every positive, column by column: int32 [C, n]."""
        index = self.context.take(order)
        return np.zeros((0, order.size), np.int32) if index is None else index.T

    def _counts(self) -> dict[str, Any]:
        """Returns the part of the report that the files and the split decide."""
        interactions, parts = self.interactions, self.parts
        no_item = self.items.lacking(np.unique(interactions.item_id))
        no_user = self.users.lacking(np.unique(interactions.user_id))
        return {
            "interactions": int(interactions.user_id.size),
            "positives": int(parts.user_id.size),
            "label": interactions.label,
            "unused_labels": interactions.unused_labels,
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


def _with_category(users: FeatureTable) -> FeatureTable:
    """Adds a category that is unknown for every user where there is none: models and tensors need at least one."""
    if users.category_names:
        return users
    category = np.zeros((users.number.shape[0], 1), dtype=np.int32)
    return replace(users, category=category, category_names=(NO_CATEGORY,), vocabularies=(("",),))
