"""Triton's own load generator: where it is, one run of it, and what it reported.

``perf_analyzer`` ends with code 2 and writes nothing when its windows differ too much. So it is made to accept
any windows and to print them (``-v``); whether they agree is judged here, and a noisy figure stays, marked as unstable.
"""

from __future__ import annotations

import csv
import itertools
import os
import re
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from trireme_client import TLS
from trireme_perf.sweep.binary import PerfAnalyzerError, Tool

Mode = Literal["concurrency", "poisson"]
Status = Literal["ok", "unstable", "behind", "failed"]

UNSTABLE_EXIT = 2
SERVER_COMPUTE = ("Server Compute Input", "Server Compute Infer", "Server Compute Output")
MARGIN_S = 30.0
KEEPS_UP = 0.9  # below this share of the rate asked for, the latencies are those of another, lower load

_WINDOW = re.compile(r"Pass \[\d+\] throughput: ([\d.]+) infer/sec\. p99 latency: (\d+) usec")
_SENT = re.compile(r"Avg send request rate: ([\d.]+) infer/sec")
_UNUSABLE = re.compile(r"failed to (get model|connect)|Failed to init manager inputs|incompatible with the model")


@dataclass(frozen=True)
class Windows:
    """How long to measure: ``count`` windows of ``length_ms``, which agree if they stay within ``stability_pct`` of
    their mean, in throughput and in p99."""

    length_ms: int
    count: int = 3
    stability_pct: float = 15.0


@dataclass(frozen=True)
class Row:
    """One load on one model, and what it did. Latencies (µs) are the client's; ``server_*`` are means inside the server.

    ``load``: requests in flight at any time for mode ``concurrency``, requests/s for ``poisson``. Both are closed loops: a sender
    of perf_analyzer waits for its answer before it sends again.
    ``status``: ``ok``; ``unstable``: the windows disagree; ``behind``: the tool could not send at the Poisson rate asked
    for, so the latencies are too good; ``failed``: requests failed (``errors`` says why, there are no figures).
    """

    model: str
    mode: Mode
    load: float
    throughput_users_per_s: float = 0.0
    p50_us: float | None = None
    p90_us: float | None = None
    p95_us: float | None = None
    p99_us: float | None = None
    server_queue_us: float | None = None
    server_compute_us: float | None = None
    status: Status = "ok"
    errors: str = ""


def measure(tool: Tool, url: str, row: Row, *, input_data: Path, windows: Windows, tls: TLS | None = None) -> Row:
    """Puts the load of ``row`` on its model at ``url`` (gRPC) and returns it with the figures.

    Raises:
        PerfAnalyzerError: the server cannot be reached, has no such model, or the input data do not fit it.
    """
    limit_s = windows.length_ms * windows.count / 1000 * 4 + MARGIN_S
    with tempfile.TemporaryDirectory(prefix="perf_analyzer-") as directory:
        report = Path(directory) / "report.csv"
        try:
            done = subprocess.run(
                [
                    *command_line(tool.path, url, row, input_data=input_data, windows=windows, report=report),
                    *tls_arguments(tls),
                ],
                env={**os.environ, **tool.environment},
                capture_output=True,
                text=True,
                timeout=limit_s,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return replace(row, status="failed", errors=f"perf_analyzer did not end within {limit_s:.0f} s")
        table = report.read_text() if report.is_file() else ""
    return read_measurement(done.returncode, done.stdout + done.stderr, table, row, windows)


def command_line(path: Path, url: str, row: Row, *, input_data: Path, windows: Windows, report: Path) -> list[str]:
    """Arguments of perf_analyzer, program first."""
    loads = {
        # One thread per request in flight would be measured along with the server: use the asynchronous client.
        "concurrency": ["--async", "--concurrency-range", f"{row.load:.0f}"],
        # Asynchronous and beyond the server's capacity, the tool never ends.
        "poisson": ["--sync", "--request-rate-range", f"{row.load:g}", "--request-distribution", "poisson"],
    }
    return [
        *(str(path), "-m", row.model, "-u", url, "-i", "grpc", "--input-data", str(input_data)),
        *loads[row.mode],
        *("--percentile", "99", "-v", "--verbose-csv", "-f", str(report)),
        *("--measurement-interval", str(windows.length_ms), "--max-trials", str(windows.count)),
        *("--stability-percentage", "100000"),
    ]


def tls_arguments(tls: TLS | None) -> list[str]:
    """Arguments of perf_analyzer for certificates; none for plain text."""
    if tls is None:
        return []
    files = {"root-certifications": tls.ca_file, "private-key": tls.key_file, "certificate-chain": tls.cert_file}
    given = [(f"--ssl-grpc-{name}-file", str(file)) for name, file in files.items() if file is not None]
    return ["--ssl-grpc-use-ssl", *itertools.chain.from_iterable(given)]


def read_measurement(code: int, output: str, table: str, row: Row, windows: Windows) -> Row:
    """Turns exit code, printed output and CSV table of perf_analyzer into the figures of ``row``.

    Raises:
        PerfAnalyzerError: it could not even start measuring.
    """
    measured = code in (0, UNSTABLE_EXIT)
    if not measured and _UNUSABLE.search(output):
        raise PerfAnalyzerError(f"perf_analyzer (exit code {code}): {_reason(output)}")
    passes = [(float(rate), float(p99)) for rate, p99 in _WINDOW.findall(output)]
    figures = next(csv.DictReader(table.splitlines()), None)
    if measured and figures:
        return _with_figures(row, figures, _status(output, passes, row, windows))
    if measured and passes:  # it gave up without a report: what its windows said is all there is
        rates, p99s = zip(*passes, strict=True)
        return replace(row, throughput_users_per_s=sum(rates) / len(rates), p99_us=max(p99s), status="unstable")
    return replace(row, status="failed", errors=_reason(output) or f"perf_analyzer ended with exit code {code}")


def _with_figures(row: Row, figures: Mapping[str, str], status: Status) -> Row:
    """The server's columns are left out where the server gave no statistics."""
    found = {column: float(value) for column, value in figures.items() if value}
    compute = [found[column] for column in SERVER_COMPUTE if column in found]
    return replace(
        row,
        throughput_users_per_s=found["Inferences/Second"],
        p50_us=found.get("p50 latency"),
        p90_us=found.get("p90 latency"),
        p95_us=found.get("p95 latency"),
        p99_us=found.get("p99 latency"),
        server_queue_us=found.get("Server Queue"),
        server_compute_us=sum(compute) if compute else None,
        status=status,
    )


def _status(output: str, passes: Sequence[tuple[float, float]], row: Row, windows: Windows) -> Status:
    """Windows agree if each is within ``stability_pct`` of the mean of all, in throughput and in p99."""
    sent = _SENT.search(output)
    if row.mode == "poisson" and sent and float(sent.group(1)) < KEEPS_UP * row.load:
        return "behind"
    tolerance = windows.stability_pct / 100
    for values in zip(*passes, strict=True):
        mean = sum(values) / len(values)
        if any(abs(value - mean) > mean * tolerance for value in values):
            return "unstable"
    return "ok" if passes else "unstable"


def _reason(output: str) -> str:
    """The lines that look like an error, else the last one."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line.removeprefix("error: ") for line in lines if re.search(r"error|fail", line, re.IGNORECASE)]
    return "; ".join(errors[:3]) or "".join(lines[-1:])
