"""What a store of fresh features is to the stages. Without one, the tables of the bundle are all there is."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np

__all__ = ["FeatureStore", "Reading"]


class Reading(NamedTuple):
    """What a store holds of some users: their values, structured [n] as of ``RecordLayout.dtype`` and empty unless the state is
    FRESH, and the state of each, uint8 [n], see ``record.STATES``."""

    records: np.ndarray
    state: np.ndarray


class FeatureStore(Protocol):
    """Holds values of users, over the tables of the bundle."""

    def read(self, user_id: np.ndarray) -> Reading:
        """Asks for all ``user_id`` (int64 [n], from 0) at once. Never raises, and never takes much longer than its time-out: of
        users that it cannot be asked for, the state is UNREACHABLE."""
        ...
