"""The tables of chaos and overload in docs/."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from docs.generate.markdown import BEGIN, END
from docs.generate.pressure import chaos_part, measured_page, overload_part

FIGURES = {
    **{"available": 0.99954, "full_calm": 1.0, "full_fault": None, "full_after": 0.9292},
    **{"wrong": 0, "failed": 0, "deaths": 1, "notice_s": 0.12, "recover_s": 2.9},
}


def estimate(median: float | None, *interval: float) -> dict[str, Any]:
    return {"median": median, "interval": list(interval) or None}


def point(multiple: float, of_peak: float, counted: int = 2) -> dict[str, Any]:
    figures = {
        **{"of_peak": estimate(of_peak, of_peak - 0.1, of_peak + 0.1), "ceiling": estimate(None)},
        **{"of_ceiling": estimate(None), "in_time": estimate(0.5), "failed": estimate(0.0)},
    }
    return {"multiple": multiple, "counted": counted, **figures}


def test_a_scenario_is_a_row_with_its_verdict_unless_it_passed(tmp_path: Path) -> None:
    phases = {"all": {"requests": 1500}}
    checks = [{"ok": True, "text": "wrong 0, allowed ≤ 0"}, {"ok": False, "text": "deaths 1, allowed ≤ 0"}]
    scenarios = [
        {"name": name, "verdict": verdict, "figures": FIGURES, "phases": phases, "checks": checks}
        for name, verdict in (("kill-server", "passed"), ("calm", "invalid"))
    ]
    (tmp_path / "chaos.json").write_text(json.dumps({"machine": "2 cores", "scenarios": scenarios}))
    part = chaos_part(tmp_path)
    assert "| kill-server | 99.95 | 100.00 | – | 92.92 | 0 | 0 | 1 | 0.1 | 2.9 |" in part
    assert "| calm, invalid |" in part
    assert "3,000 requests" in part
    assert "- calm: deaths 1, allowed ≤ 0" in part
    assert "wrong 0" not in part


def test_loads_that_did_not_count_and_figures_that_nobody_has_are_left_out(tmp_path: Path) -> None:
    contestant = {
        **{"capacity": estimate(1234.5), "shed_cost": estimate(0.09)},
        "points": [point(1, 0.97), point(2, 0.9), point(10, 0.0, counted=0)],
    }
    measured = {
        **{"machine": "2 cores", "rounds": 2},
        **{"deadline_ms": 100.0, "lag_p99_ms": 1.25, "contestants": {"client": contestant}},
    }
    (tmp_path / "overload-million.json").write_text(json.dumps(measured))
    part = overload_part(tmp_path)
    assert "`client`: capacity 1,234 users/s, ρ 0.09." in part
    assert "|  | ÷ peak | in time, % | failed, % | interval of ÷ peak |" in part
    assert "| 2× | 0.90 | 50.00 | 0.00 | 0.80 to 1.00 |" in part
    assert "10×" not in part
    assert "(../overload-million.png)" in part


def test_nothing_measured_leaves_the_page_as_it_is(tmp_path: Path) -> None:
    page = tmp_path / "measure" / "chaos.md"
    page.parent.mkdir()
    page.write_text(f"# Chaos\n\n{BEGIN}\n{END}\n")
    assert measured_page(page, chaos_part) == measured_page(page, overload_part) == page.read_text()
