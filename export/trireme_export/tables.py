"""The tables of a bundle: what serving looks up instead of computing. Training builds them once from a data set."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from itertools import chain, islice
from pathlib import Path

import numpy as np

from trireme_export.data import Dataset
from trireme_export.data.histories import csr, distinct_pairs, gather_history
from trireme_runtime.artifacts import load_stage, save_stage

__all__ = ["POPULAR_DEPTH", "Tables", "build_tables", "popular_lists"]

#: Popular items kept per segment, as a multiple of the longest answer, because items seen already are skipped.
POPULAR_DEPTH = 4


@dataclass(frozen=True)
class Tables:
    """Arrays in index space. The last row of a user table stands for unknown users.

    user_ids int64 [U] and item_ids int64 [N], ascending. history int32 [U + 1, L], left-padded with −1.
    category int32 [U + 1, F + C], the last C columns for the context of a request and 0 here, number float32 [U + 1, D − 1]; 0 is
    unknown. seen_offsets int64 [U + 2] and
    seen_items int32: what each user interacted with. popular int32 [segments, P] with popular_score float32;
    row 0 is for everybody. segment int64 [1], the column of category that names the segment.
    """

    user_ids: np.ndarray
    item_ids: np.ndarray
    history: np.ndarray
    category: np.ndarray
    number: np.ndarray
    seen_offsets: np.ndarray
    seen_items: np.ndarray
    popular: np.ndarray
    popular_score: np.ndarray
    segment: np.ndarray

    def save(self, path: Path) -> None:
        """Writes the directory ``path``."""
        save_stage(path, "tables", {field.name: getattr(self, field.name) for field in fields(self)})

    @classmethod
    def load(cls, path: Path) -> Tables:
        """Reads what ``save`` wrote.

        Raises:
            ArtifactError: see ``trireme_runtime.errors``.
        """
        return cls(**load_stage(path, "tables")[0])


def build_tables(dataset: Dataset, history_length: int, list_length: int) -> Tables:
    """Builds the tables of ``dataset`` for histories of ``history_length`` (L) and answers of ``list_length`` (K) items."""
    offsets = dataset.train_offsets
    history = gather_history(dataset.train_items, offsets[:-1], offsets[1:], history_length)
    user = np.repeat(np.arange(dataset.n_users), np.diff(offsets))
    seen_offsets, seen_items = csr(*distinct_pairs(user, dataset.train_items, dataset.catalogue_size), dataset.n_users)
    counts = chain([dataset.item_popularity], islice(dataset.segment_popularity(), 1, None))
    popular, popular_score = popular_lists(counts, POPULAR_DEPTH * list_length)
    return Tables(
        user_ids=dataset.user_ids,
        item_ids=dataset.item_ids,
        history=_with_unknown(history, -1),
        category=_with_unknown(_with_context(dataset), 0),
        number=_with_unknown(dataset.users.number, 0),
        seen_offsets=np.append(seen_offsets, seen_offsets[-1]),
        seen_items=seen_items,
        popular=popular,
        popular_score=popular_score,
        segment=np.array([dataset.segment]),
    )


def _with_context(dataset: Dataset) -> np.ndarray:
    """Returns the categories of the users, and columns for a context that only a request has."""
    unknown = np.zeros((dataset.n_users, len(dataset.train_context.names)), np.int32)
    return np.concatenate([dataset.users.category, unknown], axis=1)


def _with_unknown(table: np.ndarray, value: int) -> np.ndarray:
    return np.concatenate([table, np.full((1, table.shape[1]), value, dtype=table.dtype)])


def popular_lists(counts: Iterable[np.ndarray], depth: int) -> tuple[np.ndarray, np.ndarray]:
    """Ranks the items of every segment by the counts of its own users, and ties by those of everybody.

    Args:
        counts: int64 [N] for each segment, distinct users of each item; the first is everybody.
        depth: P, length of a list; N if that is shorter.

    Returns:
        Item indices int32 [segments, P], and log1p of the segment's count float32 [segments, P].
    """
    segments = iter(counts)
    everybody = next(segments)
    favourite = np.argsort(-everybody, kind="stable")[:depth]
    order, score = [favourite], [everybody[favourite]]
    for count in segments:
        # Only what the segment took, or everybody likes best, can be in its list.
        item = np.union1d(np.flatnonzero(count), favourite)
        best = item[np.lexsort((-everybody[item], -count[item]))[:depth]]
        order.append(best)
        score.append(count[best])
    return np.stack(order).astype(np.int32), np.log1p(np.stack(score)).astype(np.float32)
