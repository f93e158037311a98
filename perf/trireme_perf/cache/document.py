"""What a cache would bring, and what it brought, as one JSON document."""

from __future__ import annotations

from typing import Any

import numpy as np

from trireme_perf.cache.prediction import Prediction
from trireme_perf.cache.replay import Replayed
from trireme_perf.cache.traffic import Traffic
from trireme_perf.stats.bootstrap import (
    CONFIDENCE,
    Contrast,
    Estimate,
    contrast,
    contrast_pairs,
    estimate_mean,
)
from trireme_perf.stats.percentiles import FEWEST_FOR_P99

__all__ = ["describe_replay", "describe_traffic"]

MS = 1e3


def describe_traffic(source: str, traffic: Traffic) -> dict[str, Any]:
    """Returns what was asked, by how many, and how often for what had been asked for before."""
    return {
        "source": source,
        "requests": traffic.size,
        "different": int(np.unique(traffic.kind).size),
        "events": int(traffic.events.time.size),
        "seconds": traffic.seconds,
        "share_of_users": traffic.share,
    }


def describe_replay(predicted: Prediction, replayed: Replayed) -> dict[str, Any]:
    """Returns what was measured beside what was predicted: shares from 0 to 1, CPU time in µs per request, latencies in ms.

    ``ratio`` is with a cache ÷ without, with the bounds of its interval. The p99 is None of fewer than 100 requests.
    """
    rounds = replayed.rounds
    requests = sum(len(block.seconds) for block, _ in rounds)
    found = estimate_mean(replayed.hits)
    cpu = contrast_pairs([(_cpu(plain), _cpu(cached)) for plain, cached in rounds])
    plain, cached = zip(*[(one.seconds * MS, other.seconds * MS) for one, other in rounds], strict=True)
    return {
        "options": {name: getattr(predicted, name) for name in ("ttl_s", "stale_s", "max_entries", "invalidates")},
        "rounds": len(rounds),
        "confidence": CONFIDENCE,
        "requests": requests,
        "hit_rate": {"predicted": predicted.hit_rate, "measured": _bounds(found)},
        "cpu_us": _contrast(cpu) | {"predicted_ratio": 1 - predicted.saved},
        "latency_ms": {
            "p50": _contrast(contrast(plain, cached, "p50")),
            "p99": _contrast(contrast(plain, cached, "p99")) if requests >= FEWEST_FOR_P99 else None,
        },
        "counts": replayed.counts._asdict(),
    }


def _cpu(block: Any) -> float:
    return float(block.server_us + block.client_us)


def _contrast(one: Contrast) -> dict[str, Any]:
    return {"without": one.a, "with": one.b, "ratio": _bounds(one.ratio)}


def _bounds(one: Estimate) -> dict[str, float]:
    return {"value": one.value, "low": one.low, "high": one.high}
