"""From a service that tells what a user took, through Redis, to the next answer of a real server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.e2e.conftest import Served
from tests.support.consuming import consuming
from tests.support.redis_server import redis_server
from tests.support.serving import eventually, served_briefly
from trireme_cli.app import app
from trireme_client import Client, Rung, Tracker
from trireme_runtime.bundle import read_manifest


@dataclass(frozen=True)
class Shop:
    url: str
    redis_url: str


@pytest.fixture(scope="module")
def shop(served: Served, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    with redis_server(tmp_path_factory.mktemp("redis")) as redis:
        store = f"{redis.url}?namespace=shop&timeout_ms=500"
        with (
            served_briefly(served.repository, features=store) as server,
            consuming(f"{redis.url}?namespace=shop", served.repository, "one"),
        ):
            yield Shop(server.grpc_url, redis.url)


def test_an_event_is_in_the_next_answers(shop: Shop, served: Served, plan: str) -> None:
    known = int(served.checkpoint.tables.user_ids[3 + (plan == "recommend")])
    length = read_manifest(served.repository).dims.history
    with Client(shop.url, model=plan, timeout=20) as client, Tracker(shop.redis_url) as tracker:
        for user in (known, 2**62 + len(plan)):
            before = client.recommend(user, k=5)
            for item in before.item_ids[:length].tolist():
                tracker.track(user, item)
            assert eventually(lambda: not {*before.item_ids} & {*client.recommend(user, k=5).item_ids})  # noqa: B023
            after = client.recommend(user, k=5)
            assert after.rung == Rung.FULL
            assert after.feature_age_s < 60


def test_freshness_is_measured(shop: Shop) -> None:
    command = [
        "perf",
        "freshness",
        "--url",
        shop.url,
        "--redis",
        shop.redis_url,
        "--rate",
        "200",
        "--seconds",
        "2",
        "--json",
    ]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.exception
    result = json.loads(done.stdout.splitlines()[-1])
    assert set(result) == {"rate", "events", "probes", "p50_ms", "p99_ms", "max_ms"}
    assert (result["rate"], result["events"]) == (200, 400)
    assert result["probes"] >= 1
    assert 0 < result["p50_ms"] <= result["max_ms"]


def test_replayed_users_get_the_lists_of_the_offline_models(served: Served, tmp_path: Path) -> None:
    served.checkpoint.save(tmp_path / "checkpoint")
    places = {"data": served.data, "checkpoint": tmp_path / "checkpoint", "repository": served.repository}
    command = ["replay", *(word for name, place in places.items() for word in (f"--{name}", str(place))), "--json"]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.exception
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["all"]["moments"] > result["later"]["moments"] > 0
    found = result["served"]
    assert (found["model"], found["users"]) == ("recommend", 100)
    assert found["moments"] > found["users"]
    assert found["same"] > 0.99
    assert found["served"] == pytest.approx(found["offline"], abs=1e-3)
    # Lists that know nothing of the events would be others.
    assert result["later"]["lists"]["fresh"] != result["later"]["lists"]["snapshot"]
