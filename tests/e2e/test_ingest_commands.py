"""`trireme ingest`: run through kills of everything, from files, and without a user who wants to be forgotten."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import urllib.request
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from redis import Redis
from typer.testing import CliRunner

from tests.support.consuming import consuming
from tests.support.frames import write_frames
from tests.support.ingested import DIMS, NAMESPACE, expected, held, write_sizes
from tests.support.redis_server import RedisServer
from tests.support.serving import eventually
from trireme_cli.app import app
from trireme_cli.output import CommandError
from trireme_client import Tracker
from trireme_ingest.errors import IngestError
from trireme_ingest.events import Event
from trireme_runtime.errors import BundleError
from trireme_runtime.features.record import RecordLayout

#: Of the test that kills; 100,000 take two minutes.
EVENTS = int(os.environ.get("TRIREME_TEST_EVENTS", "20000"))
USERS = EVENTS // 40
#: Long enough for every event, so that a record that lacks one shows it.
LONG = replace(DIMS, history=128)
START_MS = 1_700_000_000_000
STREAM = "trireme:events"


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    return write_sizes(tmp_path / "repository", LONG)


def address(url: str) -> str:
    return f"{url}?namespace={NAMESPACE}"


def words(name: str, url: str, repository: Path, *more: str) -> list[str]:
    options = ["--redis", address(url), "--repository", str(repository), "--json"]
    return ["ingest", name, *more, *options]


def run(name: str, server: RedisServer, repository: Path, *more: str) -> dict[str, Any]:
    """Runs a command to its end; returns the JSON document."""
    done = CliRunner().invoke(app, words(name, server.url, repository, *more))
    assert done.exit_code == 0, done.exception
    return json.loads(done.stdout.splitlines()[-1])


def refusal(name: str, server: RedisServer, repository: Path, *more: str) -> str:
    """Runs a command that fails; returns what it would say in one line."""
    done = CliRunner().invoke(app, words(name, server.url, repository, *more))
    assert isinstance(done.exception, CommandError | IngestError | BundleError)
    return str(done.exception)


def position(redis: Redis) -> bytes:
    """The entry that was given to a consumer last."""
    groups = redis.xinfo_groups(STREAM) if redis.exists(STREAM) else []
    return max((one["last-delivered-id"] for one in groups), default=b"")


def done(redis: Redis) -> bool:
    (group,) = redis.xinfo_groups(STREAM)
    return group["pending"] == 0 and group["last-delivered-id"] == redis.xinfo_stream(STREAM)["last-generated-id"]


def shop(seed: int, count: int) -> list[Event]:
    """Events in the order in which they arrive; a tenth are late. Each is another one."""
    rng = np.random.default_rng(seed)
    time_ms = START_MS + 1000 * np.arange(count)
    time_ms[rng.random(count) < 0.1] -= 3_600_000
    users, items = rng.integers(USERS, size=count), rng.integers(5000, size=count)
    return [Event(*row) for row in np.stack([users, items, time_ms], axis=1).tolist()]


def test_no_event_is_lost_or_applied_twice_whatever_is_killed(
    own_redis: RedisServer, redis: Redis, repository: Path
) -> None:
    """Two consumers, and Redis, each twice while there is work; the producer is a `Tracker`."""
    events = shop(0, EVENTS)
    parts = [events[start::4] for start in range(4)]
    with ExitStack() as processes:

        def start() -> list[subprocess.Popen[str]]:
            started = [
                processes.enter_context(consuming(address(own_redis.url), repository, name)) for name in ("one", "two")
            ]
            assert all(one.stderr and any(" applies the events of " in line for line in one.stderr) for one in started)
            return started

        consumers = start()
        tracker = processes.enter_context(Tracker(own_redis.url, max_pending=EVENTS))
        for number, part in enumerate(parts):
            before = position(redis)
            assert all(tracker.track(user, item, time_ms / 1000) for user, item, time_ms in part)
            assert eventually(lambda: position(redis) != before)  # noqa: B023
            if number % 2:
                own_redis.kill()
                own_redis.start()
            else:
                for process in consumers:
                    process.kill()
                consumers = start()
        tracker.close(timeout=120)
        assert (tracker.sent, tracker.dropped) == (EVENTS, 0)
        assert eventually(lambda: done(redis), timeout_s=120)
        assert held(redis, range(USERS), RecordLayout.of(LONG)) == expected(events, LONG.history)
        for process in consumers:
            process.send_signal(signal.SIGTERM)
        outcomes = [json.loads(process.communicate(timeout=30)[0])["events"] for process in consumers]
        assert [process.returncode for process in consumers] == [0, 0]
    assert set().union(*outcomes) <= {"applied", "late", "duplicate"}


def test_a_consumer_shows_metrics_and_ends_at_a_signal(own_redis: RedisServer, redis: Redis, repository: Path) -> None:
    with consuming(address(own_redis.url), repository, "one", "--metrics-port", "0") as process:
        assert process.stderr is not None
        url = next(line.split()[-1] for line in process.stderr if line.startswith("metrics at "))
        redis.xadd(STREAM, {"user": 7, "item": 1, "time": START_MS})
        assert eventually(lambda: b'events_total{outcome="applied"} 1.0' in urllib.request.urlopen(url).read())
        process.send_signal(signal.SIGTERM)
        printed, _ = process.communicate(timeout=30)
    assert process.returncode == 0
    about = {"stream": STREAM, "group": "trireme", "consumer": "one"}
    assert json.loads(printed) == {**about, "events": {"applied": 1}}


def test_a_file_of_json_lines(own_redis: RedisServer, redis: Redis, repository: Path, tmp_path: Path) -> None:
    events = shop(1, 2500)
    lines = [{"user": user, "item": item, "time": time_ms} for user, item, time_ms in events]
    file = tmp_path / "events.jsonl"
    file.write_text("".join(f"{json.dumps(line)}\n" for line in [*lines, {**lines[0], "item": 9999, "label": 0}]))
    first = run("file", own_redis, repository, str(file))
    assert first == {"file": str(file), "events": {**first["events"], "negative": 1}}
    assert first["events"]["applied"] + first["events"]["late"] == len(events)
    assert held(redis, range(USERS), RecordLayout.of(LONG)) == expected(events, LONG.history)
    again = run("file", own_redis, repository, str(file))
    assert again["events"] == {"duplicate": len(events), "negative": 1}


def test_a_parquet_file_holds_the_positives_of_the_training(
    own_redis: RedisServer, redis: Redis, repository: Path, tmp_path: Path
) -> None:
    start = START_MS // 1000
    columns = {"user_id": [1, 1, 2, 2], "item_id": [5, 6, 7, 8], "timestamp": [start + 9, start, start + 5, start + 6]}
    write_frames(tmp_path, {**columns, "is_click": [1, 1, 0, 1]})
    found = run("file", own_redis, repository, str(tmp_path / "interactions.parquet"))
    assert found["events"] == {"applied": 3, "negative": 1}
    taken = [Event(1, 5, START_MS + 9000), Event(1, 6, START_MS), Event(2, 8, START_MS + 6000)]
    assert held(redis, (1, 2), RecordLayout.of(LONG)) == expected(taken)


def test_a_user_is_forgotten(own_redis: RedisServer, redis: Redis, repository: Path, tmp_path: Path) -> None:
    file = tmp_path / "events.jsonl"
    file.write_text(f'{{"user": 7, "item": 1, "time": {START_MS}}}\n{{"user": 8, "item": 1, "time": {START_MS}}}\n')
    run("file", own_redis, repository, str(file))
    assert run("forget", own_redis, repository, "--user", "7") == {"user": 7, "had_record": True}
    assert run("file", own_redis, repository, str(file))["events"] == {"forgotten": 1, "duplicate": 1}
    assert held(redis, (7, 8), RecordLayout.of(LONG)) == expected([Event(8, 1, START_MS)])


def test_what_a_command_cannot_do_is_one_line(
    own_redis: RedisServer, redis: Redis, repository: Path, tmp_path: Path
) -> None:
    lines = tmp_path / "events.jsonl"
    lines.write_text(
        f'{{"user": 7, "item": 1, "time": {START_MS}}}\n\n{{"user": 7.5, "item": 1, "time": {START_MS}}}\n'
    )
    assert refusal("file", own_redis, repository, str(lines)).startswith(f"{lines}, line 3: user is '7.5'; allowed: ")
    assert refusal("file", own_redis, repository, "events.csv") == (
        "FILE is events.csv; allowed: a name that ends in .parquet or .jsonl"
    )
    redis.set(STREAM, "a string")
    assert "WRONGTYPE" in refusal("run", own_redis, repository)
    assert refusal("forget", own_redis, tmp_path, "--user", "7").startswith(f"{tmp_path}: has no model 'recommend'")
    gone = RedisServer(tmp_path)
    assert refusal("run", gone, repository).startswith(
        f"Redis ({gone.url.partition('://')[2]}, namespace {NAMESPACE}) cannot be used: "
    )
