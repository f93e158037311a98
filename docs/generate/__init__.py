"""The pages that are written by a program: ``make docs``, which runs ``python -m docs.generate``."""

from __future__ import annotations

from pathlib import Path

from docs.generate.benchmarks import benchmarks_page
from docs.generate.cli import cli_page
from docs.generate.pipeline_yaml import pipeline_yaml_page
from docs.generate.pressure import chaos_part, measured_page, overload_part
from docs.generate.quality import quality_page

__all__ = ["DOCS", "pages"]

DOCS = Path(__file__).parents[1]


def pages() -> dict[Path, str]:
    """Returns the text of every generated page by its path."""
    return {
        DOCS / "benchmarks.md": benchmarks_page(DOCS / "benchmarks.json"),
        DOCS / "cli.md": cli_page(),
        DOCS / "measure" / "chaos.md": measured_page(DOCS / "measure" / "chaos.md", chaos_part),
        DOCS / "measure" / "overload.md": measured_page(DOCS / "measure" / "overload.md", overload_part),
        DOCS / "pipeline-yaml.md": pipeline_yaml_page(),
        DOCS / "quality.md": quality_page(DOCS / "quality.md", DOCS / "quality.json"),
    }
