"""The data set as everything after it sees it: indices instead of ids, features as arrays, the split made.

Reads through ``reader``, ``schema``, ``features`` and ``split``; the rules of evaluation are in ``evaluation``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from trireme_export.config import DataConfig
from trireme_export.data.errors import DataValueError
from trireme_export.data.features import FeatureTable, encode_features
from trireme_export.data.reader import EntityTable, Interactions, read_entities, read_interactions
from trireme_export.data.report import DataReport
from trireme_export.data.schema import ColumnKind, infer_kinds, pick_segment, pick_title
from trireme_export.data.split import SplitBy, draw_holdout, test_mask
from trireme_export.evaluation.protocol import EvaluationSet, build_evaluation, csr
from trireme_stages.arrays import lookup

if TYPE_CHECKING:
    from trireme_export.training.data import TrainingData

__all__ = ["Dataset", "read_dataset"]

EXAMPLES = 3
#: Stands in where users have no categorical column: everybody is unknown in it.
NO_CATEGORY = "none"


@dataclass(frozen=True)
class Dataset:
    """A data set ready for training and evaluation. N items, U users, P training positives."""

    name: str
    item_ids: np.ndarray
    """int64 [N], ascending: the items with a training positive. Item index = position here."""
    user_ids: np.ndarray
    """int64 [U], ascending: users with a training positive or a row in users.parquet. User row = position here."""
    train_offsets: np.ndarray
    """int64 [U + 1]."""
    train_items: np.ndarray
    """int32 [P], item indices, oldest first within a user, repeats kept."""
    train_times: np.ndarray | None
    """int64 [P] on one clock for everybody; None where only the order within a user is known."""
    users: FeatureTable
    """U rows, at least one category column."""
    items: FeatureTable
    """N rows."""
    segment: int
    """Column of ``users.category`` whose values have popular lists of their own."""
    item_titles: tuple[str, ...]
    """N names for people, empty where there is none."""
    item_popularity: np.ndarray
    """int64 [N], distinct training users."""
    test: EvaluationSet
    """Users of training."""
    holdout: EvaluationSet | None
    """Users kept out of training, to be served by their history alone; None unless asked for."""
    report: DataReport

    @property
    def n_items(self) -> int:
        """N."""
        return int(self.item_ids.size)

    @property
    def n_users(self) -> int:
        """U."""
        return int(self.user_ids.size)

    def segment_popularity(self) -> np.ndarray:
        """Distinct training users of each item by segment, int64 [segments, N]; segment 0 = unknown."""
        segments = self.users.category_sizes[self.segment]
        user, item = self._distinct_pairs()
        key = self.users.category[user, self.segment].astype(np.int64) * self.n_items + item
        return np.bincount(key, minlength=segments * self.n_items).reshape(segments, self.n_items)

    def training_data(self) -> TrainingData:
        """What the models are trained on."""
        # Not at the top: reading data must not load torch.
        from trireme_export.training.data import ListFeature, TrainingData

        return TrainingData(
            n_items=self.n_items,
            user_offsets=self.train_offsets,
            user_items=self.train_items,
            user_times=self.train_times,
            user_category=self.users.category,
            user_category_sizes=self.users.category_sizes,
            user_number=self.users.number,
            item_category=self.items.category,
            item_category_sizes=self.items.category_sizes,
            item_number=self.items.number,
            item_lists=tuple(ListFeature(f.offsets, f.values, f.size) for f in self.items.lists),
        )

    def _distinct_pairs(self) -> tuple[np.ndarray, np.ndarray]:
        user = np.repeat(np.arange(self.n_users), np.diff(self.train_offsets))
        pair = np.unique(user * self.n_items + self.train_items)
        return pair // self.n_items, pair % self.n_items


@dataclass(frozen=True)
class _Parts:
    """Positives with the part that each belongs to: of the known users, or of those held out."""

    user_id: np.ndarray
    item_id: np.ndarray
    time: np.ndarray
    train: np.ndarray
    test: np.ndarray
    held_past: np.ndarray
    held_test: np.ndarray
    held_users: np.ndarray


def read_dataset(directory: Path | str, config: DataConfig | None = None) -> Dataset:
    """Read a directory with interactions.parquet and, if there, items.parquet and users.parquet.

    Raises:
        DataError: see ``trireme_export.data.errors``.
    """
    directory = Path(directory)
    config = config or DataConfig()
    interactions = read_interactions(
        directory,
        time_column=config.time_column,
        label_column=config.label_column,
        label_minimum=config.label_minimum,
    )
    item_table, user_table = read_entities(directory, "item"), read_entities(directory, "user")
    by: SplitBy = config.split_by or ("user" if interactions.time_column == "seq" else "time")
    parts = _split(directory, interactions, config, by)
    item_ids = np.unique(parts.item_id[parts.train])
    user_ids = _user_ids(parts, user_table)
    user_kinds = {} if user_table is None else infer_kinds(user_table, config.user_features, snapshots=False)
    item_kinds = {} if item_table is None else infer_kinds(item_table, config.item_features)
    users = _encode(user_table, user_kinds, user_ids, config)
    items = _encode(item_table, item_kinds, item_ids, config)
    sizes = {n: s - 1 for n, s in zip(users.category_names, users.category_sizes, strict=True)}
    segment = pick_segment(sizes, config.segment_column)
    title = pick_title(item_kinds, config.title_column)
    users = _with_category(users)
    row, index = lookup(user_ids, parts.user_id), lookup(item_ids, parts.item_id)
    offsets, train_items = csr(row[parts.train], index[parts.train], user_ids.size)
    by_user = np.argsort(row[parts.train], kind="stable")
    test = _evaluation(user_ids, np.arange(user_ids.size), row, index, parts.train, parts.test, item_ids.size)
    held_row = lookup(parts.held_users, parts.user_id)
    unknown = np.full(parts.held_users.size, -1)
    held = (parts.held_users, unknown, held_row, index, parts.held_past, parts.held_test, item_ids.size)
    dataset = Dataset(
        name=directory.name,
        item_ids=item_ids,
        user_ids=user_ids,
        train_offsets=offsets,
        train_items=train_items,
        train_times=None if by == "user" else parts.time[parts.train][by_user],
        users=users,
        items=items,
        segment=users.category_names.index(segment) if segment else 0,
        item_titles=_titles(item_table, title, item_ids),
        item_popularity=_popularity(row[parts.train], index[parts.train], item_ids.size),
        test=test,
        holdout=_evaluation(*held) if config.holdout_users else None,
        report=_report(interactions, parts, user_ids, item_ids, offsets, test, by),
    )
    return replace(dataset, report=_with_columns(dataset, user_table, item_table, user_kinds, item_kinds, title, segment))
