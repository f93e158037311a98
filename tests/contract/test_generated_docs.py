"""The generated pages of docs/ are what ``make docs`` writes."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from docs.generate import DOCS, pages

from trireme_export.config import load_config

PAGES = pages()


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_a_generated_page_is_up_to_date(path: Path) -> None:
    assert path.read_text(encoding="utf-8") == PAGES[path], "run `make docs` and commit what it wrote"


def test_the_pictures_of_docs_are_those_that_pages_show() -> None:
    texts = [path.read_text(encoding="utf-8") for path in (DOCS.parent / "README.md", *DOCS.rglob("*.md"))]
    shown = {Path(target).name for text in texts for target in re.findall(r"!\[[^]]*\]\(([^)]+)\)", text)}
    assert {path.name for pattern in ("*.png", "*.svg") for path in DOCS.rglob(pattern)} == shown


def test_every_benchmark_has_a_command_and_complete_rows() -> None:
    parts = json.loads((DOCS / "benchmarks.json").read_text(encoding="utf-8"))["parts"]
    for one in (one for part in parts for one in part["benchmarks"]):
        assert one["commands"], one["title"]
        assert {len(row) for row in one["rows"]} == {1 + len(one["columns"])}, one["title"]


def test_the_example_of_pipeline_yaml_is_allowed(tmp_path: Path) -> None:
    (example,) = re.findall(r"```yaml\n(.*?)```", PAGES[DOCS / "pipeline-yaml.md"], re.DOTALL)
    (tmp_path / "pipeline.yaml").write_text(example)
    assert load_config(tmp_path / "pipeline.yaml").training.history_length == 50
