"""``trireme perf``: how fast it is, what that costs, and how far from the limit."""

from __future__ import annotations

import typer

from trireme_cli.perf.ab import ab
from trireme_cli.perf.analyze import analyze
from trireme_cli.perf.cache import cache
from trireme_cli.perf.features import features
from trireme_cli.perf.freshness import freshness
from trireme_cli.perf.goodput import goodput
from trireme_cli.perf.limit import limit
from trireme_cli.perf.memory import memory
from trireme_cli.perf.overload import overload
from trireme_cli.perf.stream import stream
from trireme_cli.perf.sweep import sweep

__all__ = ["perf"]

perf = typer.Typer(
    help="Measure: goodput (the highest rate within the SLO), overload, experiments, the limit, perf_analyzer sweeps, memory, "
    "reads of a feature store, freshness, what a cache would bring, answers in two steps.",
    no_args_is_help=True,
)
for command in (goodput, overload, ab, limit, sweep, analyze, memory, features, freshness, cache, stream):
    perf.command()(command)
