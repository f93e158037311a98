"""Percentiles of what the stages compute, from the histograms that a server publishes.

Within a bucket, observations are taken to be spread evenly, as Prometheus' ``histogram_quantile`` does.
"""

from __future__ import annotations

import http.client
import math
import urllib.request
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from trireme_perf.errors import PerfError
from trireme_runtime.triton.metrics import COMPUTE

__all__ = [
    "Histogram",
    "Histograms",
    "between",
    "histograms_in",
    "read_metrics",
    "stage_histograms",
]

Key = TypeVar("Key")

TIMEOUT_S = 5.0

#: (model, stage) → histogram
Histograms = Mapping[tuple[str, str], "Histogram"]


@dataclass(frozen=True)
class Histogram:
    """``bounds`` in seconds, rising, the last infinite; ``counts`` of observations up to each of them; ``total_s`` of all."""

    bounds: tuple[float, ...]
    counts: tuple[float, ...]
    total_s: float = 0.0

    @property
    def count(self) -> float:
        return self.counts[-1]

    def since(self, before: Histogram | None) -> Histogram:
        """What was observed after ``before``."""
        if before is None or before.bounds != self.bounds or before.count > self.count:  # it was started anew
            return self
        counts = tuple(now - then for now, then in zip(self.counts, before.counts, strict=True))
        return Histogram(self.bounds, counts, self.total_s - before.total_s)

    @property
    def mean_us(self) -> float:
        """NaN if nothing was observed."""
        return self.total_s / self.count * 1e6 if self.count else math.nan

    def percentile_us(self, percent: float) -> float:
        """µs; NaN if nothing was observed. Beyond the last finite bound, that bound."""
        if not self.count:
            return math.nan
        rank = self.count * percent / 100
        place = next(index for index, count in enumerate(self.counts) if count >= rank)
        low = self.bounds[place - 1] if place else 0.0
        if math.isinf(self.bounds[place]):
            return low * 1e6
        below = self.counts[place - 1] if place else 0.0
        inside = (rank - below) / max(self.counts[place] - below, 1e-12)
        return (low + inside * (self.bounds[place] - low)) * 1e6


def read_metrics(metrics_url: str) -> list[Metric]:
    """Every family that is published there.

    Raises:
        PerfError: nothing answers there, or not with metrics.
    """
    try:
        with urllib.request.urlopen(metrics_url, timeout=TIMEOUT_S) as answer:
            return list(text_string_to_metric_families(answer.read().decode()))
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise PerfError(f"{metrics_url}: no metrics ({error})") from None


def histograms_in(families: Iterable[Metric], name: str, labels: tuple[str, ...]) -> dict[tuple[str, ...], Histogram]:
    """The histograms of the family ``name`` by the values of ``labels`` ("" where one is missing), summed over all others."""
    counts: dict[tuple[str, ...], defaultdict[float, float]] = {}
    totals: defaultdict[tuple[str, ...], float] = defaultdict(float)
    for family in families:
        for sample in family.samples:
            key = tuple(sample.labels.get(label, "") for label in labels)
            # A counter's samples are parsed with the suffix that OpenMetrics wants of counters.
            match sample.name.removesuffix("_total").removeprefix(name):
                case "_bucket":
                    counts.setdefault(key, defaultdict(float))[float(sample.labels["le"])] += sample.value
                case "_sum":
                    totals[key] += sample.value
    return {
        key: Histogram(tuple(sorted(buckets)), tuple(buckets[bound] for bound in sorted(buckets)), totals[key])
        for key, buckets in counts.items()
    }


def stage_histograms(families: Iterable[Metric]) -> Histograms:
    """Every stage's histogram, by model and stage."""
    found = histograms_in(families, COMPUTE, ("model", "stage"))
    return {(model, stage): histogram for (model, stage), histogram in found.items()}


def between(before: Mapping[Key, Histogram], after: Mapping[Key, Histogram]) -> dict[Key, Histogram]:
    """What was observed between two readings; stages without an observation are left out."""
    spent = {key: histogram.since(before.get(key)) for key, histogram in after.items()}
    return {key: histogram for key, histogram in spent.items() if histogram.count}
