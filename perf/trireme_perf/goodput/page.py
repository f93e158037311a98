"""One self-contained HTML page: plots, tables, and how it was measured."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

__all__ = ["write_page"]


def write_page(document: Mapping[str, Any], plots: Mapping[str, Path], path: Path) -> None:
    """Writes the page; ``plots`` are PNG files by name, which become part of it."""
    environment = Environment(
        loader=PackageLoader("trireme_perf.goodput", "."), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters["number"] = _number
    images = {name: base64.b64encode(file.read_bytes()).decode() for name, file in plots.items()}
    path.write_text(environment.get_template("page.html.jinja").render(document, images=images))


def _number(value: float | None, digits: int = 0) -> str:
    return "–" if value is None else f"{value:,.{digits}f}"
