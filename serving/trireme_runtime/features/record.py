"""What the feature store holds of a user: one packed value of a fixed size, whose layout depends on the bundle's sizes alone.

A value is little endian, padded to whole words of 8 bytes:

| offset | field | dtype | meaning |
|---|---|---|---|
| 0 | header | uint32 [3] | magic, layout version + L · 2¹⁶, F + (D − 1) · 2¹⁶ |
| 12 | count | int32 | events in the history, for those who look at values; readers go by the history |
| 16 | written_ms | int64 | when the value was written |
| 24 | encoding | uint64 | id of the bundle for which category and number are encoded, 0 = they are not given |
| 32 | history | int64 [L] | item ids as clients know them, left-padded with −1, newest last |
| 32 + 8 L | time_ms | int64 [L] | when each event happened, rising, −1 padding |
| 32 + 16 L | category | int32 [F] | category indices of the user, 0 = unknown |
| 32 + 16 L + 4 F | number | float32 [D − 1] | standardised numbers of the user, 0 = unknown |

Times are milliseconds since 1970; events of one time are in the order of their items. A history outlives the bundle, since it
holds outside ids; features do not.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from trireme_runtime.arrays import stable_partition
from trireme_runtime.native import library
from trireme_runtime.native.records import NativeRecords
from trireme_runtime.schema import Dims

__all__ = [
    "ABSENT",
    "CORRUPT",
    "FRESH",
    "STATES",
    "UNREACHABLE",
    "RecordLayout",
    "merge",
    "user_key",
    "user_keys",
]

MAGIC = int.from_bytes(b"TRIu", "little")
VERSION = 1
#: What the sizes of a layout are held to, by the header.
LARGEST = 2**16 - 1

#: What a store knows of a user: no value; a value; one that cannot be used; the store could not be asked.
ABSENT, FRESH, CORRUPT, UNREACHABLE = range(4)
#: Their names, in metrics.
STATES = ("absent", "fresh", "corrupt", "unreachable")


def user_key(namespace: str, user_id: int) -> str:
    """Returns the key of a user's value. The braces make the id alone decide about the node of a Redis Cluster, so that other
    keys of the same user can be on the same one."""
    return f"trireme:{namespace}:user:{{{user_id}}}"


def user_keys(namespace: str, user_id: np.ndarray) -> list[bytes]:
    """Returns the keys of many users (int64 [n])."""
    form = f"trireme:{namespace}:user:{{%d}}".encode()
    return [form % user for user in user_id.tolist()]


class RecordLayout:
    """The values of bundles with these sizes.

    Args:
        history: L, events in a history.
        category: F, categorical features of a user.
        number: D − 1, numerical features of a user.

    Raises:
        ValueError: a size does not fit the header.
    """

    def __init__(self, history: int, category: int, number: int) -> None:
        for name, size in (("history", history), ("category", category), ("number", number)):
            if not 0 <= size <= LARGEST:
                raise ValueError(f"a record's {name} has {size} values, allowed are up to {LARGEST}")
        self.history = history
        self.dtype = np.dtype(
            [
                ("header", "<u4", (3,)),
                ("count", "<i4"),
                ("written_ms", "<i8"),
                ("encoding", "<u8"),
                ("history", "<i8", (history,)),
                ("time_ms", "<i8", (history,)),
                ("category", "<i4", (category,)),
                ("number", "<f4", (number,)),
                # Of the dtype's own padding NumPy copies whatever was in memory.
                ("padding", "<u4", ((category + number) % 2,)),
            ]
        )
        self._header = np.array([MAGIC, VERSION | history << 16, category | number << 16], dtype="<u4")
        self._none = self.empty(1).tobytes()
        compiled = library()
        self._unsound = (
            self._unsound_by_field if compiled is None else NativeRecords(compiled, self.dtype, self._header).unsound
        )

    @classmethod
    def of(cls, dims: Dims) -> RecordLayout:
        """Returns the layout for a bundle of these sizes."""
        return cls(dims.history, dims.category, dims.number - 1)

    def empty(self, users: int) -> np.ndarray:
        """Returns so many values without events and features, to be filled: structured [users]."""
        records = np.zeros(users, self.dtype)
        records["header"] = self._header
        records["history"] = records["time_ms"] = -1
        return records

    def decode(self, values: Sequence[bytes | None]) -> tuple[np.ndarray, np.ndarray]:
        """Returns the values of a batch, read only, and the state of each: structured [n] and uint8 [n].

        A value that is not FRESH is an empty one: nothing of what is CORRUPT is handed on.
        """
        size = self.dtype.itemsize
        if None not in values and set(map(len, values)) <= {size}:  # type: ignore[arg-type]
            held, state = values, np.full(len(values), FRESH, np.uint8)
        else:
            sizes = [-1 if value is None else len(value) for value in values]
            held = [value if length == size else self._none for value, length in zip(values, sizes, strict=True)]
            state = np.array([ABSENT if n < 0 else FRESH if n == size else CORRUPT for n in sizes], np.uint8)
        joined = b"".join(held)  # type: ignore[arg-type]
        records = np.frombuffer(joined, self.dtype)
        unsound = self._unsound(joined)
        if unsound is not None:
            state[unsound] = CORRUPT
            records = np.where(unsound, self.empty(1), records)
        return records, state

    def _unsound_by_field(self, values: bytes) -> np.ndarray | None:
        """Which of ``values``, one after another, do not say of themselves what this layout does, or hold what it does not allow:
        bool [n]; None if all are sound. What ``NativeRecords`` does, where there is no compiled library."""
        records = np.frombuffer(values, self.dtype)
        history, time = records["history"], records["time_ms"]
        sound = (records["header"] == self._header).all(axis=1)
        sound &= (records["written_ms"] >= 0) & (records["category"] >= 0).all(axis=1)
        sound &= (
            (history >= -1).all(axis=1) & (time[:, :1] >= -1).all(axis=1) & (time[:, 1:] >= time[:, :-1]).all(axis=1)
        )
        sound &= np.isfinite(records["number"]).all(axis=1)
        return None if sound.all() else ~sound


def merge(stored: np.ndarray, fresh: np.ndarray) -> np.ndarray:
    """Returns the last L of the stored history of each user, followed by the fresh events that it does not hold yet.

    A new bundle's stored history holds events that a store already had. The bundle does not say until when it reaches, so the
    longest run of events with which the fresh history begins and the stored one ends is taken as the same events.

    Args:
        stored: int [n, L], items (ids or indices), left-padded with −1, newest last.
        fresh: the same of the store; padding may be anywhere.

    Returns:
        The dtype of ``stored`` [n, L], left-padded with −1, newest last.
    """
    follows = fresh >= 0
    for row in np.flatnonzero((fresh == stored[:, -1:]).any(axis=1) & (stored[:, -1] >= 0)):
        place = np.flatnonzero(follows[row])
        follows[row, place[: _overlap(stored[row], fresh[row, place])]] = False
    both = np.concatenate([stored, np.where(follows, fresh, -1).astype(stored.dtype)], axis=1)
    order = stable_partition(both < 0, both.shape[1])[:, stored.shape[1] :]
    return np.take_along_axis(both, order, axis=1)


def _overlap(stored: np.ndarray, fresh: np.ndarray) -> int:
    """The length of the longest beginning of ``fresh`` with which ``stored`` ends."""
    for length in np.flatnonzero(fresh == stored[-1])[::-1] + 1:
        if length <= stored.size and np.array_equal(stored[stored.size - length :], fresh[:length]):
            return int(length)
    return 0
