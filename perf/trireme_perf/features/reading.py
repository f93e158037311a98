"""What it takes to read the values of a batch of users from a feature store into NumPy, beside a bare MGET of the same values,
and beside Feast.

All ask the same Redis for the same users, in turn, so that what else the machine does meets all of them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
import redis

from trireme_perf.errors import PerfError
from trireme_perf.features.feast import SERVICES, Feast, feast_process, missing_feast
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
PERCENTS = (50, 99)

#: Reads users, and returns the seconds that it took.
Contestant = Callable[[list[int]], float]


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


def measure_reading(settings: Settings, url: str | None = None, tell: Callable[[str], None] = print) -> dict[str, Any]:
    """Measures reads of a store with made-up users.

    Args:
        url: address of a Redis, in which the users are written and, at the end, deleted; None starts ``redis-server`` for the
            measurement, on a free port of this machine, and has Feast take part, where it is installed.
        tell: is given what takes long, and why Feast does not take part.

    Returns:
        ``{"settings", "value_bytes", "read": {"p50_ms", "p99_ms"}, "mget": {…}, "ratio": {"p50", "p99"}}``; ``ratio`` is the read
        over the bare MGET. With Feast also ``"feast": {"version", "read": {…}, "feast": {…}, "feast_precomputed": {…}, "ratio":
        {name: {"p50", "p99"}}}``: of reads in turn with Feast's, which those of ``ratio`` are set against.

    Raises:
        PerfError: there is no ``redis-server``, or Redis does not answer.
        FeatureStoreError: ``url`` is no address of a store.
    """
    if url is not None:
        return _measure(settings, url, None)
    with redis_process() as started:
        if missing := missing_feast():
            tell(f"without Feast: {missing}")
            return _measure(settings, started, None)
        tell(f"Feast writes {settings.stored} users")
        with feast_process(started, settings.stored, settings.features, settings.history) as feast:
            return _measure(settings, started, feast)


def _measure(settings: Settings, url: str, feast: Feast | None) -> dict[str, Any]:
    address = StoreAddress.parse(f"{url}{'&' if '?' in url else '?'}namespace={NAMESPACE}&timeout_ms={TIMEOUT_MS}")
    bare: Any = redis.Redis.from_url(address.url, **options(address))
    users = np.arange(settings.stored)
    try:
        _write(bare, settings, users)
        try:
            read, mget = _own(open_store(address, settings.layout), bare)
            found = _reads({"read": read, "mget": mget}, settings)
            beside = {} if feast is None else {"feast": _beside_feast(read, feast, settings)}
        finally:
            for part in np.array_split(users, max(1, users.size // 1000)):
                bare.delete(*user_keys(NAMESPACE, part))
    except redis.RedisError as error:
        raise PerfError(f"Redis ({address}) does not do what is asked: {error}") from None
    sizes = {"settings": asdict(settings), "value_bytes": settings.layout.dtype.itemsize}
    return {**sizes, **found, "ratio": _ratios(found["read"], found["mget"]), **beside}


def _beside_feast(read: Contestant, feast: Feast, settings: Settings) -> dict[str, Any]:
    others: dict[str, Contestant] = {name: partial(feast.read, name) for name in SERVICES}
    found = _reads({"read": read, **others}, settings)
    return {"version": feast.version, **found, "ratio": {name: _ratios(found[name], found["read"]) for name in others}}


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


def _own(store: FeatureStore, bare: Any) -> tuple[Contestant, Contestant]:
    """Reads of the store, and the bare MGET."""

    def read(users: list[int]) -> float:
        asked = np.array(users)
        began = time.perf_counter()
        state = store.read(asked).state
        took = time.perf_counter() - began
        if not (state == FRESH).all():
            raise PerfError("the feature store did not answer, or not with what was written")
        return took

    def mget(users: list[int]) -> float:
        asked = np.array(users)
        began = time.perf_counter()
        bare.mget(user_keys(NAMESPACE, asked))
        return time.perf_counter() - began

    return read, mget


def _reads(contestants: Mapping[str, Contestant], settings: Settings) -> dict[str, dict[str, float]]:
    """Percentiles of the time that each took, all of which read the same users in turn, each as often the first as the second."""
    rng = np.random.default_rng(1)
    taken: dict[str, list[float]] = {name: [] for name in contestants}
    first, second, *others = contestants
    for turn in range(WARM + settings.reads):
        users = rng.integers(0, settings.stored, settings.users).tolist()
        for name in (first, second, *others) if turn % 2 else (second, first, *others):
            taken[name].append(contestants[name](users))
    return {name: _milliseconds(np.array(seconds[WARM:])) for name, seconds in taken.items()}


def _milliseconds(seconds: np.ndarray) -> dict[str, float]:
    return {f"p{percent}_ms": 1000 * percentile(seconds, percent) for percent in PERCENTS}


def _ratios(one: Mapping[str, float], other: Mapping[str, float]) -> dict[str, float]:
    return {f"p{percent}": one[f"p{percent}_ms"] / other[f"p{percent}_ms"] for percent in PERCENTS}
