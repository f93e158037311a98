"""Parquet files to typed columns. It knows the file format of the input, not what the columns are used for.

Nothing is repaired silently: what cannot be used is refused with the file, the column, how many rows and which.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from trireme_export.data.errors import DataColumnError, DataFileError, DataValueError

__all__ = ["EntityTable", "Interactions", "read_entities", "read_interactions"]

TIME_COLUMNS = ("timestamp", "seq")
EXAMPLES = 3
#: Bytes of text from which an arrow array needs offsets of 64 bits.
LARGEST_TEXT = 1 << 31


@dataclass(frozen=True)
class Interactions:
    """Rows of interactions.parquet in ascending time; rows of equal time keep the order of the file."""

    user_id: np.ndarray
    """int64 [n], external, >= 0."""
    item_id: np.ndarray
    """int64 [n], external, >= 0."""
    time: np.ndarray
    """int64 [n]: microseconds for an arrow timestamp or date; an integer column as it is."""
    positive: np.ndarray
    """bool [n]."""
    time_column: str
    label: str
    """How positives were recognised, in words."""
    unused_labels: tuple[str, ...]
    """Columns that could be labels, too: bool, or numbers of which each is 0 or 1."""
    out_of_order: int
    """Rows that the file holds after a row of a later time."""
    context: Mapping[str, pa.Array] = field(default_factory=dict)
    """By column, text [n]: the value of each row, null where there is none."""


@dataclass(frozen=True)
class EntityTable:
    """items.parquet or users.parquet: ids and, row by row beside them, the columns that may become features."""

    ids: np.ndarray
    """int64 [n], distinct, in the order of the file."""
    columns: dict[str, pa.Array]
    file: Path


def read_interactions(
    directory: Path,
    *,
    name: str = "interactions.parquet",
    time_column: str | None = None,
    label_column: str | None = None,
    label_minimum: float | None = None,
    context: Sequence[str] = (),
) -> Interactions:
    """Reads ``interactions.parquet``, or another file with one interaction per row.

    Args:
        directory: where the file is.
        name: of the file.
        time_column: what to sort by; by default ``timestamp``, or ``seq`` where that is missing.
        label_column: marks positives; by default ``is_click`` if there is one, or every row is a positive.
        label_minimum: smallest positive label; by default every label above 0.
        context: columns with a value of each interaction.

    Raises:
        DataError: see ``trireme_export.data.errors``.
    """
    file = directory / name
    names = _open(file)
    time_name = _time_column(file, names, time_column)
    label_name = label_column or ("is_click" if "is_click" in names else None)
    wanted = ["user_id", "item_id", time_name] + ([label_name] if label_name else []) + [*context]
    table = _read(file, names, list(dict.fromkeys(wanted)))
    user_id = _ids(file, "user_id", table["user_id"])
    item_id = _ids(file, "item_id", table["item_id"])
    time = _times(file, time_name, table[time_name])
    positive, label = _positive(file, table, label_name, label_minimum)
    unused = _could_be_labels(file, [name for name in names if name not in wanted])
    if not positive.any():
        raise DataValueError(f"{file}: no positive interactions among {positive.size} rows ({label})")
    out_of_order = int(np.count_nonzero(time < np.maximum.accumulate(time)))
    order = np.argsort(time, kind="stable")
    return Interactions(
        user_id[order],
        item_id[order],
        time[order],
        positive[order],
        time_name,
        label,
        unused,
        out_of_order,
        {name: _texts(file, name, table[name]).take(pa.array(order)) for name in context},
    )


def read_entities(directory: Path, name: str) -> EntityTable | None:
    """Reads ``items.parquet`` (``name="item"``) or ``users.parquet`` (``"user"``); None where there is no file.

    The id is the column ``<name>_id``, or the first column where none has that name.

    Raises:
        DataError: see ``trireme_export.data.errors``.
    """
    file = directory / f"{name}s.parquet"
    if not file.exists():
        return None
    names = _open(file)
    table = _read(file, names, names)
    id_name = f"{name}_id" if f"{name}_id" in names else names[0]
    ids = _ids(file, id_name, table[id_name])
    values, counts = np.unique(ids, return_counts=True)
    twice = values[counts > 1]
    if twice.size:
        raise DataValueError(
            f"{file}, column {id_name!r}: {twice.size} ids occur more than once "
            f"(such as {_some(twice)}); each {name} has exactly one row"
        )
    columns = {c: _feature(file, c, table[c]) for c in names if c != id_name}
    return EntityTable(ids, columns, file)


def _feature(file: Path, name: str, column: pa.ChunkedArray) -> pa.Array:
    try:
        return _flat(column)
    except pa.ArrowInvalid as error:
        raise DataColumnError(
            f"{file}, column {name!r}: {column.nbytes:,} bytes of {column.type} are too many ({_first_line(error)}); "
            "text may be of any size, lists up to 2 GiB"
        ) from error


def _open(file: Path) -> list[str]:
    """Returns the column names of a parquet file that exists."""
    if not file.parent.is_dir():
        raise DataFileError(f"{file.parent}: no such directory")
    if not file.is_file():
        raise DataFileError(
            f"{file}: missing; a data set is a directory with interactions.parquet and, if wanted, "
            "items.parquet and users.parquet"
        )
    try:
        names = list(pq.read_schema(file).names)
    except (pa.ArrowException, OSError) as error:
        raise DataFileError(f"{file}: not a readable parquet file ({_first_line(error)})") from error
    if not names:
        raise DataFileError(f"{file}: has no columns")
    return names


def _read(file: Path, names: list[str], wanted: list[str]) -> pa.Table:
    for name in wanted:
        _need(file, names, name)
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DataColumnError(f"{file}: column {twice[0]!r} occurs more than once")
    try:
        table = pq.read_table(file, columns=wanted)
    except (pa.ArrowException, OSError) as error:
        raise DataFileError(f"{file}: not a readable parquet file ({_first_line(error)})") from error
    if table.num_rows == 0:
        raise DataFileError(f"{file}: has no rows")
    return table


def _need(file: Path, names: list[str], name: str) -> None:
    if name not in names:
        raise DataColumnError(f"{file}: column {name!r} is missing; it has {', '.join(names)}")


def _time_column(file: Path, names: list[str], wanted: str | None) -> str:
    if wanted is not None:
        _need(file, names, wanted)
        return wanted
    for name in TIME_COLUMNS:
        if name in names:
            return name
    raise DataColumnError(
        f"{file}: no time column; 'timestamp' (integer seconds or an arrow timestamp) or 'seq' "
        f"(an integer that grows with time) is needed; it has {', '.join(names)}"
    )


def _ids(file: Path, name: str, column: pa.ChunkedArray) -> np.ndarray:
    """int64 [n], all >= 0."""
    column = _flat(column)
    where = f"{file}, column {name!r}"
    missing = pc.is_null(column, nan_is_null=True)
    _refuse(where, missing, "have no id (null or NaN)", "ids are integers >= 0")
    if not pa.types.is_integer(column.type):
        text = pa.types.is_string(column.type) or pa.types.is_large_string(column.type)
        raise DataColumnError(
            f"{where}: is {column.type} (such as {_some(column)}); ids are integers >= 0{_numbering(name) if text else ''}"
        )
    ids = _integers(where, "an id", column)
    negative = ids < 0
    if negative.any():
        raise DataValueError(
            f"{where}: {np.count_nonzero(negative)} of {ids.size} ids are negative "
            f"(such as {_some(ids[negative])}); ids are integers >= 0"
        )
    return ids


def _numbering(name: str) -> str:
    """Returns how to make numbers of the text ids in a column."""
    return (
        f'; number text ids first, for example: codes, names = pandas.factorize(frame["{name}"]); frame["{name}"] = codes '
        f"(names[code] is the text again, names.get_indexer(texts) the codes for another file)"
    )


def _times(file: Path, name: str, column: pa.ChunkedArray) -> np.ndarray:
    """int64 [n]; integers as they are, dates and timestamps in microseconds."""
    column = _flat(column)
    where = f"{file}, column {name!r}"
    allowed = "a time is an integer or an arrow timestamp"
    _refuse(where, pc.is_null(column, nan_is_null=True), "have no time (null or NaN)", allowed)
    if pa.types.is_timestamp(column.type) or pa.types.is_date(column.type):
        column = column.cast(pa.timestamp("us", tz=getattr(column.type, "tz", None)), safe=False)
    elif not pa.types.is_integer(column.type):
        raise DataColumnError(f"{where}: is {column.type} (such as {_some(column)}); {allowed}")
    return _integers(where, "a time", column)


def _integers(where: str, what: str, column: pa.Array) -> np.ndarray:
    """int64 [n]."""
    try:
        return np.asarray(column.cast(pa.int64()).to_numpy(zero_copy_only=False))
    except pa.ArrowInvalid as error:
        raise DataValueError(f"{where}: {what} does not fit in int64 ({_first_line(error)})") from error


def _positive(file: Path, table: pa.Table, name: str | None, minimum: float | None) -> tuple[np.ndarray, str]:
    """Returns which rows are positives, bool [n], and the rule in words. A missing label is not a positive."""
    if name is None:
        return np.ones(table.num_rows, dtype=bool), "every row is a positive"
    column = _flat(table[name])
    kinds = pa.types
    if not (kinds.is_integer(column.type) or kinds.is_floating(column.type) or kinds.is_boolean(column.type)):
        raise DataColumnError(
            f"{file}, column {name!r}: is {column.type} (such as {_some(column)}); a label is a number or a bool"
        )
    values = column.cast(pa.float64()).to_numpy(zero_copy_only=False)
    if minimum is None:
        return values > 0, f"positives are {name} > 0"
    return values >= minimum, f"positives are {name} >= {minimum:g}"


def _texts(file: Path, name: str, column: pa.ChunkedArray) -> pa.Array:
    """Returns the values of a category as text; those of a bool are True and False, as Python writes them."""
    column = _flat(column)
    kinds = pa.types
    if kinds.is_boolean(column.type):
        return pc.if_else(column, "True", "False")
    if not (kinds.is_integer(column.type) or kinds.is_string(column.type) or kinds.is_large_string(column.type)):
        raise DataColumnError(
            f"{file}, column {name!r}: is {column.type} (such as {_some(column)}); "
            "a context is a category: text, integers or bool"
        )
    return column.cast(pa.large_string())


def _could_be_labels(file: Path, names: list[str]) -> tuple[str, ...]:
    """Returns those of the columns ``names`` that hold nothing but yes and no, and both."""
    found = []
    schema = pq.read_schema(file)
    for name in names:
        kind = schema.field(name).type
        if pa.types.is_boolean(kind) or pa.types.is_integer(kind) or pa.types.is_floating(kind):
            column = _flat(_read(file, names, [name])[name]).cast(pa.float64(), safe=False)
            values = pc.unique(column.drop_null())
            if len(values) == 2 and set(values.to_pylist()) == {0.0, 1.0}:
                found.append(name)
    return tuple(found)


def _refuse(where: str, bad: pa.Array, what: str, allowed: str) -> None:
    rows = np.flatnonzero(bad.to_numpy(zero_copy_only=False))
    if rows.size:
        raise DataValueError(f"{where}: {rows.size} of {len(bad)} rows {what}, such as row {_some(rows)}; {allowed}")


def _flat(column: pa.ChunkedArray) -> pa.Array:
    """Returns one array without dictionary encoding, so that one test recognises a type."""
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_string(column.type) and column.nbytes >= LARGEST_TEXT:
        column = column.cast(pa.large_string())
    flat = column.combine_chunks()
    if isinstance(flat, pa.ChunkedArray):
        flat = pa.concat_arrays(flat.chunks) if flat.num_chunks else pa.array([], flat.type)
    return flat


def _some(values: np.ndarray | pa.Array) -> str:
    shown = values[:EXAMPLES]
    listed = shown.tolist() if isinstance(shown, np.ndarray) else shown.to_pylist()
    return ", ".join(str(value)[:40] for value in listed)


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
