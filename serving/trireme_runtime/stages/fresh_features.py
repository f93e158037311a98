"""feature_transform over a feature store: what the store holds of a user comes before the tables of the bundle."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np

from trireme_runtime.arrays import lookup
from trireme_runtime.features.address import StoreAddress
from trireme_runtime.features.freshness import LEAST_S, STALE
from trireme_runtime.features.opening import open_store
from trireme_runtime.features.record import CORRUPT, FRESH, UNREACHABLE, RecordLayout, merge
from trireme_runtime.features.store import FeatureStore, Reading
from trireme_runtime.schema import STORED
from trireme_runtime.stages.feature_transform import Features, FeatureTransform
from trireme_runtime.stages.stage import Stage

__all__ = ["FreshFeatures", "layout_of", "with_fresh_features"]

#: Receives the state of users, uint8 [n], ns, and the ages of what was used, in seconds.
Note = Callable[[np.ndarray, int, np.ndarray], None]


def layout_of(stage: FeatureTransform) -> RecordLayout:
    """Returns the layout of the values for the bundle of ``stage``."""
    return RecordLayout(stage.history.shape[1], stage.category.shape[1], stage.number.shape[1])


def with_fresh_features(stages: Sequence[Stage], address: str, encoding: int, note: Note) -> tuple[Stage, ...]:
    """Returns ``stages`` with the store at ``address`` in front of the tables; ``encoding`` and ``note`` as of ``FreshFeatures``.

    Raises:
        FeatureStoreError: the address is not allowed, or the client of Redis is not installed.
    """

    def fresh(stage: Stage) -> Stage:
        if not isinstance(stage, FeatureTransform):
            return stage
        return FreshFeatures(stage, open_store(StoreAddress.parse(address), layout_of(stage)), encoding, note)

    return tuple(map(fresh, stages))


class FreshFeatures:
    """Takes the place of ``stage``. Runs in Python, since it waits for the store longer than for anything that it computes.

    All known ids of a batch are asked for at once. A history that the request gives stays; so do the tables for whoever the store
    does not hold, and for all if it cannot be asked.

    Args:
        stage: looks up ids and tables.
        store: what it holds must be of ``layout_of`` the stage.
        encoding: of the features that the models of the bundle were trained on. Those of values with another one are ignored.
        note: receives the state of the users of each read, the ns that it took, and the ages of the values that were used.
        clock: seconds since 1970.
    """

    name: ClassVar[str] = "feature_transform"

    def __init__(
        self,
        stage: FeatureTransform,
        store: FeatureStore,
        encoding: int,
        note: Note = lambda state, ns, age_s: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._stage = stage
        self._store = store
        self._encoding = encoding
        self._note = note
        self._clock = clock
        # A category that no user of the bundle has would be read from behind the tables of the models.
        self._largest = stage.category.max(axis=0, initial=0)

    def __call__(
        self, user_id: np.ndarray, history: np.ndarray | None = None, context: np.ndarray | None = None
    ) -> Features:
        """See ``FeatureTransform``."""
        features = self._stage(user_id, history)
        asked = np.flatnonzero(user_id[:, 0] >= 0)
        if asked.size:
            is_given = np.zeros(asked.size, bool) if history is None else history[asked, 0] != STORED
            began = time.perf_counter_ns()
            reading = self._store.read(user_id[asked, 0])
            took = time.perf_counter_ns() - began
            age_s = self._use(features, asked, is_given, reading)
            self._note(reading.state, took, age_s)
        self._stage.put_context(features.user_category, context)  # over what the store holds of the user
        return features

    def _use(self, features: Features, asked: np.ndarray, is_given: np.ndarray, reading: Reading) -> np.ndarray:
        """Puts what was read of the rows ``asked`` into ``features``, and returns the ages of what was used, in seconds."""
        records, state = reading
        features.freshness[asked[(state == UNREACHABLE) & ~is_given]] = STALE
        is_encoded = (state == FRESH) & (records["encoding"] == self._encoding)
        state[is_encoded & (records["category"] > self._largest).any(axis=1)] = CORRUPT
        is_encoded &= state == FRESH
        follows = (state == FRESH) & ~is_given
        if is_encoded.any():
            features.user_category[asked[is_encoded]] = records["category"][is_encoded]
            features.user_number[asked[is_encoded], :-1] = records["number"][is_encoded]
        if follows.any():
            self._extend(features, asked[follows], records[follows])
        is_used = is_encoded | follows
        age_s: np.ndarray = self._clock() - records["written_ms"][is_used] / 1000
        features.freshness[asked[is_used], 0] = np.maximum(
            age_s, LEAST_S
        )  # also where the clock of the writer is ahead
        return age_s

    def _extend(self, features: Features, rows: np.ndarray, records: np.ndarray) -> None:
        """Lets the events of ``records`` follow the stored histories of ``rows``."""
        fresh = lookup(self._stage.item_ids, records["history"])  # an unknown item is like padding
        history = merge(features.history_index[rows], fresh)
        features.history_index[rows] = history
        features.user_number[rows, -1] = np.log1p((history >= 0).sum(axis=1), dtype=np.float32)

    def tables(self) -> None:
        """There is no compiled form."""

    def save(self, path: Path) -> None:
        self._stage.save(path)
