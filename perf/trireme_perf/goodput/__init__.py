"""Goodput, latency and cost of this project's plans, of the same funnel behind other servers, and of other releases."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from trireme_perf.goodput.report import to_document, write_report
from trireme_perf.goodput.run import Settings, measure
from trireme_perf.goodput.selection import select

__all__ = ["Settings", "compare"]


def compare(
    repository: Path,
    out: Path,
    settings: Settings,
    *,
    only: Sequence[str] = (),
    baseline: tuple[Path, Path] | None = None,
    tell: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Measures all contestants, writes the report into ``out`` and returns its document.

    Args:
        repository: with a fused plan, better with both; its real users ask.
        only: names of the contestants that take part; empty for all that can run here.
        baseline: another checkout of this project with an environment of its own, and a repository that it can serve.
        tell: is told how it goes, line by line.

    Raises:
        PerfError: see `selection.select` and `run.measure`.
    """
    selection = select(repository, only, baseline)
    for name, reason in selection.left_out.items():
        tell(f"left out: {name}: {reason}")
    measured = measure(repository, selection.funnel, selection.contestants, settings, tell)
    document = to_document(measured, selection.contestants, settings, selection.left_out)
    write_report(document, measured, out)
    return document
