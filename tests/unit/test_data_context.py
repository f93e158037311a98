"""The context of a request in a data set: which values have an index, where they lie, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pydantic import ValidationError

from tests.support.frames import INTERACTIONS, write_frames
from trireme_export.data import DataColumnError, Dataset, read_dataset
from trireme_export.data.options import DataConfig
from trireme_export.evaluation.moments import test_moments as moments_of
from trireme_export.tables import build_tables

#: Of the ten interactions of ``INTERACTIONS``; the last is the test.
DEVICE = ["tv", "mobile", "tv", "mobile", None, "watch", "", "tv", "mobile", "tv"]
HOUR = [9, 10, 9, 10, 9, 10, 9, 10, 9, 11]


def read(folder: Path, *names: str, min_category_count: int = 2, **columns: Any) -> Dataset:
    write_frames(folder, {**INTERACTIONS, **columns})
    return read_dataset(folder, DataConfig(context=names, min_category_count=min_category_count))


def test_values_of_the_training_have_indices_in_the_order_of_their_names(tmp_path: Path) -> None:
    dataset = read(tmp_path, "device", "hour", device=DEVICE, hour=HOUR)
    assert dataset.report.context == {"device": ("mobile", "tv"), "hour": ("9", "10")}
    assert dataset.train_context.sizes == (3, 3)
    # By user, oldest first: 7 at the times 1, 2, 3, 6, 8, and 9 at 4, 5, 7, 9.
    expected = [[2, 1], [1, 2], [2, 1], [0, 2], [2, 2], [1, 2], [0, 1], [0, 1], [1, 1]]
    assert dataset.train_context.index is not None
    assert dataset.train_context.index.tolist() == expected
    assert dataset.test_context.index is not None
    assert dataset.test_context.index.tolist() == [[2, 0]]  # no training positive has the hour 11
    assert "interactions.parquet hour: context of a request, 2 values" in dataset.report.lines()


def test_bools_are_named_as_python_writes_them(tmp_path: Path) -> None:
    dataset = read(tmp_path, "is_app", is_app=[True, False] * 5)
    assert dataset.report.context == {"is_app": ("False", "True")}


def test_models_and_tables_have_a_column_for_it_behind_those_of_the_user(tmp_path: Path) -> None:
    dataset = read(tmp_path, "hour", hour=HOUR)
    data = dataset.training_data()
    assert data.category_sizes == (1, 3)
    assert build_tables(dataset, 4, 3).category.tolist() == [[0, 0]] * 3
    category, _ = data.user_inputs(data.history(2), np.array([0, -1]), np.array([[2], [1]], np.int32))
    assert category.tolist() == [[0, 2], [0, 1]]
    category, _ = data.user_inputs(data.history(2), np.array([0, 1]))
    assert category.tolist() == [[0, 0], [0, 0]]
    kept = data.keep(np.arange(9) % 2 == 0)
    assert kept.context is not None
    assert kept.context[:, 0].tolist() == [1, 1, 2, 1, 1]


def test_the_context_of_a_moment_is_that_of_what_was_new(tmp_path: Path) -> None:
    interactions = {
        "user_id": [7, 7, 8, 8, 9, 9, 9, 7, 7, 7],
        "item_id": [10, 20, 30, 40, 10, 30, 40, 10, 40, 30],
        "timestamp": [1, 2, 3, 4, 5, 6, 7, 8, 8, 9],
        "device": ["tv", "mobile", "tv", "mobile", "tv", "mobile", "tv", "tv", "mobile", "tv"],
    }
    write_frames(tmp_path, interactions)
    dataset = read_dataset(tmp_path, DataConfig(context=("device",), test_fraction=0.3))
    moments = moments_of(dataset)
    assert moments.relevant_items.tolist() == [3, 2]
    assert moments.context is not None
    assert moments.context.tolist() == [[1], [2]]  # item 10, which was taken on a tv at time 8, is not new
    assert moments.take(np.array([1])).context.tolist() == [[2]]  # type: ignore[union-attr]


def test_the_fingerprint_knows_the_context(tmp_path: Path) -> None:
    def fingerprint(name: str, *names: str, hour: list[int] = HOUR) -> str:
        (tmp_path / name).mkdir()
        return read(tmp_path / name, *names, hour=hour).report.fingerprint

    plain, declared = fingerprint("plain"), fingerprint("declared", "hour")
    assert fingerprint("unused", hour=HOUR[::-1]) == plain != declared
    assert fingerprint("other", "hour", hour=[10, 9, *HOUR[2:]]) != declared


@pytest.mark.parametrize(
    ("column", "message"),
    [
        ({}, "column 'device' is missing; it has user_id, item_id, timestamp"),
        ({"device": [0.5] * 10}, "column 'device': is double .* a context is a category: text, integers or bool"),
        ({"device": [f"d{n}" for n in range(10)]}, "column 'device': no value occurs in 2 training positives"),
        ({"device": pa.nulls(10, pa.string())}, "column 'device': no value occurs"),
    ],
)
def test_a_column_that_cannot_be_used_is_refused(tmp_path: Path, column: dict[str, Any], message: str) -> None:
    with pytest.raises(DataColumnError, match=message):
        read(tmp_path, "device", **column)


@pytest.mark.parametrize(
    "options", [{"context": ["a", "a"]}, {"context": ["user_id"]}, {"context": ["w"], "label_column": "w"}]
)
def test_a_column_has_one_role(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="allowed: each column once, and neither ids, the time nor the label"):
        DataConfig.model_validate(options)
