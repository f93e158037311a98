"""A comparison as files: goodput.json, three plots, one page."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from trireme_perf.goodput.page import write_page
from trireme_perf.goodput.plots import write_plots
from trireme_perf.goodput.run import Measured

__all__ = ["write_report"]


def write_report(document: Mapping[str, Any], measured: Measured, out: Path) -> None:
    """Writes goodput.json (the document with every turn and probe), the plots and goodput.html into ``out``."""
    out.mkdir(parents=True, exist_ok=True)
    turns = {name: [asdict(turn) for turn in turns] for name, turns in measured.turns.items()}
    everything = {**document, "turns": turns, "limits": measured.limits}
    (out / "goodput.json").write_text(json.dumps(everything, indent=2) + "\n")
    write_page(document, write_plots(everything, out), out / "goodput.html")
