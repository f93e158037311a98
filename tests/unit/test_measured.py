"""The tables of docs/benchmarks.md come from the documents of the commands."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from docs.generate.benchmarks import benchmarks_page
from docs.measured.runs import FOLDER, PRESETS, RUNS, Run
from docs.measured.tables import ABOUT, parts

from tests.unit.test_goodput_report import PLACE, limit, turn
from trireme_perf.goodput.contestants import own_plans
from trireme_perf.goodput.document import to_document
from trireme_perf.goodput.run import Measured, Settings

ORIGIN = {"published": {"date": "2026-11-26", "commit": "0123abc"}, "machine": "2 cores, no GPU"}


def goodput_document() -> dict[str, Any]:
    goodputs = {"fused": 1000, "fastapi": 500, "fused_coalescing": 4000, "fastapi_coalescing": 3000}
    own = own_plans(Path("r"), "both", PLACE)[0]
    contestants = [replace(own, name=name, kind="peer" if "fastapi" in name else "own") for name in goodputs]
    turns = {name: [turn(rate), turn(1.1 * rate)] for name, rate in goodputs.items()}
    measured = Measured(2, turns, {name: [limit(100)] * 2 for name in goodputs}, checked_users=64)
    document = to_document(measured, contestants, Settings(rounds=2), {})
    document["tuning"] = {"fastapi": [{"settings": {"workers": 1}, "chosen": True}]}
    return json.loads(json.dumps(document))  # type: ignore[no-any-return]


def growth_part(axis: str) -> dict[str, Any]:
    rows = [
        {"point": {axis: size}, "us_per_user": 230.0, "stages": {"retrieval": 100.0}, "artifact_bytes": 31 << 20}
        for size in (10, 1000)
    ]
    return {"rows": rows, "exponents": {"us_per_user": 0.48, "retrieval": 0.67, "artifact_bytes": 0.85}}


def documents() -> dict[str, Any]:
    """One for every run, of the shape that its command prints."""
    ratio = {"ratio": {"value": 1.019, "low": 0.97, "high": 1.03}}
    experiment = {"rounds": 20, "confidence": 0.99, "server_us_per_user": ratio, "client_us_per_user": ratio}
    batch = {"batch": 32, "us_per_user": 62.0, "users_per_s": 16_000.0, "interval": {"low": 60.0, "high": 65.0}}
    shapes = {
        **{name: goodput_document() for name in RUNS if name.startswith("goodput")},
        "limit": {"rounds": 9, "batches": [batch]},
        "growth": {"axes": {axis: growth_part(axis) for axis in ("items", "candidates", "history", "batch")}},
        "memory": {"plans": {"fused": {"ratio": 0.08}, "both": {"ratio": 0.19}}},
        **{f"{preset}-{way}": experiment for preset in PRESETS for way in ("single", "coalescing")},
        **{f"client-{way}": experiment for way in ("asyncio", "threads")},
    }
    return {name: shapes.get(name, {}) for name in RUNS}


def test_every_table_is_made_from_the_documents(tmp_path: Path) -> None:
    made = parts(documents(), ORIGIN)
    for one in (one for part in made for one in part["benchmarks"]):
        assert one["commands"], one["title"]
        assert {len(row) for row in one["rows"]} == {1 + len(one["columns"])}, one["title"]
    source = tmp_path / "benchmarks.json"
    source.write_text(json.dumps({"about": ABOUT, **ORIGIN, "documents": documents(), "parts": made}))
    page = benchmarks_page(source)
    assert "Measured on 2 cores, no GPU; published on 2026-11-26 with commit 0123abc." in page
    assert "| fused ÷ fastapi | 1,050 | 525 | 2.00 (2.00–2.00) |" in page
    assert "| the bare computation | 10,000 | – | – | 100 | 1.00 |" in page
    assert "| artifacts, 10 to 1,000 items | 31 MiB | 31 MiB | 0.85 |" in page
    assert "| `tracing-1` | 1.019 (0.970–1.030) | 1.019 (0.970–1.030) |" in page
    assert "Chosen from the grids of the peers: fastapi (workers 1)." in page


def test_a_command_is_shown_as_it_ran() -> None:
    assert Run("train --data D").shown == "trireme train --data D"
    assert RUNS["goodput"].shown == f"trireme perf goodput {FOLDER}/retail/repository --rounds 5 --out {FOLDER}/goodput"
