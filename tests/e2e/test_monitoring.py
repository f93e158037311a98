"""A real Prometheus watches a real server under load, in which one stage gets slow: what fires, and what the dashboard shows.

The rules are those of ``docker/prometheus``, a minute of theirs in a second of the test.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from prometheus_client import CollectorRegistry, start_http_server

from tests.e2e.conftest import PIPELINE, Served
from tests.support.dashboard import read_dashboard, read_queries, substitute
from tests.support.load import Load
from tests.support.prometheus import Prometheus, Sample, shorter_expression, write_configuration
from tests.support.redis_server import redis_server
from tests.support.serving import served_briefly
from trireme_client import Cache
from trireme_ingest.metrics import Progress
from trireme_perf.slow_stage import SlowStage
from trireme_runtime.bundle import read_manifest
from trireme_runtime.features.record import RecordLayout, user_key
from trireme_runtime.schema import FUSED, STAGES
from trireme_server import TritonServer
from trireme_server.health import HealthEndpoint, Readiness
from trireme_server.metrics import SupervisorMetrics

FACTOR = 60.0
SLOW = "ranking"
SLOWER_MS = 1.25 * PIPELINE.budget.p99_ms  # no request of a slow batch keeps the SLO
WITHIN_S = 300.0
OF_STAGES = ("TriremeStageP99Unusual", "TriremeStageShareUnusual", "TriremeStageOverBudget")

#: Everything that fires; and all that has since the start.
FIRING = 'ALERTS{alertstate="firing"}'
FIRED = f"max_over_time({FIRING}[1h])"
MISSED = "trireme:slo_missed:ratio5m"


@dataclass(frozen=True)
class Watched:
    """A stage is slow. Before it was, these alerts had ``fired``, and of the last requests this part had ``missed`` the SLO."""

    prometheus: Prometheus
    fired: list[Sample]
    missed: float


@pytest.fixture(scope="module")
def watched(served: Served, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    folder = tmp_path_factory.mktemp("watched")
    slow = SlowStage(served.repository, served.repository.parent / "slow")
    users = served.dataset.test.user_id[:200].tolist()
    with (
        feature_store(served, users, folder) as features,
        served_briefly(slow.repository, features=features) as server,
        Load(server.grpc_url, FUSED, users, callers=4, rate=20, cache=Cache(ttl_s=5, store=features)) as load,
        supervised(server) as supervisor_url,
        consumed() as ingest,
        watch(folder, server, supervisor_url, load, ingest) as prometheus,
    ):
        wait_for(lambda: len(prometheus.query("trireme:stage_p99_seconds:limit1d")) == len(STAGES))
        fired, missed = prometheus.query(FIRED), prometheus.query(MISSED)[0][1]
        slow.set(SLOW, ms=SLOWER_MS)
        expected = {("TriremeSLOBurnFast", ""), *((alert, SLOW) for alert in OF_STAGES)}
        wait_for(lambda: expected <= stages(prometheus.query(FIRING), "TriremeSLOBurnFast", *OF_STAGES))
        yield Watched(prometheus, fired, missed)


@contextmanager
def feature_store(served: Served, users: list[int], folder: Path) -> Iterator[str]:
    """Yields the address of one that knows of ``users`` that they did nothing."""
    record = RecordLayout.of(read_manifest(served.repository).dims).empty(1)
    record["written_ms"] = time.time() * 1000
    with redis_server(folder) as redis:
        with redis.connect() as connection:
            connection.mset({user_key("default", user): record.tobytes() for user in users})
        yield f"{redis.url}?timeout_ms=500"


@contextmanager
def consumed() -> Iterator[str]:
    """Yields host:port of the metrics of a consumer of events that has nothing to do."""
    registry = CollectorRegistry()
    Progress(registry)
    server, thread = start_http_server(0, "127.0.0.1", registry)
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()


@contextmanager
def supervised(server: TritonServer) -> Iterator[str]:
    """Yields the URL of what a supervisor publishes."""
    readiness = Readiness()
    readiness.reason, readiness.http_url = None, server.http_url
    with HealthEndpoint("127.0.0.1", 0, lambda: (True, "ready"), SupervisorMetrics([readiness]).page) as health:
        yield health.url


def watch(folder: Path, server: TritonServer, supervisor_url: str, load: Load, ingest: str) -> Prometheus:
    targets = {"trireme": urlsplit(server.metrics_url).netloc, "callers": load.target, "ingest": ingest}
    targets["supervisor"] = urlsplit(supervisor_url).netloc
    return Prometheus(write_configuration(folder / "prometheus", FACTOR, targets), FACTOR)


def wait_for(arrived: Callable[[], bool]) -> None:
    """Until it is so, or for long enough that a test may say what is missing."""
    deadline = time.monotonic() + WITHIN_S
    while not arrived() and time.monotonic() < deadline:
        time.sleep(0.5)


def stages(alerts: list[Sample], *names: str) -> set[tuple[str, str]]:
    """(alert, stage) of those that have one of the names; an alert of no stage has an empty one."""
    return {(labels["alertname"], labels.get("stage", "")) for labels, _ in alerts if labels["alertname"] in names}


def test_no_stage_is_unusual_before_one_is_slow(watched: Watched) -> None:
    assert stages(watched.fired, *OF_STAGES[:2]) == set()


def test_the_slow_stage_is_named_and_no_other(watched: Watched) -> None:
    fired = watched.prometheus.query(FIRED)
    assert stages(fired, *OF_STAGES[:2]) == {(alert, SLOW) for alert in OF_STAGES[:2]}
    models = {labels["model"] for labels, _ in fired if labels.get("stage") == SLOW}
    assert models == {FUSED}


def test_the_slow_stage_is_over_its_budget(watched: Watched) -> None:
    assert (OF_STAGES[2], SLOW) in stages(watched.prometheus.query(FIRING), OF_STAGES[2])


def test_callers_that_wait_too_long_are_a_page(watched: Watched) -> None:
    burns = [labels for labels, _ in watched.prometheus.query(FIRING) if labels["alertname"] == "TriremeSLOBurnFast"]
    assert [(labels["trireme_model"], labels["severity"]) for labels in burns] == [(FUSED, "page")]
    missed = watched.prometheus.query(MISSED)[0][1]
    assert missed > max(0.9, watched.missed)


def test_nothing_else_is_said_to_be_wrong(watched: Watched) -> None:
    """No alert but those of time: a machine that others use may be slow at any moment."""
    others = {labels["alertname"] for labels, _ in watched.prometheus.query(FIRED)}
    assert others <= {*OF_STAGES, "TriremeSLOBurnFast", "TriremeSLOBurnSlow"}


def test_every_rule_is_evaluated_and_every_recorded_series_has_data(watched: Watched) -> None:
    rules = watched.prometheus.rules()
    assert {rule["name"]: rule.get("lastError", "") for rule in rules if rule["health"] != "ok"} == {}
    recorded = [rule["name"] for rule in rules if rule["type"] == "recording"]
    assert [name for name in recorded if not watched.prometheus.query(name)] == []


def test_the_dashboard_offers_the_models(watched: Watched) -> None:
    definition = read_dashboard()["templating"]["list"][0]["definition"]
    match, label = definition.removeprefix("label_values(").removesuffix(")").rsplit(", ", 1)
    assert FUSED in watched.prometheus.label_values(label, match)


@pytest.mark.parametrize(("panel", "expression"), read_queries())
def test_a_query_of_the_dashboard_has_data(watched: Watched, panel: str, expression: str) -> None:
    # What Grafana would put in: for a graph of some hours the window of a rate is several scrapes.
    variables = {"__rate_interval": "5m", "model": FUSED}
    found = watched.prometheus.query(shorter_expression(substitute(expression, variables), FACTOR))
    assert found, panel
    assert all(value == value for _, value in found), f"{panel}: NaN"
