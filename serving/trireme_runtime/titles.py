"""Titles of items, for people who look at answers: nothing in serving reads them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from trireme_runtime.errors import ArtifactError

__all__ = ["TITLES", "read_titles", "write_titles"]

TITLES = "titles.json"


def write_titles(folder: Path, titles: Mapping[int, str]) -> None:
    """Writes ``titles`` by item id into ``folder``; no file if there are none."""
    if titles:
        (folder / TITLES).write_text(json.dumps(dict(titles), ensure_ascii=False, indent=0) + "\n")


def read_titles(folder: Path) -> dict[int, str]:
    """Returns the titles in ``folder`` by item id; empty where there is no file of them.

    Raises:
        ArtifactError: the file cannot be read.
    """
    file = folder / TITLES
    if not file.is_file():
        return {}
    try:
        return {int(item): str(title) for item, title in json.loads(file.read_text()).items()}
    except (OSError, ValueError, AttributeError) as error:
        raise ArtifactError(f"{file}: cannot be read as titles by item id ({error})") from None
