"""What the readers take and what they refuse; a refusal names the file, the column, the rows and what is allowed."""

from __future__ import annotations

import datetime
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from tests.support.frames import INTERACTIONS, write_frames
from trireme_export.data.errors import DataColumnError, DataError, DataFileError, DataValueError
from trireme_export.data.reader import read_entities, read_interactions
from trireme_export.data.schema import infer_kinds


def changed(**columns: Any) -> dict[str, Any]:
    return {name: value for name, value in {**INTERACTIONS, **columns}.items() if value is not None}


def test_rows_are_sorted_by_time_and_ties_keep_the_order_of_the_file(tmp_path: Path) -> None:
    frame = {"user_id": [1, 2, 3, 4], "item_id": [5, 6, 7, 8], "timestamp": [20, 10, 20, 10]}
    read = read_interactions(write_frames(tmp_path, frame))
    assert read.user_id.tolist() == [2, 4, 1, 3]
    assert read.item_id.tolist() == [6, 8, 5, 7]
    assert read.time.tolist() == [10, 10, 20, 20]
    assert read.out_of_order == 2
    assert read.user_id.dtype == read.item_id.dtype == read.time.dtype == np.int64


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_arrow_timestamps_become_microseconds(tmp_path: Path, unit: str) -> None:
    start = datetime.datetime(2024, 1, 1, tzinfo=datetime.timezone.utc)
    later = datetime.timedelta(milliseconds=0 if unit == "s" else 5)
    time = pa.array([start + later, start], pa.timestamp(unit, tz="UTC"))
    read = read_interactions(write_frames(tmp_path, {"user_id": [1, 2], "item_id": [3, 4], "timestamp": time}))
    first = 1_704_067_200_000_000
    assert read.time.tolist() == [first, first if unit == "s" else first + 5_000]
    assert read.user_id.tolist() == ([1, 2] if unit == "s" else [2, 1])


def test_seq_is_read_where_there_is_no_timestamp_and_timestamp_comes_first(tmp_path: Path) -> None:
    seq = list(range(10))
    assert read_interactions(write_frames(tmp_path, changed(seq=seq))).time_column == "timestamp"
    assert read_interactions(write_frames(tmp_path, changed(seq=seq, timestamp=None))).time_column == "seq"
    assert read_interactions(tmp_path, time_column="seq").time_column == "seq"


def test_every_row_is_positive_unless_there_is_a_label(tmp_path: Path) -> None:
    assert read_interactions(write_frames(tmp_path)).positive.all()
    click = [0, 1, 0, 1, 1, 2, -1, 0, None, 1]
    write_frames(tmp_path, changed(is_click=click, rating=[1.0, 5, 4, 3, 4.5, 2, 1, 4, 5, 3]))
    assert np.flatnonzero(read_interactions(tmp_path).positive).tolist() == [1, 3, 4, 5, 9]
    rated = read_interactions(tmp_path, label_column="rating", label_minimum=4)
    assert np.flatnonzero(rated.positive).tolist() == [1, 2, 4, 7, 8]
    assert rated.label == "positives are rating >= 4"


def test_columns_that_could_be_labels_are_found_where_they_are_not_used(tmp_path: Path) -> None:
    write_frames(
        tmp_path,
        changed(
            is_purchase=[0, 1, 0, None, 1, 0, 0, 0, 1, 0],
            returned=[True, False] * 5,
            share=[0.0, 1.0] * 5,
            rating=[1, 0, 4, 3, 4, 2, 1, 4, 5, 3],
            always=[1] * 10,
            shop=list("ababababab"),
        ),
    )
    read = read_interactions(tmp_path)
    assert (read.label, read.unused_labels) == ("every row is a positive", ("is_purchase", "returned", "share"))
    read = read_interactions(tmp_path, label_column="is_purchase")
    assert (read.label, read.unused_labels) == ("positives are is_purchase > 0", ("returned", "share"))


def test_text_ids_are_refused_with_a_way_to_number_them(tmp_path: Path) -> None:
    with pytest.raises(DataColumnError) as caught:
        read_interactions(write_frames(tmp_path, changed(item_id=list("abcdefghij"))))
    example = 'codes, names = pandas.factorize(frame["item_id"]); frame["item_id"] = codes'
    assert f"number text ids first, for example: {example}" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_ids_of_any_integer_type_and_dictionary_encoding_are_read(tmp_path: Path) -> None:
    plain = pa.array(INTERACTIONS["user_id"], pa.int64())
    narrow = [plain.cast(kind) for kind in (pa.int8(), pa.uint16(), pa.int32(), pa.uint64())]
    for users in (*narrow, plain.dictionary_encode()):
        read = read_interactions(write_frames(tmp_path, changed(user_id=users)))
        assert read.user_id.tolist() == INTERACTIONS["user_id"]


BAD_INTERACTIONS = {
    "missing column": (changed(item_id=None), DataColumnError, ["column 'item_id' is missing", "user_id, timestamp"]),
    "text ids": (changed(user_id=list("abcdefghij")), DataColumnError, ["'user_id'", "string", "a, b, c", ">= 0"]),
    "float ids": (changed(item_id=[1.0] * 10), DataColumnError, ["'item_id'", "double", "integers"]),
    "null ids": (changed(user_id=[7, None, 7, None, *[9] * 6]), DataValueError, ["'user_id'", "2 of 10 rows", "1, 3"]),
    "nan ids": (changed(item_id=[1.0, float("nan"), *[1.0] * 8]), DataValueError, ["'item_id'", "1 of 10", "NaN"]),
    "negative ids": (changed(item_id=[1, -1, -5, *[2] * 7]), DataValueError, ["2 of 10", "-1, -5", ">= 0"]),
    "huge ids": (
        changed(user_id=pa.array([2**63, *[1] * 9], pa.uint64())),
        DataValueError,
        ["'user_id'", "does not fit in int64"],
    ),
    "no time": (changed(timestamp=None), DataColumnError, ["no time column", "timestamp", "seq", "user_id, item_id"]),
    "null time": (changed(timestamp=[1, None, *range(8)]), DataValueError, ["'timestamp'", "1 of 10", "row 1"]),
    "text time": (changed(timestamp=["2024"] * 10), DataColumnError, ["'timestamp'", "string", "arrow timestamp"]),
    "huge time": (
        changed(timestamp=pa.array([2**63, *[1] * 9], pa.uint64())),
        DataValueError,
        ["'timestamp'", "does not fit in int64"],
    ),
    "float time": (changed(timestamp=[1.5] * 10), DataColumnError, ["'timestamp'", "double", "1.5"]),
    "no positives": (changed(is_click=[0] * 10), DataValueError, ["no positive", "10 rows", "is_click > 0"]),
    "text label": (changed(is_click=["yes"] * 10), DataColumnError, ["'is_click'", "string", "yes", "number"]),
    "no rows": (pa.table({n: pa.array([], pa.int64()) for n in INTERACTIONS}), DataFileError, ["has no rows"]),
}


@pytest.mark.parametrize("case", BAD_INTERACTIONS)
def test_interactions_that_cannot_be_used(tmp_path: Path, case: str) -> None:
    frame, error, parts = BAD_INTERACTIONS[case]
    with pytest.raises(error) as caught:
        read_interactions(write_frames(tmp_path, frame))
    message = str(caught.value)
    assert isinstance(caught.value, DataError)
    assert "\n" not in message
    for part in ["interactions.parquet", *parts]:
        assert part in message


def test_a_configured_column_that_is_not_there(tmp_path: Path) -> None:
    write_frames(tmp_path)
    with pytest.raises(DataColumnError, match="column 'bought' is missing"):
        read_interactions(tmp_path, label_column="bought")
    with pytest.raises(DataColumnError, match="column 'day' is missing"):
        read_interactions(tmp_path, time_column="day")


def test_files_that_are_not_there_or_not_parquet(tmp_path: Path) -> None:
    with pytest.raises(DataFileError, match="no such directory"):
        read_interactions(tmp_path / "nowhere")
    with pytest.raises(DataFileError, match=r"interactions\.parquet: missing; a data set is a directory"):
        read_interactions(tmp_path)
    (tmp_path / "interactions.parquet").write_text("user_id,item_id\n1,2\n")
    with pytest.raises(DataFileError, match=r"interactions\.parquet: not a readable parquet file"):
        read_interactions(tmp_path)
    (tmp_path / "interactions.parquet").write_bytes(b"")
    with pytest.raises(DataFileError, match="not a readable parquet file"):
        read_interactions(tmp_path)


def test_a_damaged_parquet_file(tmp_path: Path) -> None:
    write_frames(tmp_path, {name: list(values) * 500 for name, values in INTERACTIONS.items()})
    file = tmp_path / "interactions.parquet"
    content = bytearray(file.read_bytes())
    content[4:200] = b"\xff" * 196
    file.write_bytes(bytes(content))
    with pytest.raises(DataFileError, match="not a readable parquet file"):
        read_interactions(tmp_path)


def test_entities_have_an_id_and_columns(tmp_path: Path) -> None:
    write_frames(tmp_path, items={"name": ["a", "b"], "item_id": [4, 2]}, users={"customer": [3], "country": ["UK"]})
    items, users = read_entities(tmp_path, "item"), read_entities(tmp_path, "user")
    assert items is not None
    assert users is not None
    assert items.ids.tolist() == [4, 2]
    assert list(items.columns) == ["name"]
    assert users.ids.tolist() == [3]
    assert read_entities(tmp_path / "nowhere", "user") is None


@pytest.mark.parametrize(
    ("frame", "error", "message"),
    [
        ({"item_id": [1, 2, 1, 2, 3], "a": [1] * 5}, DataValueError, "2 ids occur more than once (such as 1, 2)"),
        ({"item_id": [1, None]}, DataValueError, "1 of 2 rows have no id"),
        ({"item_id": [-3, 4]}, DataValueError, "1 of 2 ids are negative (such as -3)"),
        ({"item_id": ["x"]}, DataColumnError, "ids are integers >= 0"),
        (pa.table({"item_id": pa.array([], pa.int64())}), DataFileError, "has no rows"),
        (pa.table({}), DataFileError, "has no columns"),
    ],
)
def test_entities_that_cannot_be_used(tmp_path: Path, frame: Any, error: type[DataError], message: str) -> None:
    with pytest.raises(error, match=re.escape(message)) as caught:
        read_entities(write_frames(tmp_path, items=frame), "item")
    assert "items.parquet" in str(caught.value)


def test_a_column_that_occurs_twice(tmp_path: Path) -> None:
    table = pa.Table.from_arrays([pa.array([1]), pa.array([1]), pa.array([2])], ["item_id", "a", "a"])
    with pytest.raises(DataColumnError, match="column 'a' occurs more than once"):
        read_entities(write_frames(tmp_path, items=table), "item")


@pytest.mark.parametrize("encode", [False, True])
def test_text_that_one_arrow_array_cannot_hold_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encode: bool
) -> None:
    monkeypatch.setattr("trireme_export.data.reader.LARGEST_TEXT", 10)  # instead of 2 GiB
    text = pa.array(["a long one", None, "ä", "a long one"])
    write_frames(tmp_path, items={"item_id": [1, 2, 3, 4], "name": text.dictionary_encode() if encode else text})
    items = read_entities(tmp_path, "item")
    assert items is not None
    assert items.columns["name"].type == pa.large_string()
    assert items.columns["name"].to_pylist() == text.to_pylist()
    assert infer_kinds(items, {})["name"].kind == "category"
