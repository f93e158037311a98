"""Percentiles from buckets, and what the stages publish."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import pytest

from trireme_perf.errors import PerfError
from trireme_perf.histograms import Histogram, between, read_histograms
from trireme_stages.metrics import BUCKETS_S, FAMILY, StageHistograms

BOUNDS = (0.001, 0.002, 0.004, math.inf)


def test_a_percentile_is_found_inside_its_bucket() -> None:
    histogram = Histogram(BOUNDS, (50, 90, 100, 100))
    assert histogram.percentile_us(50) == pytest.approx(1000)
    assert histogram.percentile_us(25) == pytest.approx(500)
    assert histogram.percentile_us(95) == pytest.approx(3000)


def test_beyond_the_last_bound_there_is_that_bound() -> None:
    assert Histogram(BOUNDS, (0, 0, 0, 7)).percentile_us(99) == pytest.approx(4000)


def test_without_observations_there_is_no_percentile() -> None:
    assert math.isnan(Histogram(BOUNDS, (0, 0, 0, 0)).percentile_us(50))


def test_only_what_came_between_counts() -> None:
    before = {("m", "a"): Histogram(BOUNDS, (5, 5, 5, 5)), ("m", "b"): Histogram(BOUNDS, (1, 1, 1, 1))}
    after = {("m", "a"): Histogram(BOUNDS, (5, 9, 9, 9)), ("m", "b"): Histogram(BOUNDS, (1, 1, 1, 1))}
    assert between(before, after) == {("m", "a"): Histogram(BOUNDS, (0, 4, 4, 4))}
    anew = {("m", "a"): Histogram(BOUNDS, (2, 2, 2, 2))}
    assert between(after, anew) == anew


def test_nothing_that_answers_is_said() -> None:
    with pytest.raises(PerfError, match=r"http://127\.0\.0\.1:9/metrics: no metrics"):
        read_histograms("http://127.0.0.1:9/metrics")


@dataclass
class FakeMetric:
    labels: dict[str, str]
    buckets: list[float]
    seen: list[float] = field(default_factory=list)

    def observe(self, value: float) -> None:
        self.seen.append(value)


class FakeBackend:
    """The metrics of Triton's Python backend; the end-to-end tests read the real ones."""

    class MetricFamily:
        HISTOGRAM = "histogram"
        made: dict[str, FakeMetric] = {}  # noqa: RUF012

        def __init__(self, name: str, description: str, kind: str) -> None:
            assert (name, kind) == (FAMILY, "histogram")

        def Metric(self, labels: dict[str, str], buckets: list[float]) -> FakeMetric:  # noqa: N802
            made = FakeMetric(labels, buckets)
            FakeBackend.MetricFamily.made[labels["stage"]] = made
            return made


def test_every_stage_has_a_histogram_from_50_us_to_a_second() -> None:
    backend: Any = FakeBackend
    StageHistograms(backend, "recommend", ["retrieval", "ranking"]).observe([2_000_000, 3_000])
    made = FakeBackend.MetricFamily.made
    assert made["retrieval"].seen == [0.002]
    assert made["ranking"].seen == [3e-06]
    assert made["ranking"].labels == {"model": "recommend", "stage": "ranking"}
    assert (BUCKETS_S[0], BUCKETS_S[-1]) == pytest.approx((50e-6, 0.82), rel=0.01)
