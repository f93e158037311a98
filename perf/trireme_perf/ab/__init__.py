"""Two variants under the same interleaved traffic: does B differ from A in latency, and do its answers?"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from trireme_export.perf_input import read_perf_input
from trireme_perf.ab.document import to_document
from trireme_perf.ab.run import Judge, Settings, measure
from trireme_perf.ab.variants import parse_variant
from trireme_perf.errors import PerfError

__all__ = ["Judge", "Settings", "experiment"]


def experiment(
    a: str,
    b: str,
    settings: Settings,
    *,
    users: Path | None = None,
    judge: Judge | None = None,
    tell: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Compares two variants; returns ``document.to_document``.

    Args:
        a, b: see ``variants.parse_variant``; A is the reference.
        users: a repository whose users ask; None for that of A, or else of B.
        judge: where accuracy is to be measured too.
        tell: is told how it goes, line by line.

    Raises:
        PerfError: a variant is wrong, nobody is there to ask, or see ``run.measure``.
    """
    variants = parse_variant(a), parse_variant(b)
    repository = users or variants[0].repository or variants[1].repository
    if repository is None:
        raise PerfError("both servers run already: --users must name a model repository, whose users ask")
    measured = measure(*variants, read_perf_input(repository), settings, judge, tell)
    return to_document(*variants, measured, settings, judge.data if judge else None)
