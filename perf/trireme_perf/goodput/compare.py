"""Goodput, latency and cost of this project's plans, of the same funnel behind other servers, and of other releases."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trireme_export.perf_input import read_perf_input
from trireme_perf.goodput.document import to_document, versions_of
from trireme_perf.goodput.peers import peer_versions
from trireme_perf.goodput.report import write_report
from trireme_perf.goodput.run import Reference, Settings, measure
from trireme_perf.goodput.selection import select
from trireme_perf.goodput.tuning import choose_settings
from trireme_perf.host.place import own_place
from trireme_perf.host.usage import pinned
from trireme_perf.limit.in_process import measure_limit
from trireme_perf.load.connections import Answer
from trireme_runtime.stages.chain import Funnel

__all__ = ["compare"]

CHECKED = 64  # users whose answers are compared, one of them unknown
UNKNOWN = np.iinfo(np.int64).max
SEED = 20060508
LIMIT_ROUNDS = 3  # of the limit beside every turn; its figure is a median over turns
DISTRIBUTIONS = {
    "trireme-recsys", "nvidia-pytriton", "tritonclient", "grpcio", "aiohttp", "numpy", "onnxruntime", "faiss-cpu",
}  # fmt: skip


def compare(
    repository: Path,
    out: Path,
    settings: Settings,
    *,
    only: Sequence[str] = (),
    baseline: tuple[Path, Path] | None = None,
    tell: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Tunes the peers, measures all contestants, writes the report into ``out`` and returns its document.

    Server processes have one core to themselves, the load generator, which is this process, another.

    Args:
        repository: with a fused plan, better with both; its real users ask.
        out: where the report goes.
        settings: how long and against what.
        only: names of the contestants that take part; empty for all that can run here.
        baseline: another checkout of this project with an environment of its own, and a repository that it can serve.
        tell: receives progress, line by line.

    Raises:
        PerfError: fewer than two cores, no users, or see ``selection.select`` and ``run.measure``.
    """
    with own_place() as place:
        selection = select(repository, place, only, baseline)
        for name, reason in selection.left_out.items():
            tell(f"left out: {name}: {reason}")
        user_ids = read_perf_input(repository)

        def limit(seed: Sequence[int]) -> dict[str, Any]:
            with pinned(place.core):
                return measure_limit(repository, rounds=LIMIT_ROUNDS, seed=seed)

        reference = Reference(limit, expected_answers(selection.funnel, user_ids))
        contestants, tried = choose_settings(selection.contestants, user_ids, settings, tell, reference)
        measured = measure(contestants, user_ids, settings, tell, reference)
    document = to_document(measured, contestants, settings, selection.left_out)
    document["tuning"] = tried
    document["versions"] = versions_of(DISTRIBUTIONS) | peer_versions()
    write_report(document, measured, out)
    return document


def expected_answers(funnel: Path, user_ids: NDArray[np.int64]) -> dict[int, Answer]:
    """Returns the funnel's own answers to an unknown user and to some of the given ones, ``CHECKED`` at most."""
    known = np.random.default_rng(SEED).permutation(user_ids)[: CHECKED - 1]
    chosen = np.append(known, UNKNOWN)
    slate = Funnel.load(funnel)(chosen[:, None])
    rows = zip(chosen.tolist(), slate.item_id, slate.score, slate.rung[:, 0].tolist(), strict=True)
    return {user_id: Answer(item_id, score, rung) for user_id, item_id, score, rung in rows}
