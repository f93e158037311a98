"""A comparison as files: goodput.json, two plots, and one self-contained HTML page with plots, tables and method."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from trireme_perf.goodput.plots import write_plots
from trireme_perf.goodput.run import Measured

__all__ = ["write_report"]


def write_report(document: Mapping[str, Any], measured: Measured, out: Path) -> None:
    """Writes goodput.json (the document with every turn and probe), the plots and goodput.html into ``out``."""
    out.mkdir(parents=True, exist_ok=True)
    turns = {name: [asdict(turn) for turn in turns] for name, turns in measured.turns.items()}
    everything = {**document, "turns": turns, "limits": measured.limits}
    (out / "goodput.json").write_text(json.dumps(everything, indent=2) + "\n")
    plots = write_plots(everything, out)
    images = {name: base64.b64encode(file.read_bytes()).decode() for name, file in plots.items()}
    (out / "goodput.html").write_text(_template().render(document, images=images))


def _template() -> Any:
    loader = PackageLoader("trireme_perf.goodput", ".")
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    environment.filters["number"] = lambda value, digits=0: "–" if value is None else f"{value:,.{digits}f}"
    return environment.get_template("page.html.jinja")
