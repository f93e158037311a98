"""The figures of docs/measure/chaos.md and docs/measure/overload.md, from what these commands saved beside docs/."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from docs.generate.markdown import page, table, with_part

__all__ = ["chaos_part", "measured_page", "overload_part"]

#: Columns of the chaos table: heading, figure, factor, digits.
CHAOS: Final = (
    ("in time", "available", 100.0, 2),
    ("full: calm", "full_calm", 100.0, 2),
    ("fault", "full_fault", 100.0, 2),
    ("after", "full_after", 100.0, 2),
    ("wrong", "wrong", 1.0, 0),
    ("failed", "failed", 1.0, 0),
    ("deaths", "deaths", 1.0, 0),
    ("noticed, s", "notice_s", 1.0, 1),
    ("back, s", "recover_s", 1.0, 1),
)
#: And of that of overload.
OVERLOAD: Final = (
    ("÷ peak", "of_peak", 1.0, 2),
    ("ceiling", "ceiling", 1.0, 2),
    ("÷ ceiling", "of_ceiling", 1.0, 2),
    ("in time, %", "in_time", 100.0, 2),
    ("failed, %", "failed", 100.0, 2),
)

#: What was measured, and how, by the name of the files in docs/.
OVERLOADS: Final = {
    "overload-million": (
        "A made-up million of items, 1,000 candidates",
        "trireme perf limit --catalogue 1000000 --candidates 1000 --rounds 2 --keep build/million-checkpoint\n"
        "trireme export --checkpoint build/million-checkpoint/* --out build/million --waive-gate measurement\n"
        "trireme perf overload build/million --only plain --only client_coalescing --multiple 1 --multiple 2 --multiple 5 \\\n"
        "    --multiple 10 --rounds 3 --seconds 4 --save docs/overload-million.json --plot docs/overload-million.png",
    ),
}

Measured = Mapping[str, Any]


def measured_page(path: Path, part: Callable[[Path], str]) -> str:
    """Returns the text of a page with its part from the files in docs/, which is empty where nothing was measured."""
    return with_part(path.read_text(encoding="utf-8"), part(path.parents[1]))


def chaos_part(folder: Path) -> str:
    """Returns the table of ``chaos.json`` and its picture."""
    source = folder / "chaos.json"
    if not source.is_file():
        return ""
    measured = json.loads(source.read_text(encoding="utf-8"))
    rows = [
        [f"{one['name']}{'' if one['verdict'] == 'passed' else ', ' + one['verdict']}", *_cells(one["figures"], CHAOS)]
        for one in measured["scenarios"]
    ]
    missed = (
        f"- {one['name']}: {check['text']}"
        for one in measured["scenarios"]
        for check in one["checks"]
        if not check["ok"]
    )
    requests = sum(one["phases"]["all"]["requests"] for one in measured["scenarios"])
    return page(
        "## Figures",
        "```bash\ntrireme chaos build/model_repository --save docs/chaos.json --plot docs/chaos.png\n```",
        f"The bundle of `make demo` on {measured['machine']}; {requests:,} requests in all; the first four columns in %.",
        table(["", *(heading for heading, *_ in CHAOS)], rows),
        "\n".join(missed),
        "![What was answered over time in each scenario](../chaos.png)",
    )


def overload_part(folder: Path) -> str:
    """Returns the tables and pictures of ``OVERLOADS``, of those that were measured."""
    parts = [_curves(folder, name) for name in OVERLOADS if (folder / f"{name}.json").is_file()]
    return page("## Figures", *parts) if parts else ""


def _curves(folder: Path, name: str) -> str:
    title, command = OVERLOADS[name]
    measured = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
    about = (
        f"On {measured['machine']}: medians of {measured['rounds']} rounds, deadline {measured['deadline_ms']:g} ms, the load "
        f"late by {measured['lag_p99_ms']:.1f} ms at p99 in the median load."
    )
    parts = (_contestant(key, one) for key, one in measured["contestants"].items())
    picture = f"![Full answers in time, by load](../{name}.png)"
    return page(f"### {title}", f"```bash\n{command}\n```", about, *parts, picture)


def _contestant(name: str, one: Measured) -> str:
    capacity = f"`{name}`: capacity {one['capacity']['median']:,.0f} users/s"
    if (cost := one["shed_cost"]["median"]) is not None:
        capacity += f", ρ {cost:.2f}"
    points = [point for point in one["points"] if point["counted"]]
    medians = [{key: point[key]["median"] for _, key, *_ in OVERLOAD} for point in points]
    shown = [column for column in OVERLOAD if any(each[column[1]] is not None for each in medians)]
    rows = [
        [f"{point['multiple']:g}×", *_cells(each, shown), _interval(point)]
        for point, each in zip(points, medians, strict=True)
    ]
    return page(capacity + ".", table(["", *(heading for heading, *_ in shown), "interval of ÷ peak"], rows))


def _interval(point: Measured) -> str:
    bounds = point["of_peak"]["interval"]
    return "–" if bounds is None else " to ".join(f"{bound:.2f}" for bound in bounds)


def _cells(figures: Measured, columns: Any) -> Iterator[str]:
    for _, key, factor, digits in columns:
        value = figures[key]
        yield "–" if value is None else f"{factor * value:,.{digits}f}"
