"""What `trireme perf features` measures, on a scripted store and a scripted Redis."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from trireme_perf.errors import PerfError
from trireme_perf.features import reading, redis_process
from trireme_perf.features.reading import Settings, measure_reading
from trireme_runtime.features.record import CORRUPT
from trireme_runtime.features.store import Reading

SETTINGS = Settings(users=4, features=5, history=3, stored=20, reads=100)


class FakeRedis:
    """As much of Redis as the measurement uses."""

    def __init__(self) -> None:
        self.held: dict[bytes, bytes] = {}
        self.asked = 0

    def mset(self, values: dict[bytes, bytes]) -> None:
        self.held |= values

    def mget(self, keys: list[bytes]) -> list[bytes | None]:
        self.asked += 1
        return [self.held.get(key) for key in keys]

    def delete(self, *keys: bytes) -> None:
        for key in keys:
            del self.held[key]


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeRedis:
    made = FakeRedis()
    monkeypatch.setattr(reading.redis.Redis, "from_url", lambda *_, **__: made)

    class Store:
        def __init__(self, _: Any, layout: Any) -> None:
            self.layout = layout

        def read(self, user_id: np.ndarray) -> Reading:
            return Reading(*self.layout.decode(made.mget(reading.user_keys(reading.NAMESPACE, user_id))))

    monkeypatch.setattr(reading, "open_store", Store)
    return made


def test_store_and_bare_mget_are_asked_in_turn_for_the_same_users(fake: FakeRedis) -> None:
    result = measure_reading(SETTINGS, "redis://host")
    assert fake.asked == 2 * (SETTINGS.reads + reading.WARM)
    assert result["value_bytes"] == SETTINGS.layout.dtype.itemsize
    for percent in ("p50", "p99"):
        parts = result["read"][f"{percent}_ms"], result["mget"][f"{percent}_ms"]
        assert result["ratio"][percent] == pytest.approx(parts[0] / parts[1])


def test_nothing_is_left_behind(fake: FakeRedis, monkeypatch: pytest.MonkeyPatch) -> None:
    measure_reading(SETTINGS, "redis://host")
    assert fake.held == {}

    def corrupt(self: Any, values: list[bytes | None]) -> tuple[np.ndarray, np.ndarray]:
        return self.empty(len(values)), np.full(len(values), CORRUPT, np.uint8)

    monkeypatch.setattr(type(SETTINGS.layout), "decode", corrupt)
    with pytest.raises(PerfError, match="the feature store did not answer, or not with what was written"):
        measure_reading(SETTINGS, "redis://host")
    assert fake.held == {}


def test_a_redis_that_does_not_answer_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(PerfError, match=r"Redis \(127.0.0.1:1, namespace trireme-perf\) does not do what is asked"):
        measure_reading(SETTINGS, "redis://127.0.0.1:1")


def test_without_the_program_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_process.shutil, "which", lambda _: None)
    with pytest.raises(PerfError, match="redis-server is not on PATH; install it"):
        measure_reading(SETTINGS)
