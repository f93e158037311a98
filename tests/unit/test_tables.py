"""Tables fit a terminal of 80 columns: long figures and names are folded at worst, and nothing is cut."""

from __future__ import annotations

import io
import re

import numpy as np
import pytest
from rich.console import Console
from rich.table import Table
from typer.testing import CliRunner

from trireme_cli.app import app
from trireme_cli.ledger import ledger_table, percentiles_table
from trireme_cli.perf.goodput import goodput_table, like_for_like_table
from trireme_cli.perf.limit import growth_table, limit_table
from trireme_cli.perf.sweep import sweep_table
from trireme_cli.recommend import recommendations_table
from trireme_cli.waterfall import waterfall_table
from trireme_client import Reason, Recommendations, Rung
from trireme_perf.waterfall import Bar, Waterfall
from trireme_runtime.schema import LAYOUTS, STAGES

COSTS = dict.fromkeys(STAGES, 12_345.0)
BUDGET = {"budget_us": 12_500.0, "within_budget": False}
TIMES = {f"{part}_us": 12_345.0 for part in ("queue", "input", "compute", "output", "p50", "p95", "p99")}
LEDGER = {
    "model": "recommend_fused",
    "requests": 123_456,
    "end_to_end_us": 12_345.0,
    "stages": [{"stage": name, "batch": 31.5, "share": 0.123, **TIMES, **BUDGET} for name in [*LAYOUTS["cpu"].models]],
    "unaccounted_us": 1.0,
    "slo": {"p50_ms": 10.0, "p99_ms": 20.0},
    "percentiles": [{"stage": name, "batches": 123_456, "share": 0.123, **TIMES, **BUDGET} for name in STAGES],
}
SWEEP = {
    "machine": "two cores",
    "rows": [
        {"model": "recommend_fused", "mode": mode, "load": 1234.0, "throughput_users_per_s": 12_345.0}
        | {"p50_us": 123_456.0, "p99_us": 1_234_567.0, "status": status}
        for mode, status in (("concurrency", "unstable"), ("poisson", "behind"))
    ],
}
LIMIT = {
    "batches": [
        {"batch": 64, "stages": dict.fromkeys(STAGES, 1234.0), "us_per_user": 6170.0, "users_per_s": 12_345.0}
        | {"interval": {"low": 1234.0, "high": 5678.0}}
    ]
}
GROWTH = {
    "rows": [
        {"stages": COSTS, "us_per_user": 61_725.0, "artifact_bytes": 1e9, "memory": {"pss": 2e9}, "recall": 0.98}
        | {"point": {"items": 1_000_000}}
    ]
}
CONTESTANT = {"goodput": 12_345.0, "interval": {"goodput": (1234.0, 12_345.0)}, "limited_by_load_generator": True} | {
    "under_steal": True,
    **{"eta": 0.5, "p50_ms": 12.34, "p99_ms": 19.99, "alone_p50_ms": 1.23, "cpu_us_per_user": 1234.0},
    **{"cpu_tax": 12.34, "pss_mib": 1234.0},
}
GOODPUT = {"contestants": {"recommend_fused+coalescing": CONTESTANT}, "left_out": {}, "slo_ms": 20.0, "limit": None} | {
    "confidence": 0.95,
    "rounds": 5,
    "lag_p99_ms": {"median": 0.12, "largest": 1.23},
}
LIKE = {"own": "fused_coalescing", "peer": "fastapi_coalescing", "ratio": 12.34, "range": [1.23, 23.45]}
FIRST = {"slo_ms": 20.0, "contestants": dict.fromkeys(("fused_coalescing", "fastapi_coalescing"), CONTESTANT)}
BARS = (Bar("encode", 0, 0.0, 10.0), Bar("recommend_fused compute", 1, 10.0, 12_345.0))
WATERFALL = Waterfall(
    "recommend_fused", 12_355.0, (*BARS, *(Bar(name, 2, 10.0, 999.0) for name in STAGES)), True, 32, 3
)


@pytest.mark.parametrize(
    "table",
    [
        ledger_table(LEDGER),
        percentiles_table(LEDGER),
        sweep_table(SWEEP),
        limit_table(LIMIT, 9),
        growth_table("items", GROWTH),
        goodput_table(GOODPUT),
        like_for_like_table({**FIRST, "like_for_like": [LIKE]}),
        waterfall_table(WATERFALL),
    ],
    ids=["ledger", "percentiles", "sweep", "limit", "growth", "goodput", "like for like", "waterfall"],
)
def test_nothing_is_cut_in_80_columns(table: Table) -> None:
    printed = io.StringIO()
    Console(file=printed, width=80).print(table)
    lines = printed.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    assert [line for line in lines if re.search(r"\w…", line)] == []


def text_of(table: Table) -> str:
    printed = io.StringIO()
    Console(file=printed, width=200).print(table)
    return " ".join(printed.getvalue().split())  # captions are as narrow as their tables


def test_words_are_explained_under_the_table_that_has_them() -> None:
    explained = text_of(sweep_table(SWEEP))
    assert "unstable: the measured windows disagree" in explained
    assert "behind: perf_analyzer could not send at the rate asked for" in explained
    assert "failed: " not in explained
    answer = Recommendations(7, np.int64([10]), np.float32([0.5]), Rung.FULL, Reason.NONE, 0.0, "recommend", "3")
    assert "rung: how complete the answer is, from 0 (full) to 3 (popular)" in text_of(
        recommendations_table(answer, {})
    )


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (("export",), "ensemble: several Triton models; fused: as one, faster"),
        (("perf", "goodput"), "goodput: the highest rate within the SLO"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_words_are_explained_in_the_help_that_has_them(command: tuple[str, ...], words: str) -> None:
    printed = CliRunner().invoke(app, [*command, "--help"], env={"COLUMNS": "300"}).output
    assert words in printed
