"""Examples that look like the evaluation: a history before a cut, and what the user took in the window after it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from trireme_export.data.histories import Float32, Int32, gather_history
from trireme_export.data.training_data import TrainingData

#: The part of a step by which a positive lies before the end of its step, so that the last lies before 1.
BEFORE = 1e-3


@dataclass(frozen=True)
class Batch:
    """B examples."""

    rows: np.ndarray
    """int64 (B,), user rows."""
    history: Int32
    """int32 (B, L), left-padded with −1."""
    targets: Int32
    """int32 (B, T), −1 where padding."""
    cut: np.ndarray
    """float64 (B,), on the clock of ``clock_of``."""
    context: Int32 | None = None
    """int32 (B, T, C), of the targets, anything where padding; None without a context."""


def clock_of(data: TrainingData) -> np.ndarray:
    """Returns the moment of each positive: float64 (P,) in [0, 1), not falling within a user, equal where times are equal.

    Where all users share a clock, it is the share of all positives that are older; otherwise it is the share of the user's own
    that are not newer, so that each user's last moment is close to 1, however few there are. Counting positives instead of
    seconds keeps nights and seasons from emptying the windows, and needs no unit.

    No cut tears apart what was taken at once, such as a basket: the rest of it is easy to foretell from its beginning, and
    never what is asked for.
    """
    total = len(data.user_items)
    if data.shared_clock:
        assert data.user_times is not None
        return np.searchsorted(np.sort(data.user_times), data.user_times) / max(1, total)
    counts = np.diff(data.user_offsets)
    user = data.users
    position = np.arange(total)
    if data.user_times is not None and total:
        last = np.append((np.diff(user) > 0) | (np.diff(data.user_times) > 0), True)  # of its user and moment
        position = np.flatnonzero(last)[np.cumsum(np.append(0, last[:-1]))]
    return (position - data.user_offsets[user] + 1 - BEFORE) / counts[user]


class ExampleSource:
    """Draws cuts and windows. ``end`` is the clock at which the visible past stops (1 = all of the training data)."""

    def __init__(
        self, data: TrainingData, window: float, end: float, length: int, targets: int, recency: float
    ) -> None:
        self.data, self.window, self.end, self.length, self.targets = data, window, end, length, targets
        self.clock = clock_of(data)
        self.user = data.users
        self.key = self.user + self.clock
        self.anchors = np.flatnonzero(self.clock < end)
        seen = np.bincount(self.user[self.anchors], minlength=data.n_users)
        weight = np.maximum(seen, 1)[self.user[self.anchors]] ** -0.5
        if data.shared_clock and recency > 0:
            weight = weight * 0.5 ** ((end - self.clock[self.anchors]) / recency)
        self.cumulative = np.cumsum(weight)

    def draw(self, size: int, rng: np.random.Generator) -> Batch:
        """Draws ``size`` examples whose windows hold at least one positive."""
        pick = np.searchsorted(self.cumulative, rng.random(size) * self.cumulative[-1], side="right")
        anchor = self.anchors[np.minimum(pick, len(self.anchors) - 1)]
        cut = self.clock[anchor] - rng.random(size) * self.window
        return self.at(self.user[anchor], np.maximum(cut, 0.0), rng)

    def at(self, rows: np.ndarray, cut: np.ndarray, rng: np.random.Generator | None = None) -> Batch:
        """Cuts examples of ``rows`` int64 (B,) at the clock ``cut`` float64 (B,). With ``rng``, a long window is sampled."""
        low = np.searchsorted(self.key, rows + cut)
        high = np.searchsorted(self.key, rows + np.minimum(cut + self.window, self.end))
        low, high = (
            np.maximum(low, self.data.user_offsets[rows]),
            np.minimum(high, self.data.user_offsets[rows + 1]),
        )
        history = gather_history(self.data.user_items, self.data.user_offsets[rows], low, self.length)
        place = self._targets(low, high, rng)
        targets = np.where(place >= 0, self.data.user_items[place], -1).astype(np.int32)
        return Batch(rows, history, targets, cut, None if self.data.context is None else self.data.context[place])

    def _targets(self, low: np.ndarray, high: np.ndarray, rng: np.random.Generator | None) -> np.ndarray:
        """Returns the places of the targets among all positives: int64 (B, T), −1 where padding."""
        count = np.maximum(high - low, 0)
        step = np.arange(self.targets)[None, :]
        offset = np.broadcast_to(step, (len(low), self.targets)).copy()
        long = count > self.targets
        if rng is not None and long.any():
            stride = count[long, None] / self.targets
            offset[long] = ((step + rng.random((long.sum(), self.targets))) * stride).astype(np.int64)
        valid = offset < count[:, None]
        return np.where(valid, low[:, None] + offset, -1)


def popularity_snapshots(
    data: TrainingData, half_lives: tuple[float, ...], grid: int, floor: float = 0.1
) -> tuple[Float32, Float32]:
    """Computes the log popularity of items as it was known at ``grid`` moments, and at the end of the data.

    A value is log(share * N + floor), 0 for an item of average share. Without times there is one moment and K is 1: the order
    within each user does not show what is popular when.

    Returns:
        float32 (grid, N, K) and (N, K); K columns, one per half-life in units of the clock and one for all of the past.
    """
    n = data.catalogue_size
    if not data.shared_clock:
        counts = np.bincount(data.user_items, minlength=n).astype(np.float64)
        level = _log_share(counts[:, None], floor)
        return level[None], level
    moment = np.minimum((clock_of(data) * grid).astype(np.int64), grid - 1)
    keep = np.array([0.5 ** (1.0 / (grid * half_life)) for half_life in half_lives] + [1.0])
    state = np.zeros((n, len(keep)))
    levels = np.empty((grid, n, len(keep)), dtype=np.float32)
    order = np.argsort(moment, kind="stable")
    edges = np.searchsorted(moment[order], np.arange(grid + 1))
    for step in range(grid):
        levels[step] = _log_share(state, floor)
        new = np.bincount(data.user_items[order[edges[step] : edges[step + 1]]], minlength=n)
        state = state * keep + new[:, None]
    return levels, _log_share(state, floor)


def _log_share(counts: np.ndarray, floor: float) -> Float32:
    total = np.maximum(counts.sum(axis=0, keepdims=True), 1e-9)
    return np.log(counts / total * len(counts) + floor).astype(np.float32)
