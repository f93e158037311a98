"""Percentiles of what the stages compute, from the histograms that a server publishes.

Within a bucket, observations are taken to be spread evenly, as Prometheus' ``histogram_quantile`` does.
"""

from __future__ import annotations

import math
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families

from trireme_perf.errors import PerfError
from trireme_stages.metrics import COMPUTE

__all__ = ["Histogram", "between", "read_histograms"]

TIMEOUT_S = 5.0

#: (model, stage) → histogram
Histograms = Mapping[tuple[str, str], "Histogram"]


@dataclass(frozen=True)
class Histogram:
    """``bounds`` in seconds, rising, the last infinite; ``counts`` of observations up to each of them."""

    bounds: tuple[float, ...]
    counts: tuple[float, ...]

    @property
    def count(self) -> float:
        return self.counts[-1]

    def since(self, before: Histogram | None) -> Histogram:
        """What was observed after ``before``."""
        if before is None or before.count > self.count:  # the model was loaded anew
            return self
        return Histogram(self.bounds, tuple(now - then for now, then in zip(self.counts, before.counts, strict=True)))

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


def read_histograms(metrics_url: str) -> Histograms:
    """Every stage's histogram, by model and stage.

    Raises:
        PerfError: nothing answers there, or not with metrics.
    """
    try:
        with urllib.request.urlopen(metrics_url, timeout=TIMEOUT_S) as answer:
            text = answer.read().decode()
    except (OSError, ValueError, urllib.error.URLError) as error:
        raise PerfError(f"{metrics_url}: no metrics ({error})") from None
    found: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name == f"{COMPUTE}_bucket":
                key = (sample.labels["model"], sample.labels["stage"])
                found.setdefault(key, []).append((float(sample.labels["le"]), sample.value))
    return {key: Histogram(*zip(*sorted(buckets), strict=True)) for key, buckets in found.items()}


def between(before: Histograms, after: Histograms) -> Histograms:
    """What was observed between two readings; stages without an observation are left out."""
    spent = {key: histogram.since(before.get(key)) for key, histogram in after.items()}
    return {key: histogram for key, histogram in spent.items() if histogram.count}
