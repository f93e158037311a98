"""What the bare computation costs: the stages of a repository's fused plan in this process, on one core."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from trireme_export.perf_input import read_perf_input
from trireme_perf.host.triton import fused_plan
from trireme_perf.host.usage import pinned
from trireme_perf.load.users import UserMix
from trireme_perf.stats.bootstrap import estimate_median
from trireme_runtime.stages.chain import Funnel

__all__ = ["BATCHES", "ROUNDS", "measure_funnel", "measure_limit"]

BATCHES = (1, 8, 32, 64)
ROUNDS = 9


class StagedFunnel(Funnel):
    """Computes without compiled stages."""

    compiles = False


def measure_limit(
    repository: Path,
    batches: Sequence[int] = BATCHES,
    rounds: int = ROUNDS,
    seed: Sequence[int] = (0,),
    pause_s: float = 0.0,
    staged: bool = False,
) -> dict[str, Any]:
    """Measures µs of CPU time per user and per stage by batch size: medians of interleaved rounds over real users.

    Args:
        batches, rounds, pause_s: see ``measure_funnel``.
        seed: of the order of the users, each of whom has a turn before one comes again, as under load.
        staged: compute stage by stage in Python and ONNX Runtime, nothing compiled.

    Raises:
        PerfError: the repository has no fused plan.
    """
    manifest, folder = fused_plan(repository)
    funnel = (StagedFunnel if staged else Funnel).load(folder)
    users = UserMix(read_perf_input(repository), np.random.default_rng(seed))
    rows = measure_funnel(funnel, users, batches, rounds, pause_s)
    best = min(rows, key=lambda row: row["us_per_user"])
    return {
        "bundle_id": manifest.bundle_id,
        "rounds": rounds,
        "batch": best["batch"],
        "users_per_s": best["users_per_s"],
        "us_per_user": best["us_per_user"],
        "stages": best["stages"],
        "batches": rows,
    }


def measure_funnel(
    funnel: Any, users: UserMix, batches: Sequence[int] = BATCHES, rounds: int = ROUNDS, pause_s: float = 0.0
) -> list[dict[str, Any]]:
    """Measures µs of CPU time per user and per stage for every batch size, on one core with one thread: medians of
    interleaved rounds.

    Args:
        funnel: a ``trireme_runtime.stages.chain.Funnel``.
        users: who is asked for.
        batches: users per call, at least 1.
        rounds: measured, at least 2; one more warms caches and allocators.
        pause_s: sleep before each call: a core that was idle is slower, and has forgotten what it had in its caches.
    """
    with pinned(max(os.sched_getaffinity(0))), threadpool_limits(1):
        samples: dict[int, list[dict[str, float]]] = {batch: [] for batch in batches}
        for turn in range(rounds + 1):
            for batch in batches:
                cost = _round(funnel, users, batch, pause_s)
                if turn:
                    samples[batch].append(cost)
    return [_summary(batch, samples[batch]) for batch in batches]


def _round(funnel: Any, users: UserMix, batch: int, pause_s: float) -> dict[str, float]:
    """CPU seconds per user by stage, over at least 128 users: what others take of the core is not the computation's."""
    calls = max(1, 128 // batch)
    spent = dict.fromkeys((stage.name for stage in funnel.stages), 0.0)
    for _ in range(calls):
        if pause_s:
            time.sleep(pause_s)
        asked = np.array(users.take(batch))[:, None]
        start = time.process_time()
        ran = funnel.run(user_id=asked)
        seconds = time.process_time() - start
        # Stages are timed by a clock that goes on while the core is another's: their shares of the whole call count.
        for name, share in zip(spent, ran.times, strict=True):
            spent[name] += seconds * share / sum(ran.times)
    return {name: seconds / (calls * batch) for name, seconds in spent.items()}


def _summary(batch: int, samples: list[dict[str, float]]) -> dict[str, Any]:
    whole = estimate_median(np.array([sum(sample.values()) for sample in samples]))
    return {
        "batch": batch,
        "stages": {name: statistics.median(sample[name] for sample in samples) * 1e6 for name in samples[0]},
        "us_per_user": whole.value * 1e6,
        "users_per_s": 1 / whole.value,
        "interval": {"low": whole.low * 1e6, "high": whole.high * 1e6},
    }
