"""Events from files: what is read, and what is said of what is not."""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from tests.support.frames import write_frames
from trireme_export.data import DataColumnError
from trireme_ingest.errors import EventFileError
from trireme_ingest.events import Event
from trireme_ingest.files import Chunk, read_json_lines, read_parquet

START_S = 1_700_000_000
NOW_MS = START_S * 1000 + 10_000


def lines(tmp_path: Path, *rows: Any) -> Path:
    file = tmp_path / "events.jsonl"
    file.write_text("".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows))
    return file


def row(item: int, **more: Any) -> dict[str, Any]:
    return {"user": 7, "item": item, "time": NOW_MS, **more}


def test_lines_are_read_in_parts(tmp_path: Path) -> None:
    file = lines(tmp_path, row(1), "", row(2, label=0), row(3, page="home"), row(4))
    assert list(read_json_lines(file, NOW_MS, 2)) == [
        Chunk([Event(7, 1, NOW_MS)], 1),
        Chunk([Event(7, 3, NOW_MS), Event(7, 4, NOW_MS)], 0),
        Chunk([], 0),
    ]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("{", "line 2: is not JSON ("),
        ("[1, 2]", "line 2: is list; allowed: an object with user, item and time"),
        (row(1, user=True), "line 2: user is 'True'; allowed: "),
        (row(1, user="\ud800"), "line 2: user is '?'; allowed: "),
        ({"user": 7, "item": 1}, "line 2: time is missing; "),
    ],
)
def test_a_line_that_is_no_event_is_named(tmp_path: Path, line: Any, problem: str) -> None:
    file = lines(tmp_path, row(1), line)
    with pytest.raises(EventFileError) as error:
        list(read_json_lines(file, NOW_MS, 1))
    assert str(error.value).startswith(f"{file}, {problem}")


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(EventFileError, match=r"gone\.jsonl: cannot be read \(No such file or directory\)"):
        list(read_json_lines(tmp_path / "gone.jsonl", NOW_MS, 1))


@pytest.mark.parametrize("kind", ["seconds", "arrow"])
def test_times_of_parquet_become_milliseconds(tmp_path: Path, kind: str) -> None:
    times: Any = [START_S + 2, START_S]
    if kind == "arrow":
        times = pa.array([datetime.datetime.fromtimestamp(time, datetime.timezone.utc) for time in times])
    write_frames(tmp_path, {"user_id": [1, 2], "item_id": [3, 4], "timestamp": times})
    (chunk,) = read_parquet(tmp_path / "interactions.parquet", NOW_MS, 10)
    assert chunk == Chunk([Event(2, 4, START_S * 1000), Event(1, 3, START_S * 1000 + 2000)], 0)


def test_positives_are_those_of_the_configuration(tmp_path: Path) -> None:
    times = [START_S + second for second in range(4)]
    write_frames(tmp_path, {"user_id": [1] * 4, "item_id": [2, 3, 4, 5], "timestamp": times, "rating": [5, 3, 4, 1]})
    chunks = list(read_parquet(tmp_path / "interactions.parquet", NOW_MS, 3, "rating", 4))
    assert [([event.item for event in chunk.events], chunk.negative) for chunk in chunks] == [([2, 4], 1), ([], 1)]


def test_times_without_a_clock_are_refused(tmp_path: Path) -> None:
    write_frames(tmp_path, {"user_id": [1, 2], "item_id": [3, 4], "timestamp": [START_S, 17]})
    file = tmp_path / "interactions.parquet"
    with pytest.raises(EventFileError) as error:
        list(read_parquet(file, NOW_MS, 10))
    assert str(error.value).startswith(
        f"{file}, column 'timestamp': 1 of 2 times are before 1973 or in the future, such as 17; "
    )
    write_frames(tmp_path, {"user_id": [1, 2], "item_id": [3, 4], "seq": [1, 2]})
    with pytest.raises(DataColumnError, match="column 'timestamp' is missing"):
        list(read_parquet(file, NOW_MS, 10))
