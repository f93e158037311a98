"""What an experiment found, as one JSON document."""

from __future__ import annotations

import statistics
from collections import Counter
from typing import Any

from trireme_perf.ab.blocks import Block, Rounds, contrast_client_cpu, contrast_server_cpu
from trireme_perf.ab.run import Measured, Settings
from trireme_perf.ab.variants import Variant
from trireme_perf.stats.bootstrap import CONFIDENCE, METRICS, Contrast, Estimate, contrast, estimate_mean
from trireme_perf.sweep.run import machine

__all__ = ["NO_VERDICT", "contrast_document", "estimate_document", "to_document"]

NO_VERDICT = "no verdict"
MS = 1e3


def to_document(a: Variant, b: Variant, measured: Measured, settings: Settings, data: str | None) -> dict[str, Any]:
    """What was found; ``data`` is the name of the labels.

    Latencies in ms, CPU time in µs per user. Where B is set against A: ``difference`` is B - A, ``ratio`` B / A, each with
    ``low`` and ``high`` of its interval.

    ``verdict`` is of the ``metric`` of the latency alone, and says `slower` or `faster` only if the interval of its difference
    does not hold 0; one metric decides, so that looking at several does not make a chance find likelier.
    ``detectable`` is the smallest difference that this experiment would have shown with a chance of 80 %. ``repeats`` counts the
    verdicts of every repetition by itself; all else is of all of them together.
    """
    latency = {metric: _latency(measured.rounds, metric) for metric in METRICS}
    decides = latency[settings.metric]
    return {
        "variants": {
            name: {"text": variant.text, **variant.describe(), "list_length": length}
            for name, variant, length in zip("ab", (a, b), measured.list_lengths, strict=True)
        },
        "metric": settings.metric,
        "verdict": _verdict(decides.difference),
        "repeats": _verdicts(measured.rounds, settings),
        "confidence": CONFIDENCE,
        "rounds": len(measured.rounds),
        "seconds": settings.seconds,
        "rate": measured.rate,
        "rate_given": settings.rate is not None,
        "requests": sum(len(block.seconds) for block, _ in measured.rounds),
        "latency_ms": {metric: contrast_document(one) for metric, one in latency.items()},
        "server_us_per_user": contrast_document(contrast_server_cpu(measured.rounds)),
        "client_us_per_user": contrast_document(contrast_client_cpu(measured.rounds)),
        "answers": measured.answers,
        "ndcg": _ndcg(measured, data),
        "steal_share": _steal(measured),
        "machine": machine(),
    }


def contrast_document(one: Contrast | None) -> dict[str, Any] | None:
    if one is None:
        return None
    return {
        "a": one.a,
        "b": one.b,
        "difference": estimate_document(one.difference),
        "ratio": estimate_document(one.ratio),
        "detectable": one.difference.detectable,
    }


def estimate_document(one: Estimate) -> dict[str, float]:
    return {"value": one.value, "low": one.low, "high": one.high}


def _latency(rounds: Rounds, metric: str) -> Contrast:
    a, b = ([block.seconds * MS for block in blocks] for blocks in zip(*rounds, strict=True))
    return contrast(a, b, metric)


def _verdicts(rounds: Rounds, settings: Settings) -> dict[str, int]:
    """How many repetitions had which verdict, each judged by its own rounds."""
    found = Counter({NO_VERDICT: 0, "slower": 0, "faster": 0})
    for first in range(0, len(rounds), settings.rounds):
        found[_verdict(_latency(rounds[first : first + settings.rounds], settings.metric).difference)] += 1
    return dict(found)


def _verdict(difference: Estimate) -> str:
    if not difference.excludes(0):
        return NO_VERDICT
    return "slower" if difference.value > 0 else "faster"


def _ndcg(measured: Measured, data: str | None) -> dict[str, Any] | None:
    if measured.ndcg is None:
        return None
    a, b = measured.ndcg
    return {
        "data": data,
        "users": len(a),
        "a": estimate_document(estimate_mean(a)),
        "b": estimate_document(estimate_mean(b)),
        "difference": estimate_document(estimate_mean(b - a)),
    }


def _steal(measured: Measured) -> dict[str, float] | None:
    blocks: list[Block] = [block for pair in measured.rounds for block in pair]
    shares = [block.steal_share for block in blocks if block.steal_share is not None]
    return {"median": statistics.median(shares), "largest": max(shares)} if shares else None
