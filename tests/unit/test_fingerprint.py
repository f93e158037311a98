"""The fingerprint of a data set, and the evaluation that accepts only the data of the training."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.support.frames import INTERACTIONS, write_frames
from trireme_cli.evaluate import open_evaluation
from trireme_cli.output import CommandError
from trireme_export.checkpoint import Checkpoint
from trireme_export.config import PipelineConfig
from trireme_export.data import read_dataset
from trireme_export.data.options import DataConfig
from trireme_export.errors import CheckpointError
from trireme_perf.limit.synthetic_models import synthetic_checkpoint

#: Two rows share the last moment of training, so that their order is that of the file.
FRAME = {**INTERACTIONS, "timestamp": [1, 2, 3, 4, 5, 6, 7, 9, 9, 10], "is_click": [1] * 10}
ITEMS = {"item_id": [10, 20, 30], "colour": ["red", "red", "blue"], "price": [1.5, 2.5, 9.0], "tags": ["a|b", "a", "b"]}
USERS = {"user_id": [7, 9, 3], "segment": ["north", "south", "north"], "age": [20, 30, 40]}
SETTINGS = DataConfig(min_category_count=1)


def shuffled(frame: dict) -> pa.Table:
    table = pa.table(frame)
    return table.take(np.arange(table.num_rows)[::-1]).select(table.column_names[::-1])


def fingerprint(directory: Path, settings: DataConfig = SETTINGS) -> str:
    return read_dataset(directory, settings).report.fingerprint


@pytest.fixture
def data(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    return write_frames(tmp_path / "data", FRAME, ITEMS, USERS)


def test_it_is_the_same_for_the_same_content_in_another_order_and_compression(data: Path, tmp_path: Path) -> None:
    assert len(fingerprint(data)) == 16
    (tmp_path / "other").mkdir()
    for name, frame in (("interactions", FRAME), ("items", ITEMS), ("users", USERS)):
        pq.write_table(shuffled(frame), tmp_path / "other" / f"{name}.parquet", compression="gzip")
    assert fingerprint(tmp_path / "other") == fingerprint(data)


@pytest.mark.parametrize(
    ("file", "column", "value"),
    [
        ("interactions", "user_id", 9),
        ("interactions", "item_id", 20),
        ("interactions", "timestamp", 0),
        ("interactions", "is_click", 0),
        ("items", "item_id", 40),
        ("items", "colour", "blue"),
        ("items", "colour", "green"),
        ("items", "price", 1.25),
        ("items", "tags", "b"),
        ("users", "segment", "south"),
        ("users", "age", 21),
        ("users", "user_id", 8),
    ],
)
def test_it_differs_where_a_value_that_is_read_does(data: Path, file: str, column: str, value: object) -> None:
    before = fingerprint(data)
    frame = pq.read_table(data / f"{file}.parquet").to_pydict()
    frame[column][0] = value
    pq.write_table(pa.table(frame), data / f"{file}.parquet")
    assert fingerprint(data) != before


def test_what_is_not_read_does_not_matter(data: Path) -> None:
    before = fingerprint(data)
    extra = {**FRAME, "price": list(range(10))}
    write_frames(data, extra, {**ITEMS, "average_rating": [1.5, 2.0, 3.0]})
    assert fingerprint(data) == before


@pytest.fixture
def trained(data: Path, tmp_path: Path) -> Path:
    """A checkpoint that says it was trained on ``data``."""
    config = PipelineConfig(data=SETTINGS)
    described = {"name": data.name, **read_dataset(data, SETTINGS).report.as_dict()}
    made = synthetic_checkpoint(400, 30, history=20, candidates=40)
    replace(made, data=described, config=made.config.model_copy(update={"data": config.data})).save(tmp_path / "made")
    return tmp_path / "made"


def test_a_copy_under_another_name_is_the_data_of_the_training(data: Path, trained: Path, tmp_path: Path) -> None:
    shutil.copytree(data, tmp_path / "copy")
    loaded, dataset = open_evaluation(str(tmp_path / "copy"), trained)
    assert (loaded.data["name"], dataset.name) == ("data", "copy")


def test_other_data_of_the_same_name_is_refused_with_what_differs(data: Path, trained: Path) -> None:
    before = fingerprint(data)
    write_frames(data, {name: values[1:] for name, values in FRAME.items()})
    with pytest.raises(CommandError) as caught:
        open_evaluation(str(data), trained)
    message = str(caught.value)
    assert f"trained on 'data' with the fingerprint {before}, --data is 'data' with {fingerprint(data)}" in message
    assert "(10 positives there, 9 here)" in message
    assert f"or train again: `trireme train --data {data} --out {trained}`" in message


def test_other_times_of_as_many_rows_are_refused(data: Path, trained: Path) -> None:
    write_frames(data, {**FRAME, "timestamp": [0, *FRAME["timestamp"][1:]]})
    with pytest.raises(CommandError, match="as many positives, users and items, but other ids, times or features"):
        open_evaluation(str(data), trained)


def test_a_checkpoint_from_before_the_fingerprint_is_trained_again(trained: Path) -> None:
    file = trained / "train.json"
    file.write_text(file.read_text().replace('"format_version": 2', '"format_version": 1'))
    with pytest.raises(CheckpointError, match="format_version is 1, expected 2; train again"):
        Checkpoint.load(trained)
