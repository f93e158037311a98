"""What `trireme perf features` measures, on a scripted store and a scripted Redis."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trireme_perf.errors import PerfError
from trireme_perf.features import feast, reading, redis_process
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


#: Answers as feast_store.py does; each read took as many seconds as the first of its users says.
FEAST = """
import json, sys
print("1.2.3", flush=True)
for line in sys.stdin:
    asked = json.loads(line)
    if asked["users"] == [9]:
        sys.exit(3)
    print(asked["users"][0] + (0.5 if asked["service"] == "user" else 0.25), flush=True)
"""


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Takes the place of Feast, and of its environment."""
    program = tmp_path / "feast_store.py"
    program.write_text(FEAST)
    monkeypatch.setattr(feast, "PROGRAM", program)
    monkeypatch.setattr(feast, "PYTHON", Path(sys.executable))
    return program


def test_feast_reads_in_a_process_and_tells_its_time(program: Path) -> None:
    with feast.feast_process("redis://127.0.0.1:1", 20, 5, 3) as started:
        assert started.version == "1.2.3"
        assert started.read("feast", [7, 8]) == 7.5
        assert started.read("feast_precomputed", [2]) == 2.25
        with pytest.raises(PerfError, match="Feast ended with exit code 3; what it printed says why"):
            started.read("feast", [9])
        with pytest.raises(PerfError, match="Feast ended"):
            started.read("feast", [1])


def test_feast_is_told_where_redis_is_and_what_to_write(program: Path) -> None:
    program.write_text("import sys\nprint(sys.argv[1:], flush=True)")
    with feast.feast_process("redis://127.0.0.1:1", 20, 5, 3) as started:
        words = started.version
    assert "['--redis', '127.0.0.1:1', '--folder', " in words
    assert words.endswith("'--stored', '20', '--features', '5', '--history', '3']")


def test_a_feast_that_does_not_start_is_an_error(program: Path) -> None:
    program.write_text("raise SystemExit(1)")
    with (
        pytest.raises(PerfError, match="Feast ended with exit code 1"),
        feast.feast_process("redis://127.0.0.1:1", 20, 5, 3),
    ):
        pass


@pytest.fixture
def own_redis(fake: FakeRedis, monkeypatch: pytest.MonkeyPatch) -> FakeRedis:
    """The Redis that a measurement starts."""

    @contextmanager
    def started() -> Iterator[str]:
        yield "redis://127.0.0.1:1"

    monkeypatch.setattr(reading, "redis_process", started)
    return fake


@pytest.mark.usefixtures("own_redis")
def test_feast_reads_the_same_users_in_turn(program: Path) -> None:
    said: list[str] = []
    result = measure_reading(SETTINGS, tell=said.append)
    beside = result["feast"]
    assert said == ["Feast writes 20 users"]
    assert (beside["version"], set(beside["ratio"])) == ("1.2.3", {"feast", "feast_precomputed"})
    for percent in ("p50", "p99"):
        key = f"{percent}_ms"
        assert beside["feast"][key] == beside["feast_precomputed"][key] + 250  # of the same users
        assert beside["ratio"]["feast"][percent] == pytest.approx(beside["feast"][key] / beside["read"][key])


@pytest.mark.usefixtures("own_redis")
def test_without_feast_it_says_how_to_install_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feast, "PYTHON", tmp_path / "python")
    said: list[str] = []
    assert "feast" not in measure_reading(SETTINGS, tell=said.append)
    assert said == [
        f"without Feast: {tmp_path / 'python'} is missing; `make .venv-feast/.ready` sets it up, in a checkout"
    ]
