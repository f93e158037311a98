"""perf_input.json: the real users of a repository, as perf_analyzer and the measuring tools read them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from trireme_export.errors import ExportError
from trireme_export.perf_input import read_perf_input, write_perf_input
from trireme_runtime.bundle import PERF_INPUT


def test_what_is_written_is_read(tmp_path: Path) -> None:
    write_perf_input(tmp_path, np.array([7, 3, 7]))
    assert json.loads((tmp_path / PERF_INPUT).read_text())["data"][1] == {"user_id": [3]}
    assert read_perf_input(tmp_path).tolist() == [7, 3]
    assert read_perf_input(tmp_path).dtype == np.int64


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, r"perf_input\.json: cannot be read"),
        ("{}", r"is not an input file of users \(KeyError"),
        ('{"data": []}', "holds no users"),
    ],
)
def test_a_wrong_file_is_named(text: str | None, words: str, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / PERF_INPUT).write_text(text)
    with pytest.raises(ExportError, match=words):
        read_perf_input(tmp_path)
