"""What the models publish of themselves."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from trireme_runtime.features.record import ABSENT, FRESH, STATES, UNREACHABLE
from trireme_runtime.onnx_model import process_age_s
from trireme_runtime.schema import STAGES
from trireme_runtime.triton.metrics import BUCKETS_S, Publisher, StageMetrics

BUDGET = {"p50_ms": 10.0, "p99_ms": 20.0, "shares": dict.fromkeys(STAGES, 0.1) | {"retrieval": 0.3, "transport": 0.3}}


@dataclass
class FakeMetric:
    value: float = 0.0

    def increment(self, value: float) -> None:
        self.value += value

    def set(self, value: float) -> None:
        self.value = value


class FakeBackend:
    """The metrics of Triton's Python backend; the end-to-end tests read the real ones."""

    def __init__(self) -> None:
        made = self.made = dict[tuple[str, str], FakeMetric]()

        class MetricFamily:
            COUNTER = "counter"
            GAUGE = "gauge"

            def __init__(self, name: str, description: str, kind: str) -> None:
                self.name = name

            def Metric(self, labels: dict[str, str]) -> FakeMetric:  # noqa: N802
                key = (self.name, ",".join(labels.values()))
                return made.setdefault(key, FakeMetric())

        self.MetricFamily = MetricFamily

    def values(self, name: str) -> dict[str, float]:
        return {labels: metric.value for (family, labels), metric in self.made.items() if family == name}


def rungs(*values: int) -> np.ndarray:
    return np.array(values, dtype=np.uint8)[:, None]


def test_users_are_counted_by_what_the_feature_store_knows_of_them() -> None:
    backend: Any = FakeBackend()
    metrics = StageMetrics(backend, "features", ["feature_transform"])
    note = metrics.count_features()
    note(np.array([FRESH, ABSENT, FRESH], np.uint8), 2_000_000, np.array([5.0, 7.0]))
    note(np.array([UNREACHABLE], np.uint8), 1_000_000, np.array([]))
    metrics.publish()
    metrics.publish()
    counted = {f"features,{name}": 0.0 for name in STATES}
    assert backend.values("trireme_features_total") == counted | {
        "features,absent": 1,
        "features,fresh": 2,
        "features,unreachable": 1,
    }
    assert backend.values("trireme_features_read_seconds_sum") == {"features": pytest.approx(0.003)}
    assert backend.values("trireme_features_read_seconds_count") == {"features": 2}
    assert backend.values("trireme_features_age_seconds_sum") == {"features": 12}
    assert backend.values("trireme_features_age_seconds_count") == {"features": 2}


def test_without_a_feature_store_nothing_is_published_of_one() -> None:
    backend: Any = FakeBackend()
    StageMetrics(backend, "features", ["feature_transform"]).publish()
    assert not [name for name, _ in backend.made if name.startswith("trireme_features")]


def test_the_buckets_of_a_stage_go_from_50_us_to_a_second_and_beyond() -> None:
    assert (BUCKETS_S[0], BUCKETS_S[-2], BUCKETS_S[-1]) == pytest.approx((50e-6, 0.82, np.inf), rel=0.01)


def test_every_batch_counts_once_in_the_histogram_of_every_stage() -> None:
    backend: Any = FakeBackend()
    metrics = StageMetrics(backend, "ranking", ["ranking", "reranking"])
    metrics.note([2_000_000, 3_000], [])
    metrics.note([100_000, 2_000_000_000], [])
    assert not any(backend.values("trireme_stage_compute_seconds_count").values())
    metrics.publish()
    metrics.publish()
    assert backend.values("trireme_stage_compute_seconds_count") == {"ranking,ranking": 2, "ranking,reranking": 2}
    assert backend.values("trireme_stage_compute_seconds_sum") == pytest.approx(
        {"ranking,ranking": 0.0021, "ranking,reranking": 2.000003}
    )
    up_to = backend.values("trireme_stage_compute_seconds_bucket")
    assert up_to["ranking,ranking,7.07e-05"] == 0
    assert up_to["ranking,ranking,0.0001"] == 1  # what is as long as a bound lies below it
    assert up_to["ranking,ranking,0.0016"] == 1
    assert up_to["ranking,ranking,0.00226"] == 2
    assert up_to["ranking,reranking,5e-05"] == 1
    assert up_to["ranking,reranking,0.819"] == 1
    assert up_to["ranking,reranking,+Inf"] == 2


def test_users_are_counted_by_rung_and_reason_where_the_answer_is_made() -> None:
    backend: Any = FakeBackend()
    metrics = StageMetrics(backend, "ranking", ["reranking"], ["item_id", "rung", "reason"])
    metrics.note([1], [np.empty(0), rungs(0, 0, 3), rungs(0, 0, 4)])
    metrics.note([1], [np.empty(0), rungs(2), rungs(3)])
    metrics.publish()
    counted = backend.values("trireme_answers_total")
    assert len(counted) == 15
    assert {labels: users for labels, users in counted.items() if users} == {
        "ranking,0,none": 2,
        "ranking,3,nothing_known": 1,
        "ranking,2,fault": 1,
    }
    other: Any = FakeBackend()
    StageMetrics(other, "retrieval", ["retrieval"], ["candidate_index"])
    assert not other.values("trireme_answers_total")


def test_users_whose_answer_was_cut_short_are_counted_and_their_stages_are_not() -> None:
    backend: Any = FakeBackend()
    metrics = StageMetrics(backend, "ranking", ["ranking", "reranking"], ["item_id", "rung", "reason"])
    metrics.note((), [np.empty(2), rungs(3, 2), rungs(1, 1)])
    metrics.publish()
    assert backend.values("trireme_expired_total") == {"ranking": 2}
    assert backend.values("trireme_answers_total")["ranking,2,deadline"] == 1
    assert not any(backend.values("trireme_stage_compute_seconds_count").values())
    metrics.note((1, 1), [np.empty(1), rungs(0), rungs(0)])
    metrics.publish()
    assert backend.values("trireme_expired_total") == {"ranking": 2}
    assert backend.values("trireme_stage_compute_seconds_count") == {"ranking,ranking": 1, "ranking,reranking": 1}


def test_the_budget_is_published_in_seconds() -> None:
    backend: Any = FakeBackend()
    StageMetrics(backend, "recommend_fused", list(STAGES), ["rung", "reason"], BUDGET)
    assert backend.values("trireme_slo_seconds") == {"recommend_fused,0.5": 0.01, "recommend_fused,0.99": 0.02}
    budget = backend.values("trireme_stage_budget_seconds")
    assert budget["recommend_fused,retrieval,0.99"] == pytest.approx(0.006)
    assert len(budget) == 2 * len(STAGES)


def test_of_an_ensemble_the_last_step_tells_the_objective() -> None:
    backend: Any = FakeBackend()
    StageMetrics(backend, "features", ["feature_transform", "user_tower"], ["query"], BUDGET)
    assert not backend.values("trireme_slo_seconds")
    StageMetrics(backend, "ranking", ["ranking", "reranking"], ["rung", "reason"], BUDGET)
    assert backend.values("trireme_slo_seconds") == {"recommend,0.5": 0.01, "recommend,0.99": 0.02}


def test_what_is_left_is_published_at_the_end() -> None:
    backend: Any = FakeBackend()
    metrics = StageMetrics(backend, "retrieval", ["retrieval"])
    publisher = Publisher(metrics, period_s=3600)
    metrics.note([5], [])
    publisher.close()
    assert backend.values("trireme_stage_compute_seconds_count") == {"retrieval,retrieval": 1}


def test_figures_that_cannot_be_published_stop_nothing(caplog: pytest.LogCaptureFixture) -> None:
    backend: Any = FakeBackend()
    metrics = StageMetrics(backend, "retrieval", ["retrieval"])
    metrics.note([5, 6], [])  # one stage more than there are
    publisher = Publisher(metrics, period_s=3600)
    with caplog.at_level(logging.ERROR):
        publisher.close()
    assert "not published" in caplog.text


def test_how_a_model_started_is_published() -> None:
    backend: Any = FakeBackend()
    metrics = StageMetrics(backend, "ranking", ["ranking", "reranking"])
    metrics.publish_load_time(process_age_s())
    assert 0 < backend.values("trireme_cold_start_seconds")["ranking,load"] < 24 * 3600
    for spent in ([30_000_000, 2_000_000], [1_000_000, 1_000_000]):
        metrics.note(spent, [])
        metrics.publish()
    assert backend.values("trireme_cold_start_seconds")["ranking,first_batch"] == pytest.approx(0.032)
