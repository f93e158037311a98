"""What users took and when, grouped by user: where requests are derived from, and what makes an answer old."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from trireme_export.data.reader import read_interactions
from trireme_perf.errors import PerfError

__all__ = ["Events", "group_events", "read_events"]

DAY_S = 86_400.0


@dataclass(frozen=True)
class Events:
    """Events in the order of users, and in that of time within a user. What is taken at one moment, as a basket, is one."""

    user_id: NDArray[np.int64]
    """int64 [m], ascending."""
    time: NDArray[np.float64]
    """float64 [m], seconds; rising within a user."""
    offsets: NDArray[np.int64]
    """int64 [m + 1]: where the items of each event begin, and the end."""
    items: NDArray[np.int64]
    """int64 [offsets[-1]], external ids, distinct within an event."""

    @property
    def first(self) -> NDArray[np.bool_]:
        """bool [m]: whether an event is the first of its user."""
        return np.diff(self.user_id, prepend=-1) != 0

    def until(self, time: float) -> Events:
        """Returns those before a moment."""
        return self.take(self.time < time)

    def since(self, time: float) -> Events:
        """Returns those from a moment on."""
        return self.take(self.time >= time)

    def take(self, chosen: NDArray[np.bool_]) -> Events:
        """Returns some of them; ``chosen``: bool [m]."""
        sizes = np.diff(self.offsets)
        offsets = np.concatenate([[0], np.cumsum(sizes[chosen])])
        return Events(self.user_id[chosen], self.time[chosen], offsets, self.items[np.repeat(chosen, sizes)])


def read_events(directory: Path, days: float | None = None) -> Events:
    """Reads the positives of a data set with times; with ``days``, those of its last days only.

    Raises:
        trireme_export.data.DataError: the data set cannot be read.
        PerfError: its interactions have an order, but no times.
    """
    found = read_interactions(directory)
    file = directory / "interactions.parquet"
    if found.time_column == "seq":
        raise PerfError(
            f"{file} has the order of interactions (seq), but not their times (timestamp), which a cache needs"
        )
    kind = pq.read_schema(file).field(found.time_column).type
    seconds = found.time / (1.0 if pa.types.is_integer(kind) else 1e6)
    chosen = found.positive if days is None else found.positive & (seconds >= seconds[-1] - days * DAY_S)
    return group_events(found.user_id[chosen], seconds[chosen], found.item_id[chosen])


def group_events(user_id: NDArray[np.int64], time: NDArray[np.float64], item_id: NDArray[np.int64]) -> Events:
    """Makes events of rows, in whatever order; each array [rows]."""
    order = np.lexsort((item_id, time, user_id))
    user_id, time, item_id = user_id[order], time[order], item_id[order]
    new = np.ones(user_id.size, dtype=bool)
    new[1:] = (np.diff(user_id) != 0) | (np.diff(time) != 0)
    distinct = new.copy()
    distinct[1:] |= np.diff(item_id) != 0
    begins = np.flatnonzero(new)
    offsets = np.concatenate([[0], np.cumsum(distinct)])[np.append(begins, user_id.size)]
    return Events(user_id[new], time[new], offsets, item_id[distinct])
