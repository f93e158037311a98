"""Triton's own load generator: where it is, one run of it, and what it reported.

``perf_analyzer`` ends with code 2 and writes nothing when its windows differ too much. So it is made to accept
any windows and to print them (``-v``); whether they agree is judged here, and a noisy figure stays, marked as unstable.
"""

from __future__ import annotations

import csv
import os
import re
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from trireme_perf.sweep.binary import PerfAnalyzerError, Tool

Mode = Literal["concurrency", "poisson"]
Status = Literal["ok", "unstable", "behind", "failed"]

UNSTABLE_EXIT = 2
MARGIN_S = 30.0
KEEPS_UP = 0.9  # below this share of the rate asked for, the latencies are those of another, lower load

_WINDOW = re.compile(r"Pass \[\d+\] throughput: ([\d.]+) infer/sec\. p99 latency: (\d+) usec")
_SENT = re.compile(r"Avg send request rate: ([\d.]+) infer/sec")
_UNUSABLE = re.compile(r"failed to (get model|connect)|Failed to init manager inputs|incompatible with the model")


@dataclass(frozen=True)
class Load:
    """``concurrency``: requests in flight at any time (closed loop). ``poisson``: requests per second (open loop)."""

    mode: Mode
    value: float

    def __post_init__(self) -> None:
        if self.value <= 0:
            raise ValueError(f"{self.mode} load is {self.value}, must be positive")


@dataclass(frozen=True)
class Windows:
    """How long to measure: ``count`` windows of ``length_ms``, which agree if they stay within ``stability_pct`` of
    their mean, in throughput and in p99."""

    length_ms: int
    count: int = 3
    stability_pct: float = 15.0


@dataclass(frozen=True)
class Measurement:
    """What one load did. Latencies are the client's; ``server_*`` are means inside the server. One user per request.

    ``status``: ``ok``; ``unstable``: the windows disagree; ``behind``: the tool could not send at the Poisson rate asked
    for, so the latencies are too good; ``failed``: requests failed (``error`` says why, there are no figures).
    """

    throughput_users_per_s: float
    p50_us: float | None
    p90_us: float | None
    p95_us: float | None
    p99_us: float | None
    server_queue_us: float | None
    server_compute_us: float | None
    status: Status
    error: str = ""


def measure(tool: Tool, url: str, model: str, load: Load, *, input_data: Path, windows: Windows) -> Measurement:
    """Puts ``load`` on ``model`` at ``url`` (gRPC) and waits for the figures.

    Raises:
        PerfAnalyzerError: the server cannot be reached, has no such model, or the input data do not fit it.
    """
    with tempfile.TemporaryDirectory(prefix="perf_analyzer-") as directory:
        report = Path(directory) / "report.csv"
        command = command_line(tool.path, url, model, load, input_data=input_data, windows=windows, report=report)
        limit_s = windows.length_ms * windows.count / 1000 * 4 + MARGIN_S
        try:
            done = subprocess.run(
                command,
                env={**os.environ, **tool.environment},
                capture_output=True,
                text=True,
                timeout=limit_s,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return _failed(f"perf_analyzer did not end within {limit_s:.0f} s")
        table = report.read_text() if report.is_file() else ""
    return read_measurement(done.returncode, done.stdout + done.stderr, table, load, windows)


def command_line(
    path: Path, url: str, model: str, load: Load, *, input_data: Path, windows: Windows, report: Path
) -> list[str]:
    """Arguments of perf_analyzer, program first."""
    loads = {
        # One thread per request in flight would be measured along with the server: use the asynchronous client.
        "concurrency": ["--async", "--concurrency-range", f"{load.value:.0f}"],
        # Asynchronous and beyond the server's capacity, the tool never ends.
        "poisson": ["--sync", "--request-rate-range", f"{load.value:g}", "--request-distribution", "poisson"],
    }
    return [
        *(str(path), "-m", model, "-u", url, "-i", "grpc", "--input-data", str(input_data)),
        *loads[load.mode],
        *("--percentile", "99", "-v", "--verbose-csv", "-f", str(report)),
        *("--measurement-interval", str(windows.length_ms), "--max-trials", str(windows.count)),
        *("--stability-percentage", "100000"),
    ]


def read_measurement(code: int, output: str, table: str, load: Load, windows: Windows) -> Measurement:
    """Turns exit code, printed output and CSV table of perf_analyzer into figures.

    Raises:
        PerfAnalyzerError: it could not even start measuring.
    """
    if code not in (0, UNSTABLE_EXIT):
        reason = _reason(output)
        if _UNUSABLE.search(output):
            raise PerfAnalyzerError(f"perf_analyzer (exit code {code}): {reason}")
        return _failed(reason or f"perf_analyzer ended with exit code {code}")
    passes = [(float(rate), float(p99)) for rate, p99 in _WINDOW.findall(output)]
    rows = list(csv.DictReader(table.splitlines()))
    if not rows:
        return _from_windows(passes, output)
    row = rows[0]
    sent = _SENT.search(output)
    status: Status = "ok" if _agree(passes, windows.stability_pct) else "unstable"
    if load.mode == "poisson" and sent and float(sent.group(1)) < KEEPS_UP * load.value:
        status = "behind"
    compute = [_number(row, f"Server Compute {part}") for part in ("Input", "Infer", "Output")]
    known = [value for value in compute if value is not None]
    return Measurement(
        throughput_users_per_s=float(row["Inferences/Second"]),
        p50_us=_number(row, "p50 latency"),
        p90_us=_number(row, "p90 latency"),
        p95_us=_number(row, "p95 latency"),
        p99_us=_number(row, "p99 latency"),
        server_queue_us=_number(row, "Server Queue"),
        server_compute_us=sum(known) if known else None,
        status=status,
    )


def _agree(passes: Sequence[tuple[float, float]], stability_pct: float) -> bool:
    """Whether every window is within ``stability_pct`` of the mean of all windows, in throughput and in p99."""
    for values in zip(*passes, strict=True):
        mean = sum(values) / len(values)
        if any(abs(value - mean) > mean * stability_pct / 100 for value in values):
            return False
    return bool(passes)


def _from_windows(passes: Sequence[tuple[float, float]], output: str) -> Measurement:
    """The tool gave up without a report: what its windows said is all there is."""
    if not passes:
        return _failed(_reason(output) or "perf_analyzer measured no window")
    throughput = sum(rate for rate, _ in passes) / len(passes)
    worst = max(p99 for _, p99 in passes)
    return Measurement(throughput, None, None, None, worst, None, None, "unstable")


def _failed(error: str) -> Measurement:
    return Measurement(0.0, None, None, None, None, None, None, "failed", error)


def _number(row: Mapping[str, str], column: str) -> float | None:
    """A column of the report; the server's are left out where the server gave no statistics."""
    value = row.get(column)
    return float(value) if value else None


def _reason(output: str) -> str:
    """The lines that look like an error, else the last one."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line.removeprefix("error: ") for line in lines if re.search(r"error|fail", line, re.IGNORECASE)]
    return "; ".join(errors[:3]) or "".join(lines[-1:])
