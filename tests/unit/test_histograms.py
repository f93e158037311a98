"""Percentiles from buckets."""

from __future__ import annotations

import math

import pytest

from trireme_perf.errors import PerfError
from trireme_perf.ledger.histograms import Histogram, between, read_metrics

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
    before = {("m", "a"): Histogram(BOUNDS, (5, 5, 5, 5), 0.25), ("m", "b"): Histogram(BOUNDS, (1, 1, 1, 1))}
    after = {("m", "a"): Histogram(BOUNDS, (5, 9, 9, 9), 0.75), ("m", "b"): Histogram(BOUNDS, (1, 1, 1, 1))}
    assert between(before, after) == {("m", "a"): Histogram(BOUNDS, (0, 4, 4, 4), 0.5)}
    assert between(before, after)["m", "a"].mean_us == pytest.approx(125_000)
    anew = {("m", "a"): Histogram(BOUNDS, (2, 2, 2, 2))}
    assert between(after, anew) == anew


def test_nothing_that_answers_is_said() -> None:
    with pytest.raises(PerfError, match=r"http://127\.0\.0\.1:9/metrics: no metrics"):
        read_metrics("http://127.0.0.1:9/metrics")
