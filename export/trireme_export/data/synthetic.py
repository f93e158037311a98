"""A made-up data set with what real ones have: tastes in clusters, few popular items, fashions that pass.

It is written as parquet, so that it is read like any other data set.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from trireme_export.data.errors import DataSizeError

__all__ = ["SyntheticConfig", "make_synthetic", "write_synthetic"]

START = 1_700_000_000
DAY = 86_400
#: Interactions whose mixed tastes are held at a time.
BLOCK = 1 << 18
SEGMENTS = ("north", "south", "east", "west")
MOODS = ("Quiet", "Amber", "Hidden", "Crimson", "Silver", "Distant", "Gentle", "Restless", "Golden", "Hollow")
PLACES = (
    "Harbour", "Meadow", "Orchard", "Lantern", "Canyon", "Island", "Library", "Garden", "Station", "Bridge",
    "Forest", "Market", "Lagoon", "Tower", "Valley", "Workshop", "Theatre", "Glacier", "Vineyard", "Observatory",
)  # fmt: skip


@dataclass(frozen=True)
class SyntheticConfig:
    """Sizes and strengths. A user takes an item only once, so interactions are at most a tenth of users × items."""

    users: int = 3_000
    items: int = 2_000
    interactions: int = 120_000
    clusters: int = 20
    days: int = 120
    zipf: float = 0.8
    """Exponent of popularity over the rank of an item in its cluster."""
    focus: float = 0.12
    """Dirichlet parameter of a user's taste over clusters: the smaller, the fewer clusters they like."""
    drift: float = 0.35
    """Share of a user's taste that changes from the first day to the last."""
    fashion: float = 1.0
    """Standard deviation of the log of an item's popularity on the last day over that on the first."""
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("users", "items", "interactions", "clusters", "days"):
            if getattr(self, name) < 1:
                raise DataSizeError(f"{name} is {getattr(self, name)}, must be at least 1")
        if self.seed < 0:
            raise DataSizeError(f"seed is {self.seed}, must be at least 0")
        if self.clusters > self.items:
            raise DataSizeError(f"clusters is {self.clusters}, must not exceed items ({self.items})")
        if self.interactions > self.users * self.items // 10:
            raise DataSizeError(
                f"interactions is {self.interactions}, must not exceed a tenth of users x items "
                f"({self.users * self.items // 10})"
            )


def write_synthetic(directory: Path, config: SyntheticConfig | None = None) -> None:
    """Writes interactions.parquet, items.parquet and users.parquet into ``directory``, made if missing."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, table in make_synthetic(config).items():
        pq.write_table(table, directory / f"{name}.parquet")


def make_synthetic(config: SyntheticConfig | None = None) -> dict[str, pa.Table]:
    """Draws the tables ``interactions``, ``items`` and ``users``; equal configurations give equal tables."""
    config = config or SyntheticConfig()
    rng = np.random.default_rng(config.seed)
    # Ids have gaps, so that code which takes an id for an index fails.
    item_id = 1_000 + 3 * np.arange(config.items)
    user_id = 50_000 + 7 * np.arange(config.users)
    # Every cluster has an item, whatever is drawn.
    cluster = rng.permutation(np.arange(config.items) % config.clusters)
    taste = rng.dirichlet(np.full(config.clusters, config.focus), config.users)
    user, item, day = _interactions(config, rng, cluster, taste)
    timestamp = START + (day * DAY).astype(np.int64)
    return {
        "interactions": pa.table({"user_id": user_id[user], "item_id": item_id[item], "timestamp": timestamp}),
        "items": _items(config, rng, item_id, cluster),
        "users": _users(config, rng, user_id, taste),
    }


def _interactions(
    config: SyntheticConfig, rng: np.random.Generator, cluster: np.ndarray, taste: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draws user, item and day (float64) of each interaction [n], in ascending time; no user takes an item twice."""
    later = rng.dirichlet(np.full(config.clusters, config.focus), config.users)
    activity = np.cumsum(rng.lognormal(0.0, 0.8, config.users))
    weight, slope = _appeal(config, rng, cluster)
    pairs = np.zeros((0, 2), dtype=np.int64)
    days = np.zeros(0)
    while days.size < config.interactions:
        n = config.interactions
        user = np.searchsorted(activity, rng.random(n) * activity[-1], side="right").clip(max=config.users - 1)
        day = rng.random(n) * config.days
        wanted = _clusters(taste, later, user, config.drift * (day / config.days), rng.random(n))
        item = _draw_items(config, rng, cluster, weight, slope, wanted, day / config.days)
        pairs = np.concatenate([pairs, np.stack([user, item], axis=1)])
        days = np.concatenate([days, day])
        _, first = np.unique(pairs[:, 0] * config.items + pairs[:, 1], return_index=True)
        first.sort()
        pairs, days = pairs[first], days[first]
    order = np.argsort(days[: config.interactions], kind="stable")
    return pairs[order, 0], pairs[order, 1], days[order]


def _clusters(
    taste: np.ndarray, later: np.ndarray, user: np.ndarray, share: np.ndarray, chance: np.ndarray
) -> np.ndarray:
    """Returns the cluster in which each interaction's taste, mixed with ``share`` of the later one, reaches its ``chance``."""
    wanted = np.empty(user.size, dtype=np.int64)
    for start in range(0, user.size, BLOCK):
        part = slice(start, start + BLOCK)
        weight = share[part, None]
        mixture = np.cumsum(taste[user[part]] * (1 - weight) + later[user[part]] * weight, axis=1)
        wanted[part] = (mixture < chance[part, None] * mixture[:, -1:]).sum(axis=1)
    return wanted.clip(max=taste.shape[1] - 1)


def _appeal(config: SyntheticConfig, rng: np.random.Generator, cluster: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Draws the log popularity of each item on the middle day, and its change over all days: float64 [N] both."""
    shuffled = rng.permutation(config.items)
    order = shuffled[np.argsort(cluster[shuffled], kind="stable")]
    _, first, count = np.unique(cluster[order], return_index=True, return_counts=True)
    rank = np.empty(config.items)
    rank[order] = np.arange(config.items) - np.repeat(first, count) + 1
    return -config.zipf * np.log(rank), rng.normal(0.0, config.fashion, config.items)


def _draw_items(
    config: SyntheticConfig,
    rng: np.random.Generator,
    cluster: np.ndarray,
    weight: np.ndarray,
    slope: np.ndarray,
    wanted: np.ndarray,
    moment: np.ndarray,
) -> np.ndarray:
    """Draws an item of each ``wanted`` cluster by its popularity at that ``moment`` (float64 [n] in [0, 1)): int64 [n]."""
    order = np.argsort(cluster, kind="stable")
    first = np.searchsorted(cluster[order], np.arange(config.clusters + 1))
    item = np.empty(wanted.size, dtype=np.int64)
    period = (moment * 20).astype(np.int64)
    for p in range(20):
        cumulative = np.concatenate([[0], np.cumsum(np.exp(weight + slope * ((p + 0.5) / 20 - 0.5))[order])])
        now = np.flatnonzero(period == p)
        low, high = cumulative[first[wanted[now]]], cumulative[first[wanted[now] + 1]]
        place = np.searchsorted(cumulative, low + rng.random(now.size) * (high - low), side="right") - 1
        item[now] = order[place.clip(first[wanted[now]], first[wanted[now] + 1] - 1)]
    return item


def _items(config: SyntheticConfig, rng: np.random.Generator, item_id: np.ndarray, cluster: np.ndarray) -> pa.Table:
    """Draws features that hint at the cluster: the place is right for nine items of ten."""
    shown = np.where(rng.random(config.items) < 0.9, cluster, rng.integers(0, config.clusters, config.items))
    mood = rng.integers(0, len(MOODS), config.items)
    place = [PLACES[c % len(PLACES)] for c in shown]
    extra = rng.integers(0, config.clusters, config.items)
    price = rng.lognormal(2.0 + (cluster % 5) * 0.4, 0.5, config.items)
    return pa.table(
        {
            "item_id": item_id,
            "title": [f"{MOODS[m]} {p} {i}" for i, (m, p) in enumerate(zip(mood, place, strict=True))],
            "place": place,
            "tags": [f"{MOODS[m].lower()}|theme-{c}|theme-{e}" for m, c, e in zip(mood, shown, extra, strict=True)],
            "price": np.round(price, 2).astype(np.float32),
        }
    )


def _users(config: SyntheticConfig, rng: np.random.Generator, user_id: np.ndarray, taste: np.ndarray) -> pa.Table:
    """Draws a segment that follows the favourite cluster of four users in five, and an age that hints at it."""
    favourite = taste.argmax(axis=1)
    guessed = rng.random(config.users) < 0.8
    segment = np.where(guessed, favourite % len(SEGMENTS), rng.integers(0, len(SEGMENTS), config.users))
    age = rng.normal(30 + 20 * favourite / config.clusters, 8.0).clip(16, 90)
    return pa.table({"user_id": user_id, "segment": [SEGMENTS[s] for s in segment], "age": age.astype(np.int32)})
