"""Events from files: JSON lines with the fields of the stream, or Parquet with the columns that the training reads."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from trireme_ingest.errors import EventError, EventFileError
from trireme_ingest.events import EARLIEST_MS, TOLERANCE_MS, Event, parse_event
from trireme_ingest.records import Records

__all__ = ["Chunk", "apply_chunks", "read_json_lines", "read_parquet"]


class Chunk(NamedTuple):
    """Some events of a file."""

    events: list[Event]
    negative: int
    """Rows whose label says that the user did not take the item."""


def apply_chunks(records: Records, chunks: Iterable[Chunk], advance: Callable[[int], object]) -> Counter[str]:
    """Applies the events of a file, and counts what became of them; ``advance`` is told the rows of each chunk.

    Where a file was read up to is remembered nowhere: to apply it again from the start changes nothing.

    Raises:
        connection.FAILURES: the store cannot be used.
    """
    outcomes: Counter[str] = Counter()
    for chunk in chunks:
        outcomes += records.apply(chunk.events).outcomes
        outcomes["negative"] += chunk.negative
        advance(len(chunk.events) + chunk.negative)
    return +outcomes


def read_json_lines(file: Path, now_ms: int, size: int) -> Iterator[Chunk]:
    """Yields the events of a file in which every line is one: ``{"user": 7, "item": 12, "time": 1795781556906}``.

    Raises:
        EventFileError: the file cannot be read, or a line is not an event; names the line.
    """
    events: list[Event] = []
    negative = 0
    try:
        with file.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                if not line.strip():
                    continue
                event = _event(f"{file}, line {number}", line, now_ms)
                if event is None:
                    negative += 1
                else:
                    events.append(event)
                if len(events) + negative >= size:
                    yield Chunk(events, negative)
                    events, negative = [], 0
    except OSError as error:
        raise EventFileError(f"{file}: cannot be read ({error.strerror})") from None
    yield Chunk(events, negative)


def _event(where: str, line: bytes, now_ms: int) -> Event | None:
    try:
        values = json.loads(line)
    except ValueError as error:
        raise EventFileError(f"{where}: is not JSON ({error})") from None
    if not isinstance(values, dict):
        raise EventFileError(f"{where}: is {type(values).__name__}; allowed: an object with user, item and time")
    try:
        return parse_event({_bytes(name): _bytes(value) for name, value in values.items()}, now_ms)
    except EventError as error:
        raise EventFileError(f"{where}: {error}") from None


def _bytes(value: object) -> bytes:
    return str(value).encode(errors="replace")


def read_parquet(
    file: Path, now_ms: int, size: int, label_column: str | None = None, label_minimum: float | None = None
) -> Iterator[Chunk]:
    """Yields the positives of a file with the columns of interactions.parquet, in ascending time.

    ``user_id``, ``item_id`` and ``timestamp`` (integer seconds since the epoch, or an arrow timestamp); positives are what they
    are in the training.

    Raises:
        EventFileError: a time is not one of an event.
        trireme_export.data.DataError: the file cannot be read, or not as interactions.
    """
    # Only here: the stream needs nothing of what these bring.
    import pyarrow.parquet as pq
    import pyarrow.types as kinds

    from trireme_export.data.reader import read_interactions

    rows = read_interactions(
        file.parent,
        name=file.name,
        time_column="timestamp",
        label_column=label_column,
        label_minimum=label_minimum,
    )
    per_second = 1 if kinds.is_integer(pq.read_schema(file).field("timestamp").type) else 1_000_000
    earliest, latest = (limit * per_second // 1000 for limit in (EARLIEST_MS, now_ms + TOLERANCE_MS))
    wrong = np.flatnonzero((rows.time < earliest) | (rows.time > latest))
    if wrong.size:
        raise EventFileError(
            f"{file}, column 'timestamp': {wrong.size} of {rows.time.size} times are before 1973 or in the future, such as "
            f"{rows.time[wrong[0]]}; allowed: integer seconds since the epoch, or an arrow timestamp"
        )
    columns = np.stack([rows.user_id, rows.item_id, rows.time * 1000 // per_second], axis=1)
    for start in range(0, len(columns), size):
        chosen = rows.positive[start : start + size]
        taken = columns[start : start + size][chosen]
        yield Chunk([Event(*row) for row in taken.tolist()], int(np.count_nonzero(~chosen)))
