"""The users of a made-up catalogue: what they took, and the tables of a bundle that follow from it."""

from __future__ import annotations

import numpy as np

from trireme_export.config import PipelineConfig
from trireme_export.data.histories import csr, distinct_pairs, gather_history
from trireme_export.tables import POPULAR_DEPTH, Tables, popular_lists
from trireme_perf.limit.synthetic_items import Items

__all__ = ["SEGMENTS", "draw_tables"]

SEGMENTS = 4
"""Number of segments of the users."""
TASTES = 8
"""Clusters that a user takes most items from."""
TASTE_SKEW = 2.0
"""The larger, the more items come from the first few clusters of a user."""
EXPLORATION = 0.05
"""Share of the items that a user takes from anywhere."""
LENGTH = (0.4, 1.0)
"""Median number of a user's items as a share of L, and the standard deviation of its log."""
LONGEST = 4
"""Most items of a user, as a multiple of L."""


def draw_tables(rng: np.random.Generator, shelves: Items, users: int, config: PipelineConfig) -> Tables:
    """Draws the tables of ``users`` users who take items from ``shelves``."""
    length, catalogue_size = config.training.history_length, shelves.item.size
    offsets, taken = _draw_interactions(rng, shelves, users, length)
    history = gather_history(taken, offsets[:-1], offsets[1:], length)
    user, item = distinct_pairs(np.repeat(np.arange(users), np.diff(offsets)), taken, catalogue_size)
    seen_offsets, seen_items = csr(user, item, users)
    segment = rng.integers(1, SEGMENTS + 1, size=users)
    chosen = [slice(None), *(segment[user] == number for number in range(1, SEGMENTS + 1))]
    counts = np.stack([np.bincount(item[rows], minlength=catalogue_size) for rows in chosen])
    popular, popular_score = popular_lists(counts, POPULAR_DEPTH * config.serving.list_length)
    number = rng.standard_normal((users, 1), dtype=np.float32)
    # Ids have gaps, and the last row of a user table is for unknown users, as in tables of real data.
    return Tables(
        user_ids=50_000 + 7 * np.arange(users, dtype=np.int64),
        item_ids=1_000 + 3 * np.arange(catalogue_size, dtype=np.int64),
        history=np.concatenate([history, np.full((1, length), -1, dtype=np.int32)]),
        category=np.append(segment, 0)[:, None].astype(np.int32),
        number=np.concatenate([number, np.zeros((1, 1), dtype=np.float32)]),
        seen_offsets=np.append(seen_offsets, seen_offsets[-1]),
        seen_items=seen_items,
        popular=popular,
        popular_score=popular_score,
        segment=np.array([0]),
    )


def _draw_interactions(
    rng: np.random.Generator, shelves: Items, users: int, history: int
) -> tuple[np.ndarray, np.ndarray]:
    """Draws what each user took, oldest first: offsets int64 [users + 1], item index int32 [offsets[-1]]."""
    median, deviation = LENGTH
    count = np.rint(rng.lognormal(np.log(median * history), deviation, users)).astype(np.int64)
    count = count.clip(1, LONGEST * history)
    offsets = np.concatenate([[0], np.cumsum(count)])
    edges = np.concatenate([[0.0], np.cumsum(shelves.weight)])
    low, high = _draw_shelves(rng, shelves, edges, count)
    place = np.searchsorted(edges, low + rng.random(low.size) * (high - low), side="right") - 1
    return offsets, shelves.item[place.clip(0, shelves.item.size - 1)].astype(np.int32)


def _draw_shelves(
    rng: np.random.Generator, shelves: Items, edges: np.ndarray, count: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Draws the range of ``edges``, the cumulated weights, that each of ``count`` interactions per user comes from."""
    bounds = edges[shelves.first]
    tastes = np.searchsorted(bounds, rng.random((count.size, TASTES)) * bounds[-1], side="right") - 1
    share = np.cumsum(rng.standard_exponential((count.size, TASTES), dtype=np.float32) ** TASTE_SKEW, axis=1)
    user = np.repeat(np.arange(count.size), count)
    wanted = rng.random((user.size, 1), dtype=np.float32) * share[user, -1:]
    column = (share[user] <= wanted).sum(axis=1).clip(max=TASTES - 1)
    cluster = tastes[user, column].clip(max=shelves.group.size - 1)
    anywhere = rng.random(user.size) < EXPLORATION
    low = np.where(anywhere, 0.0, bounds[cluster])
    high = np.where(anywhere, bounds[-1], bounds[cluster + 1])
    return low, high
