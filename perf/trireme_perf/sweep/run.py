"""Load after load on each model with perf_analyzer: rows, CSV, JSON and a plot.

So many requests in flight first, then Poisson moments at shares of what that reached: with figures of its own, every model is
loaded to the same degree. Both are closed loops: perf_analyzer has a few senders, each of which waits for its answer, so that
a slow server is asked later than planned, and less of its tail is seen. ``load.probe`` has an open loop.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from trireme_client import TLS
from trireme_perf.host.machine import machine
from trireme_perf.sweep.binary import PerfAnalyzerError, Tool, find_perf_analyzer
from trireme_perf.sweep.perf_analyzer import Mode, Row, Windows, measure


@dataclass(frozen=True)
class Plan:
    """Which loads, and how long each.

    Attributes:
        concurrencies: requests in flight.
        rate_shares: Poisson rates, as shares of the best closed-loop throughput.
        windows: measurement windows per load.
    """

    concurrencies: tuple[int, ...]
    windows: Windows
    rate_shares: tuple[float, ...] = ()


QUICK = Plan((1, 8, 32), Windows(300, 3, 25.0), rate_shares=(0.4, 0.7))
FULL = Plan((1, 2, 4, 8, 16, 32, 64), Windows(2000, 3, 10.0), rate_shares=(0.2, 0.4, 0.6, 0.8, 0.9))


def sweep(
    url: str,
    models: Sequence[str],
    input_data: Path,
    *,
    plan: Plan = QUICK,
    tool: Tool | None = None,
    tls: TLS | None = None,
    on_row: Callable[[Row], None] = lambda row: None,
) -> list[Row]:
    """Measures every load of ``plan`` on every model at ``url`` (gRPC, over TLS with ``tls``); ``on_row`` sees each row as it
    comes.

    Raises:
        PerfAnalyzerError: no perf_analyzer, no such input file, server or model.
    """
    if not input_data.is_file():
        raise PerfAnalyzerError(f"{input_data}: no such input file; `trireme export` writes perf_input.json")
    tool = tool or find_perf_analyzer()
    rows: list[Row] = []

    def run(model: str, mode: Mode, load: float) -> Row:
        rows.append(measure(tool, url, Row(model, mode, load), input_data=input_data, windows=plan.windows, tls=tls))
        on_row(rows[-1])
        return rows[-1]

    for model in models:
        closed = [run(model, "concurrency", value) for value in plan.concurrencies]
        best = max((row.throughput_users_per_s for row in closed), default=0.0)
        for rate in [round(share * best) for share in plan.rate_shares]:
            if rate > 0:
                run(model, "poisson", rate)
    return rows


def write_report(rows: Sequence[Row], out: Path, *, url: str) -> dict[str, Any]:
    """Writes ``sweep.csv``, ``sweep.json`` and ``sweep.png`` into ``out`` (made if missing), and returns the JSON document."""
    from trireme_perf.sweep.plot import plot_sweep  # matplotlib takes a second to import

    out.mkdir(parents=True, exist_ok=True)
    document: dict[str, Any] = {"machine": machine(), "url": url, "rows": [asdict(row) for row in rows]}
    (out / "sweep.json").write_text(json.dumps(document, indent=2) + "\n")
    with (out / "sweep.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Row)])
        writer.writeheader()
        writer.writerows(document["rows"])
    plot_sweep(rows, out / "sweep.png", machine=document["machine"])
    return document
