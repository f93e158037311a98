"""What Prometheus is told of restarts, replicas and models."""

from __future__ import annotations

from trireme_server.health import Readiness
from trireme_server.metrics import SupervisorMetrics


def lines(metrics: SupervisorMetrics) -> list[str]:
    return [line for line in metrics.page().decode().splitlines() if not line.startswith("#")]


def test_all_is_well() -> None:
    ready = Readiness()
    ready.reason = None
    assert lines(SupervisorMetrics([ready])) == [
        'trireme_restarts_total{model="",what="tritonserver"} 0.0',
        "trireme_replicas 1.0",
        "trireme_replicas_ready 1.0",
        "trireme_models_down 0.0",
    ]


def test_deaths_restarts_and_what_is_down() -> None:
    ready, down = Readiness(), Readiness()
    ready.reason, down.models_down = None, ["ranking", "retrieval"]
    metrics = SupervisorMetrics([ready, down], lambda: 1.8e9)
    metrics.died()
    metrics.server_restarted()
    metrics.instances_replaced("ranking", 0)
    metrics.instances_replaced("ranking", 2)
    assert lines(metrics) == [
        'trireme_restarts_total{model="",what="tritonserver"} 1.0',
        'trireme_restarts_total{model="ranking",what="instance"} 2.0',
        "trireme_replicas 2.0",
        "trireme_replicas_ready 1.0",
        "trireme_models_down 2.0",
        "trireme_last_death_timestamp_seconds 1.8e+09",
    ]
