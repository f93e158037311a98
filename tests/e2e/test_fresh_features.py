"""What users did lately, from a real Redis into the answers of a real server, in both plans."""

from __future__ import annotations

import re
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pytest

from tests.e2e.conftest import Served
from tests.support.redis_server import RedisServer, redis_server
from tests.support.serving import eventually, served_briefly
from trireme_client import Client, Reason, Recommendations, Rung
from trireme_runtime.features.record import RecordLayout, user_key
from trireme_server import TritonServer

NAMESPACE = "shop"
#: Written a while ago: that long that it is not the age of anything else.
AGE_S = 5000


@dataclass(frozen=True)
class Fresh:
    """A server with a feature store, and the store."""

    served: Served
    redis: RedisServer
    server: TritonServer

    @property
    def layout(self) -> RecordLayout:
        return RecordLayout.of(self.server.manifest.dims)

    def write(self, user: int, *items: int) -> None:
        record = self.layout.empty(1)
        count = record["count"] = len(items)
        record["history"][0, -count:] = items
        record["time_ms"][0, -count:] = np.arange(count) + 1_000_000
        record["written_ms"] = (time.time() - AGE_S) * 1000
        self.put(user, record.tobytes())

    def put(self, user: int, value: bytes) -> None:
        with self.redis.connect() as connection:
            connection.set(user_key(NAMESPACE, user), value)

    def ask(self, plan: str, user: int, **options: object) -> Recommendations:
        with Client(self.server.grpc_url, model=plan, timeout=20) as client:
            return client.recommend(user, **options)  # type: ignore[arg-type]

    def plain(self, plan: str, user: int, **options: object) -> Recommendations:
        with Client(self.served.url, model=plan, timeout=20) as client:
            return client.recommend(user, **options)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def fresh(served: Served, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fresh]:
    # The time-out is long: a machine that is busy with other tests must not be taken for a Redis that is.
    with (
        redis_server(tmp_path_factory.mktemp("redis")) as redis,
        served_briefly(served.repository, features=f"{redis.url}?namespace={NAMESPACE}&timeout_ms=500") as server,
    ):
        yield Fresh(served, redis, server)


def known_user(fresh: Fresh, place: int) -> int:
    return int(fresh.served.checkpoint.tables.user_ids[place])


def test_an_event_is_in_the_next_answer(fresh: Fresh, plan: str) -> None:
    user = known_user(fresh, 10 + (plan == "recommend"))
    before = fresh.ask(plan, user)
    assert (before.rung, before.reason, before.feature_age_s) == (Rung.FULL, Reason.NONE, 0)
    assert before.item_ids.tolist() == fresh.plain(plan, user).item_ids.tolist()
    item = int(before.item_ids[0])
    fresh.write(user, item)
    after = fresh.ask(plan, user)
    assert item not in after.item_ids
    assert (after.rung, after.reason) == (Rung.FULL, Reason.NONE)
    assert AGE_S - 1 <= after.feature_age_s <= AGE_S + 300
    assert after.item_ids.tolist() != before.item_ids.tolist()


def test_the_answer_is_that_to_the_same_history_in_the_request(fresh: Fresh, plan: str) -> None:
    user = known_user(fresh, 20)
    tables = fresh.served.checkpoint.tables
    stored = tables.history[20]
    items = tables.item_ids[[3, 5]].tolist()
    fresh.write(user, *items)
    given = [*tables.item_ids[stored[stored >= 0]].tolist(), *items]
    expected = fresh.plain(plan, user, history=given[-fresh.layout.history :])
    found = fresh.ask(plan, user)
    assert found.item_ids.tolist() == expected.item_ids.tolist()
    np.testing.assert_allclose(found.scores, expected.scores, rtol=1e-4)


def test_a_history_of_the_request_is_kept(fresh: Fresh, plan: str) -> None:
    user, item = known_user(fresh, 30), int(fresh.served.checkpoint.tables.item_ids[7])
    fresh.write(user, int(fresh.served.checkpoint.tables.item_ids[9]))
    found, expected = fresh.ask(plan, user, history=[item]), fresh.plain(plan, user, history=[item])
    assert (found.item_ids.tolist(), found.feature_age_s) == (expected.item_ids.tolist(), 0)


def test_a_user_of_the_store_alone_is_known(fresh: Fresh, plan: str) -> None:
    user = 10**12
    fresh.write(user, *fresh.served.checkpoint.tables.item_ids[:3].tolist())
    assert fresh.ask(plan, user).rung == Rung.FULL
    assert fresh.plain(plan, user).rung == Rung.POPULAR


@pytest.mark.parametrize("value", [b"", b"not a value of this layout"])
def test_a_corrupt_value_is_answered_from_the_bundle(fresh: Fresh, plan: str, value: bytes) -> None:
    user = known_user(fresh, 40)
    fresh.put(user, value)
    found = fresh.ask(plan, user)
    assert found.item_ids.tolist() == fresh.plain(plan, user).item_ids.tolist()
    assert (found.rung, found.reason, found.feature_age_s) == (Rung.FULL, Reason.NONE, 0)


@pytest.mark.parametrize("fault", ["frozen", "killed"])
def test_without_redis_answers_are_the_bundle_s_and_say_so(fresh: Fresh, plan: str, fault: str) -> None:
    user = known_user(fresh, 50)
    fresh.write(user, int(fresh.served.checkpoint.tables.item_ids[11]))
    assert eventually(lambda: fresh.ask(plan, user).feature_age_s > 0)
    if fault == "frozen":
        fresh.redis.freeze()
    else:
        fresh.redis.kill()
    try:
        for _ in range(5):
            found = fresh.ask(plan, user)
            assert (found.rung, found.reason, found.feature_age_s) == (Rung.FULL, Reason.FEATURES_STALE, 0)
        assert found.item_ids.tolist() == fresh.plain(plan, user).item_ids.tolist()
    finally:
        if fault == "frozen":
            fresh.redis.thaw()
        else:
            fresh.redis.start()
    assert eventually(lambda: fresh.ask(plan, user).reason == Reason.NONE)
    assert fresh.ask(plan, user).feature_age_s > 0


def test_what_the_store_knows_of_users_is_counted(fresh: Fresh, plan: str) -> None:
    known, unknown, broken = (known_user(fresh, place) for place in (60, 61, 62))
    fresh.write(known, int(fresh.served.checkpoint.tables.item_ids[1]))
    fresh.put(broken, b"?")
    for user in (known, unknown, broken):
        fresh.ask(plan, user)
    model = "features" if plan == "recommend" else plan

    def counted(state: str) -> float:
        with urllib.request.urlopen(fresh.server.metrics_url, timeout=10) as answer:
            found = re.search(
                rf'^trireme_features_total{{model="{model}",state="{state}"}} (\S+)',
                answer.read().decode(),
                re.MULTILINE,
            )
        return float(found[1]) if found else 0.0

    assert eventually(lambda: min(map(counted, ("fresh", "absent", "corrupt"))) >= 1)
