"""The bootstrap of an interleaved experiment: what would have come out had other rounds been drawn.

A round is a block of traffic on A and one on B, right after each other. Latencies within a block depend on each other
(a queue, a hiccup of the machine), and both blocks of a round see the same phase of the machine; so neither requests nor
blocks are resampled, but whole rounds: the paired form of the bootstrap of clusters (Davison and Hinkley, Bootstrap Methods
and their Application, 1997, section 3.8). A percentile of a resample is that of all its requests together: a mean of
percentiles of short blocks is not the percentile of the traffic, least of all at 99 %.

Intervals are the expanded percentile intervals of Hesterberg, What Teachers Should Know About the Bootstrap, The
American Statistician 69(4), 2015: plain percentile intervals are too narrow for few rounds, so they are read at the
probabilities at which a t interval would be as much wider. BCa would correct for skewness besides, but its acceleration
comes from a jackknife, which is inconsistent for percentiles.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import isqrt
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student

__all__ = [
    "CONFIDENCE",
    "FEWEST_ROUNDS",
    "METRICS",
    "Contrast",
    "Estimate",
    "contrast",
    "contrast_pairs",
    "estimate_mean",
    "estimate_median",
]

#: Level of the intervals. At 99 %, fewer than 5 of 100 short experiments without a difference show one, whatever the metric.
CONFIDENCE = 0.99
#: With fewer, more than 5 of 100 simulated experiments without a difference showed one in the mean of heavy-tailed latencies.
FEWEST_ROUNDS = 10
#: Chance with which the difference that could have been seen would have been seen.
POWER = 0.8
RESAMPLES = 4000
#: Entries of a table of resampled requests that are held at a time.
TABLE = 8 << 20
SEED = 19790101


@dataclass(frozen=True)
class Estimate:
    """A figure, the bounds of its interval, and its standard error; ``spread``: half the interval's width in standard errors."""

    value: float
    low: float
    high: float
    error: float
    spread: float

    def excludes(self, value: float) -> bool:
        return not self.low <= value <= self.high

    @property
    def detectable(self) -> float:
        """The smallest difference that an experiment of this length and noise shows with a chance of 80 % (Bloom, Minimum
        Detectable Effects, Evaluation Review 19(5), 1995)."""
        return (self.spread + NormalDist().inv_cdf(POWER)) * self.error


@dataclass(frozen=True)
class Contrast:
    """A figure of A and of B, and B against A: ``difference`` is B - A, ``ratio`` B / A."""

    a: float
    b: float
    difference: Estimate
    ratio: Estimate


def contrast(a: Sequence[NDArray[np.float64]], b: Sequence[NDArray[np.float64]], metric: str) -> Contrast:
    """Compares two variants.

    Args:
        a, b: float64 (values,) by round, at least one value each; as many rounds in both, at least two.
        metric: a key of ``METRICS``.
    """
    drawn = _resamples(len(a))
    figure = METRICS[metric]
    of_a, of_b = figure(_Pool(a), drawn), figure(_Pool(b), drawn)
    difference, ratio = _estimate(of_b - of_a, len(a)), _estimate(of_b / of_a, len(a))
    return Contrast(float(of_a[0]), float(of_b[0]), difference, ratio)


def contrast_pairs(pairs: Sequence[tuple[float, float]]) -> Contrast:
    """Compares figures that a round has one of: medians over rounds of both, and of what B is to A in the same round.

    Both of a round saw the same phase of the machine, so they are set against each other before anything is averaged.

    Args:
        pairs: of A and of B by round, at least two.
    """
    a, b = np.array(pairs, dtype=np.float64).T
    return Contrast(float(np.median(a)), float(np.median(b)), estimate_median(b - a), estimate_median(b / a))


def estimate_mean(values: NDArray[np.float64]) -> Estimate:
    """The mean of independent values, float64 (values,), at least two."""
    n = len(values)
    rng = np.random.default_rng([SEED, n])
    step = max(1, TABLE // n)
    sums = [
        rng.multinomial(n, np.full(n, 1 / n), min(step, RESAMPLES - start)) @ values
        for start in range(0, RESAMPLES, step)
    ]
    return _estimate(np.concatenate([[values.sum()], *sums]) / n, n)


def estimate_median(values: NDArray[np.float64]) -> Estimate:
    """The median of independent values, float64 (values,), at least two."""
    n = len(values)
    drawn = np.random.default_rng([SEED, n]).integers(0, n, (RESAMPLES, n))
    return _estimate(np.concatenate([[np.median(values)], np.median(values[drawn], axis=1)]), n)


class _Pool:
    """The values of all rounds of one variant, for figures of any choice of rounds.

    Args:
        rounds: float64 (values,) of each round, at least one.
    """

    def __init__(self, rounds: Sequence[NDArray[np.float64]]) -> None:
        values = np.concatenate(rounds)
        order = np.argsort(values)
        self._values = values[order]
        self._round = np.repeat(np.arange(len(rounds)), [len(each) for each in rounds])[order]
        self._sizes = np.array([len(each) for each in rounds], dtype=np.int64)
        self._sums = np.array([each.sum() for each in rounds])
        self._step = isqrt(len(values)) + 1

    @cached_property
    def _below(self) -> NDArray[np.float64]:
        """How many values of each round are among the first 0, step, 2 step, ... of all: float64 (rounds, steps)."""
        places = np.arange(0, len(self._values), self._step)
        each = [np.searchsorted(np.flatnonzero(self._round == number), places) for number in range(len(self._sizes))]
        return np.array(each, dtype=np.float64)

    def mean(self, drawn: NDArray[np.int64]) -> NDArray[np.float64]:
        """Of every resample, float64 (resamples,); ``drawn``: how often each round is in it, int64 (resamples, rounds)."""
        result: NDArray[np.float64] = (drawn @ self._sums) / (drawn @ self._sizes)
        return result

    def percentile(self, drawn: NDArray[np.int64], percent: float) -> NDArray[np.float64]:
        """As ``mean``: the smallest value that ``percent`` of all do not exceed; see ``percentiles.percentile``."""
        rank = np.ceil((drawn @ self._sizes) * (percent / 100))[:, None]
        # First the step that holds the value of this rank, by a product of matrices, then its place there.
        below = drawn @ self._below
        step = (below < rank).sum(axis=1, keepdims=True) - 1
        places = np.minimum(step * self._step + np.arange(self._step), len(self._values) - 1)
        counted = np.cumsum(np.take_along_axis(drawn, self._round[places], axis=1), axis=1)
        place = (np.take_along_axis(below, step, axis=1) + counted < rank).sum(axis=1)
        return self._values[step[:, 0] * self._step + place]


METRICS: Mapping[str, Callable[[_Pool, NDArray[np.int64]], NDArray[np.float64]]] = {
    "p50": lambda pool, drawn: pool.percentile(drawn, 50),
    "p99": lambda pool, drawn: pool.percentile(drawn, 99),
    "mean": lambda pool, drawn: pool.mean(drawn),
}


def _resamples(rounds: int) -> NDArray[np.int64]:
    """How often each round is drawn, int64 (1 + RESAMPLES, rounds): first every round once, then with replacement."""
    drawn = np.random.default_rng([SEED, rounds]).multinomial(rounds, np.full(rounds, 1 / rounds), RESAMPLES)
    return np.concatenate([np.ones((1, rounds), dtype=np.int64), drawn])


def _estimate(samples: NDArray[np.float64], n: int) -> Estimate:
    """``samples``: float64 (1 + resamples,), the figure itself first; of ``n`` rounds."""
    spread = float(student.ppf(0.5 + CONFIDENCE / 2, n - 1)) * (n / (n - 1)) ** 0.5
    tail = NormalDist().cdf(-spread)
    low, high = np.quantile(samples[1:], [tail, 1 - tail])
    return Estimate(float(samples[0]), float(low), float(high), float(samples[1:].std()), spread)
