"""The clock of the calendar, which may jump: nothing that decides how a request is answered may read it."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
#: Where it is read all the same, and why a jump does no harm there.
ALLOWED = {
    "client/trireme_client/spans.py": "the end of a span, which OpenTelemetry counts on this clock",
    "client/trireme_client/tracker.py": "the time of an event, if its sender gives none",
    "serving/trireme_runtime/stages/fresh_features.py": "the age of a record, which has the time of its writer; only reported",
    "serving/trireme_runtime/triton/tracing.py": "when a span began",
    "serving/trireme_server/metrics.py": "the time of a death, for Prometheus",
    "serving/trireme_server/supervisor.py": "the time of a death, for metrics",
    "serving/trireme_server/plans/build.py": "the date of a plan",
}
NAMES = {("time", "time"), ("time", "time_ns"), ("clock", "time_ns"), ("datetime", "now"), ("datetime", "utcnow")}


def reads(tree: ast.AST) -> bool:
    """Whether code names a function that reads the calendar."""
    named = (node for node in ast.walk(tree) if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name))
    imported = (node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module == "time")
    return any((node.value.id, node.attr) in NAMES for node in named) or any(
        alias.name in ("time", "time_ns") for node in imported for alias in node.names
    )


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("import time\nx = time.time()", True),
        ("def f(clock=time.time_ns): ...", True),
        ("from time import time", True),
        ("datetime.now(timezone.utc)", True),
        ("from time import monotonic_ns\ntime.monotonic(); time.perf_counter_ns()", False),
    ],
)
def test_what_reads_the_calendar(code: str, expected: bool) -> None:
    assert reads(ast.parse(code)) == expected


def test_only_what_is_allowed_reads_the_calendar() -> None:
    files = [
        file
        for folder in ("client/trireme_client", "serving/trireme_runtime", "serving/trireme_server")
        for file in (ROOT / folder).rglob("*.py")
    ]
    assert len(files) > 80
    found = {str(file.relative_to(ROOT)) for file in files if reads(ast.parse(file.read_text()))}
    assert found == ALLOWED.keys()


def test_no_compiled_stage_does() -> None:
    sources = "".join(file.read_text() for file in (ROOT / "serving/trireme_runtime/native").glob("*.c"))
    assert "funnel" in sources
    assert not re.findall(r"CLOCK_REALTIME|\btime\(|gettimeofday", sources)
