"""What users took, merged with what was known of them: the newest, each once, whatever the order and number of deliveries.

The state of a user is the newest ``capacity`` distinct pairs of time and item. Such states form a semilattice: merging is
commutative, associative and idempotent, so late and repeated events, and batches of any size, lead to the same state.
It knows arrays only.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

__all__ = ["APPLIED", "DUPLICATE", "FORGOTTEN", "LATE", "OLD", "Merged", "Taken", "merge"]

#: What can become of an event: it is in the state now; it is, though the state held a later one; the state held it already;
#: it is left out because ``capacity`` others are newer, or because its user was forgotten after it.
APPLIED, LATE, DUPLICATE, OLD, FORGOTTEN = range(5)


class Taken(NamedTuple):
    """Who took what and when, one event per place: row of the user int64 [n], item id int64 [n], ms int64 [n]."""

    row: np.ndarray
    item: np.ndarray
    time_ms: np.ndarray


class Merged(NamedTuple):
    """The states of users after some events."""

    taken: Taken
    """Ascending in row, time and item."""
    outcome: np.ndarray
    """int8 [events]: what became of each, one of the constants of this module."""


def merge(known: Taken, events: Taken, forgotten_ms: np.ndarray, capacity: int) -> Merged:
    """Merges events into states.

    Args:
        known: the states so far; in each row distinct pairs of time and item, at most ``capacity``.
        events: in any order, with any repeats.
        forgotten_ms: int64 [users]; events of that time or before do not count; −1 where no time was set.
        capacity: the most that a state holds, at least 1.
    """
    row, item, time_ms = (np.concatenate(pair) for pair in zip(known, events, strict=True))
    order = np.lexsort((item, time_ms, row))  # stable: what is known comes before equal events
    row, item, time_ms = row[order], item[order], time_ms[order]
    repeated = np.zeros(row.size, dtype=bool)
    repeated[1:] = (np.diff(row) == 0) & (np.diff(time_ms) == 0) & (np.diff(item) == 0)
    forgotten = ~repeated & (time_ms <= forgotten_ms[row])
    distinct = np.flatnonzero(~repeated & ~forgotten)
    ends = np.cumsum(np.bincount(row[distinct], minlength=forgotten_ms.size))
    kept = distinct[ends[row[distinct]] - np.arange(distinct.size) <= capacity]
    outcome = np.full(row.size, OLD, dtype=np.int8)
    outcome[kept] = np.where(time_ms < _latest(known, forgotten_ms.size)[row], LATE, APPLIED)[kept]
    outcome[repeated] = DUPLICATE
    outcome[forgotten] = FORGOTTEN
    given = np.empty_like(outcome)
    given[order] = outcome
    return Merged(Taken(row[kept], item[kept], time_ms[kept]), given[known.row.size :])


def _latest(known: Taken, users: int) -> np.ndarray:
    """The latest time of each state, int64 [users]; −1 where it is empty."""
    latest = np.full(users, -1, dtype=np.int64)
    np.maximum.at(latest, known.row, known.time_ms)
    return latest
