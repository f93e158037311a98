"""What an experiment found, as one JSON document."""

from __future__ import annotations

import statistics
from collections import Counter
from typing import Any

from trireme_perf.ab.blocks import Block, Rounds
from trireme_perf.ab.run import CPU_METRICS, Measured, Settings
from trireme_perf.ab.variants import Variant
from trireme_perf.host.machine import machine
from trireme_perf.stats.bootstrap import (
    CONFIDENCE,
    METRICS,
    Contrast,
    Estimate,
    contrast,
    contrast_pairs,
    estimate_mean,
)
from trireme_perf.stats.percentiles import FEWEST_FOR_P99

__all__ = ["NO_VERDICT", "to_document"]

NO_VERDICT = "no verdict"
MS = 1e3


def to_document(a: Variant, b: Variant, measured: Measured, settings: Settings, data: str | None) -> dict[str, Any]:
    """Returns what was found; ``data`` is the name of the labels.

    Latencies in ms, CPU time in µs per user. Where B is set against A: ``difference`` is B - A, ``ratio`` B / A, each with
    ``low`` and ``high`` of its interval. The p99 is None of fewer than 100 requests, the server's CPU time if its processes
    cannot be looked at.

    ``verdict`` is of the ``metric`` alone. It is that B is worse (``slower``, or ``dearer`` in CPU time) or better (``faster``,
    ``cheaper``) only if the interval of its difference does not hold 0; one metric decides, so that looking at several does not
    make a chance find likelier. ``detectable`` is the smallest difference that this experiment would have shown with a chance
    of 80 %. ``repeats`` counts the verdicts of every repetition by itself; all else is of all of them together.
    """
    found = {metric: _figure(measured.rounds, metric) for metric in (*METRICS, *CPU_METRICS)}
    return {
        "variants": {
            name: {"text": variant.text, **variant.describe(), "list_length": length, "users_per_rpc": users}
            for name, variant, length, users in zip(
                "ab", (a, b), measured.list_lengths, measured.users_per_rpc, strict=True
            )
        },
        "metric": settings.metric,
        "verdict": _verdict(measured.rounds, settings.metric),
        "repeats": _verdicts(measured.rounds, settings),
        "confidence": CONFIDENCE,
        "rounds": len(measured.rounds),
        "seconds": settings.seconds,
        "rate": measured.rate,
        "rate_given": settings.rate is not None,
        "concurrency": settings.concurrency,
        "requests": sum(len(block.seconds) for block, _ in measured.rounds),
        "latency_ms": {metric: _contrast_document(found[metric]) for metric in METRICS},
        "server_us_per_user": _contrast_document(found["server_cpu"]),
        "client_us_per_user": _contrast_document(found["client_cpu"]),
        "answers": measured.answers,
        "ndcg": _ndcg(measured, data),
        "steal_share": _steal(measured),
        "machine": machine(),
    }


def _contrast_document(one: Contrast | None) -> dict[str, Any] | None:
    if one is None:
        return None
    return {
        "a": one.a,
        "b": one.b,
        "difference": _estimate_document(one.difference),
        "ratio": _estimate_document(one.ratio),
        "detectable": one.difference.detectable,
    }


def _estimate_document(one: Estimate) -> dict[str, float]:
    return {"value": one.value, "low": one.low, "high": one.high}


def _figure(rounds: Rounds, metric: str) -> Contrast | None:
    """Returns what a metric is of both; None where it is not known, or of a p99 of too few requests."""
    if metric in CPU_METRICS:
        costs = [tuple(_cpu(block, metric) for block in blocks) for blocks in rounds]
        known = [(a, b) for a, b in costs if a is not None and b is not None]
        return contrast_pairs(known) if len(known) > 1 else None
    a, b = ([block.seconds * MS for block in blocks] for blocks in zip(*rounds, strict=True))
    if metric == "p99" and min(sum(map(len, a)), sum(map(len, b))) < FEWEST_FOR_P99:
        return None
    return contrast(a, b, metric)


def _cpu(block: Block, metric: str) -> float | None:
    return block.server_us if metric == "server_cpu" else block.client_us


def _verdicts(rounds: Rounds, settings: Settings) -> dict[str, int]:
    """How many repetitions had which verdict, each judged by its own rounds."""
    found = Counter(dict.fromkeys((NO_VERDICT, *_words(settings.metric)), 0))
    for first in range(0, len(rounds), settings.rounds):
        found[_verdict(rounds[first : first + settings.rounds], settings.metric)] += 1
    return dict(found)


def _verdict(rounds: Rounds, metric: str) -> str:
    one = _figure(rounds, metric)
    if one is None or not one.difference.excludes(0):
        return NO_VERDICT
    worse, better = _words(metric)
    return worse if one.difference.value > 0 else better


def _words(metric: str) -> tuple[str, str]:
    return ("dearer", "cheaper") if metric in CPU_METRICS else ("slower", "faster")


def _ndcg(measured: Measured, data: str | None) -> dict[str, Any] | None:
    if measured.ndcg is None:
        return None
    a, b = measured.ndcg
    return {
        "data": data,
        "users": len(a),
        "a": _estimate_document(estimate_mean(a)),
        "b": _estimate_document(estimate_mean(b)),
        "difference": _estimate_document(estimate_mean(b - a)),
    }


def _steal(measured: Measured) -> dict[str, float] | None:
    blocks: list[Block] = [block for pair in measured.rounds for block in pair]
    shares = [block.steal_share for block in blocks if block.steal_share is not None]
    return {"median": statistics.median(shares), "largest": max(shares)} if shares else None
