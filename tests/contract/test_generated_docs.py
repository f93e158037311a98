"""The generated pages of docs/ are what ``make docs`` writes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from docs.generate import DOCS, pages

PAGES = pages()


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_a_generated_page_is_up_to_date(path: Path) -> None:
    assert path.read_text(encoding="utf-8") == PAGES[path], "run `make docs` and commit what it wrote"


def test_the_pictures_of_docs_are_those_that_pages_show() -> None:
    texts = [path.read_text(encoding="utf-8") for path in (DOCS.parent / "README.md", *DOCS.rglob("*.md"))]
    shown = {Path(target).name for text in texts for target in re.findall(r"!\[[^]]*\]\(([^)]+)\)", text)}
    assert {path.name for pattern in ("*.png", "*.svg") for path in DOCS.rglob(pattern)} == shown
