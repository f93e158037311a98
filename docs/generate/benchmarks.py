"""docs/benchmarks.md: every published figure, from docs/benchmarks.json."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from docs.generate.markdown import GENERATED, page, table

__all__ = ["benchmarks_page"]


def benchmarks_page(source: Path) -> str:
    document = json.loads(source.read_text(encoding="utf-8"))
    parts = (_part(part) for part in document["parts"])
    return page(GENERATED, "# Benchmarks", *document["about"], *parts)


def _part(part: Mapping[str, Any]) -> str:
    return page(f"## {part['title']}", *part["about"], *(_benchmark(one) for one in part["benchmarks"]))


def _benchmark(one: Mapping[str, Any]) -> str:
    command = "\n".join(["```", *one["commands"], "```"])
    picture = f"![{one['picture']['shows']}]({one['picture']['file']})" if "picture" in one else ""
    notes = "\n".join(f"- {note}" for note in one["notes"])
    figures = table(["", *one["columns"]], one["rows"])
    return page(f"### {one['title']}", command, " ".join(_origin(one)), figures, picture, notes)


def _origin(one: Mapping[str, Any]) -> Iterator[str]:
    """Yields when the figures were published, where they were measured, and the name of the command at that time."""
    published = one["published"]
    yield f"Measured on {one['machine']}; published on {published['date']} with commit {published['commit']}."
    if "formerly" in one:
        yield f"The command was then `{one['formerly']}`."
