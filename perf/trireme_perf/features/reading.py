"""What it takes to read the values of a batch of users from a feature store into NumPy, beside a bare MGET of the same values.

Both ask the same Redis for the same users, in turn, so that what else the machine does meets both.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import redis

from trireme_perf.errors import PerfError
from trireme_perf.features.redis_process import redis_process
from trireme_perf.stats.percentiles import percentile
from trireme_runtime.features.address import StoreAddress
from trireme_runtime.features.opening import open_store
from trireme_runtime.features.record import FRESH, RecordLayout, user_keys
from trireme_runtime.features.redis_store import options
from trireme_runtime.features.store import FeatureStore

__all__ = ["Settings", "measure_reading"]

NAMESPACE = "trireme-perf"
#: Reads of each kind that are not counted.
WARM = 50
#: Longer than any read: what is slow is measured, and not given up.
TIMEOUT_MS = 1000


@dataclass(frozen=True)
class Settings:
    """``users`` are read at once, of ``stored`` ones; ``features`` are half categories and half numbers."""

    users: int = 100
    features: int = 50
    history: int = 100
    stored: int = 10_000
    reads: int = 3000

    @property
    def layout(self) -> RecordLayout:
        return RecordLayout(self.history, self.features // 2, self.features - self.features // 2)


def measure_reading(settings: Settings, url: str | None = None) -> dict[str, Any]:
    """Measures reads of a store with made-up users.

    Args:
        url: address of a Redis, in which the users are written and, at the end, deleted; None starts ``redis-server`` for the
            measurement, on a free port of this machine.

    Returns:
        ``{"settings", "value_bytes", "read": {"p50_ms", "p99_ms"}, "mget": {…}, "ratio": {"p50", "p99"}}``; ``ratio`` is the read
        over the bare MGET.

    Raises:
        PerfError: there is no ``redis-server``, or Redis does not answer.
        FeatureStoreError: ``url`` is no address of a store.
    """
    if url is None:
        with redis_process() as started:
            return measure_reading(settings, started)
    address = StoreAddress.parse(f"{url}{'&' if '?' in url else '?'}namespace={NAMESPACE}&timeout_ms={TIMEOUT_MS}")
    bare: Any = redis.Redis.from_url(address.url, **options(address))
    users = np.arange(settings.stored)
    try:
        _write(bare, settings, users)
        try:
            read_s, mget_s = _reads(open_store(address, settings.layout), bare, settings)
        finally:
            for part in np.array_split(users, max(1, users.size // 1000)):
                bare.delete(*user_keys(NAMESPACE, part))
    except redis.RedisError as error:
        raise PerfError(f"Redis ({address}) does not do what is asked: {error}") from None
    read, mget = _milliseconds(read_s), _milliseconds(mget_s)
    return {
        "settings": asdict(settings),
        "value_bytes": settings.layout.dtype.itemsize,
        "read": read,
        "mget": mget,
        "ratio": {name: read[f"{name}_ms"] / mget[f"{name}_ms"] for name in ("p50", "p99")},
    }


def _write(bare: Any, settings: Settings, users: np.ndarray) -> None:
    """Full histories and random features, as a store holds them."""
    rng = np.random.default_rng(0)
    records = settings.layout.empty(users.size)
    records["count"] = settings.history
    records["written_ms"] = time.time() * 1000
    records["encoding"] = 1
    records["history"] = rng.integers(0, 1_000_000, records["history"].shape)
    records["time_ms"] = np.sort(rng.integers(0, 10**12, records["time_ms"].shape), axis=1)
    records["category"] = rng.integers(0, 1000, records["category"].shape)
    records["number"] = rng.normal(size=records["number"].shape)
    pairs = list(zip(user_keys(NAMESPACE, users), (record.tobytes() for record in records), strict=True))
    for start in range(0, len(pairs), 1000):
        bare.mset(dict(pairs[start : start + 1000]))


def _reads(store: FeatureStore, bare: Any, settings: Settings) -> tuple[np.ndarray, np.ndarray]:
    """The seconds that each read took, of the store and of the bare MGET."""
    rng = np.random.default_rng(1)

    def read(users: np.ndarray) -> None:
        if not (store.read(users).state == FRESH).all():
            raise PerfError("the feature store did not answer, or not with what was written")

    def mget(users: np.ndarray) -> None:
        bare.mget(user_keys(NAMESPACE, users))

    taken: dict[Callable[[np.ndarray], None], list[float]] = {read: [], mget: []}
    for turn in range(WARM + settings.reads):
        asked = rng.integers(0, settings.stored, settings.users)
        for kind in (read, mget) if turn % 2 else (mget, read):
            began = time.perf_counter()
            kind(asked)
            taken[kind].append(time.perf_counter() - began)
    return np.array(taken[read][WARM:]), np.array(taken[mget][WARM:])


def _milliseconds(seconds: np.ndarray) -> dict[str, float]:
    return {f"p{percent}_ms": 1000 * percentile(seconds, percent) for percent in (50, 99)}
