"""Two variants under the same interleaved traffic: does B differ from A in latency or CPU time, and do its answers?"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from trireme_export.perf_input import read_perf_input
from trireme_perf.ab.document import to_document
from trireme_perf.ab.run import Judge, Settings, measure
from trireme_perf.ab.variants import Variant
from trireme_perf.errors import PerfError

__all__ = ["Judge", "Settings", "experiment"]


def experiment(
    a: Variant,
    b: Variant,
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
        tell: is given a line about every step.

    Raises:
        PerfError: a variant is wrong, there are no users to ask for, or see ``run.measure``.
    """
    repository = users or a.readable or b.readable
    if repository is None:
        raise PerfError("both servers run already: --users must name a model repository, whose users ask")
    measured = measure(a, b, read_perf_input(repository), settings, judge, tell)
    return to_document(a, b, measured, settings, judge.data if judge else None)
