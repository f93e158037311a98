"""What the bare computation costs: the stages of a repository's fused plan in this process, on one core."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from trireme_export.perf_input import read_perf_input
from trireme_perf.errors import PerfError

__all__ = ["measure_funnel", "measure_limit"]

BATCHES = (1, 8, 32, 64)
ROUNDS = 9


def measure_limit(repository: Path) -> dict[str, Any]:
    """µs per user and per stage by batch size: medians of interleaved rounds over real users.

    Raises:
        PerfError: the repository has no fused plan.
    """
    # Imported here: the sweep, in the same package, must work beside a server without the stages' libraries.
    from trireme_runtime.bundle import read_manifest
    from trireme_runtime.stages.chain import Funnel

    manifest = read_manifest(repository)
    entry = {"both": "recommend_fused", "fused": "recommend"}.get(manifest.plan)
    if entry is None:
        raise PerfError(f"{repository} has the plan {manifest.plan!r}; allowed: fused, both")
    funnel = Funnel.load(repository / entry / str(manifest.version))
    users = read_perf_input(repository)[:, None]
    rows = measure_funnel(funnel, users)
    best = min(rows, key=lambda row: row["us_per_user"])
    return {
        "bundle_id": manifest.bundle_id,
        "rounds": ROUNDS,
        "batch": best["batch"],
        "users_per_s": best["users_per_s"],
        "us_per_user": best["us_per_user"],
        "stages": best["stages"],
        "batches": rows,
    }


def measure_funnel(
    funnel: Any, users: np.ndarray, batches: Sequence[int] = BATCHES, rounds: int = ROUNDS
) -> list[dict[str, Any]]:
    """µs per user and per stage for every batch size, on one core with one thread: medians of interleaved rounds.

    Args:
        funnel: a ``trireme_runtime.stages.chain.Funnel``.
        users: int64 [n, 1], ids that are asked for, drawn with a fixed seed.
        batches: users per call.
        rounds: measured; one more warms caches and allocators.
    """
    with _one_core(), threadpool_limits(1):
        samples: dict[int, list[dict[str, float]]] = {batch: [] for batch in batches}
        for turn in range(rounds + 1):
            for batch in batches:
                cost = _round(funnel, users, batch)
                if turn:
                    samples[batch].append(cost)
    return [_summary(batch, samples[batch]) for batch in batches]


def _round(funnel: Any, users: np.ndarray, batch: int) -> dict[str, float]:
    """Seconds per user by stage, over at least 128 users."""
    from trireme_runtime.schema import STAGES

    rng = np.random.default_rng(batch)
    calls = max(1, 128 // batch)
    spent = dict.fromkeys((stage.name for stage in funnel.stages), 0.0)
    for _ in range(calls):
        tensors: dict[str, Any] = {"user_id": users[rng.integers(len(users), size=batch)]}
        for stage in funnel.stages:
            inputs = {tensor.name: tensors.get(tensor.name) for tensor in STAGES[stage.name].inputs}
            start = time.perf_counter()
            outputs = stage(**inputs)
            spent[stage.name] += time.perf_counter() - start
            tensors.update(outputs._asdict())
    return {name: seconds / (calls * batch) for name, seconds in spent.items()}


def _summary(batch: int, samples: list[dict[str, float]]) -> dict[str, Any]:
    totals = [sum(sample.values()) for sample in samples]
    middle = statistics.median(totals)
    return {
        "batch": batch,
        "stages": {name: statistics.median(sample[name] for sample in samples) * 1e6 for name in samples[0]},
        "us_per_user": middle * 1e6,
        "users_per_s": 1 / middle,
        "spread": (max(totals) - min(totals)) / middle,
    }


@contextmanager
def _one_core() -> Iterator[None]:
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(allowed)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)
