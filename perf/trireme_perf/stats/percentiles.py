"""Percentiles of latencies, and from how many of them a p99 is worth reporting."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["FEWEST_FOR_P99", "percentile", "reported_p99", "reported_p999"]

#: The p99 of fewer values is their maximum.
FEWEST_FOR_P99 = 100


def percentile(values: NDArray[np.float64], percent: float) -> float:
    """Returns the smallest value that ``percent`` of all do not exceed.

    There is no interpolation, so that "p99 <= SLO" is the same as "at most 1 % are later than the SLO".
    """
    return float(np.percentile(values, percent, method="inverted_cdf"))


def reported_p99(values: NDArray[np.float64]) -> float | None:
    """Returns the p99 of at least ``FEWEST_FOR_P99`` values; None of fewer."""
    return percentile(values, 99) if len(values) >= FEWEST_FOR_P99 else None


def reported_p999(values: NDArray[np.float64]) -> float | None:
    """Returns the p99.9 of at least ten times as many values; None of fewer."""
    return percentile(values, 99.9) if len(values) >= 10 * FEWEST_FOR_P99 else None
