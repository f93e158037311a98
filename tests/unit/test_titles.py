"""Titles travel from the data set through checkpoint and repository to those who show them."""

from __future__ import annotations

from pathlib import Path

import pytest

from trireme_runtime.errors import ArtifactError
from trireme_runtime.titles import TITLES, read_titles, write_titles


def test_what_was_written_is_read(tmp_path: Path) -> None:
    titles = {7: "White Hanging Heart T-Light Holder", 2**62: "Café Menu"}
    write_titles(tmp_path, titles)
    assert read_titles(tmp_path) == titles


def test_no_titles_are_no_file(tmp_path: Path) -> None:
    write_titles(tmp_path, {})
    assert not (tmp_path / TITLES).exists()
    assert read_titles(tmp_path) == {}
    assert read_titles(tmp_path / "nowhere") == {}


@pytest.mark.parametrize("content", ["{", "[1]", '{"seven": "Heart"}'])
def test_a_file_of_something_else_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / TITLES).write_text(content)
    with pytest.raises(ArtifactError, match=r"titles\.json: cannot be read as titles by item id"):
        read_titles(tmp_path)
