"""What the models publish to Triton's metrics: how long each stage computes, as a histogram."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

__all__ = ["BUCKETS_S", "FAMILY", "StageHistograms"]

FAMILY = "trireme_stage_compute_seconds"
#: Upper bounds, seconds: from 50 µs, √2 apart, to about 1 s; a percentile between two of them is off by 20 % at most.
BUCKETS_S = tuple(50e-6 * 2 ** (step / 2) for step in range(29))


class StageHistograms:
    """One histogram per stage of a model, with the labels ``model`` and ``stage``; each batch counts once.

    Args:
        backend: the module ``triton_python_backend_utils``.
        model: name under which the model is served.
        stages: in the order in which they run.
    """

    def __init__(self, backend: Any, model: str, stages: Sequence[str]) -> None:
        # Kept: Triton forgets a family that nobody holds.
        self._family = backend.MetricFamily(
            name=FAMILY, description="Time that a stage computed, per batch", kind=backend.MetricFamily.HISTOGRAM
        )
        self._stages = [
            self._family.Metric(labels={"model": model, "stage": stage}, buckets=list(BUCKETS_S)) for stage in stages
        ]

    def observe(self, spent: Sequence[int]) -> None:
        """``spent``: the ns of every stage for one batch."""
        for histogram, ns in zip(self._stages, spent, strict=True):
            histogram.observe(ns / 1e9)
