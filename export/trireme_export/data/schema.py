"""What each column of items.parquet and users.parquet is: inferred from its values, or set in pipeline.yaml.

Every decision carries its reason, so that no column is left out silently.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from trireme_export.data.errors import DataColumnError
from trireme_export.data.names import AMOUNT_WORDS, CODE_WORDS, sums_up, words_of
from trireme_export.data.reader import EntityTable

__all__ = ["KINDS", "ColumnKind", "Kind", "infer_kinds", "pick_segment", "pick_title"]

Kind = Literal["category", "number", "text", "list", "ignore"]
KINDS: tuple[str, ...] = get_args(Kind)

SEPARATOR = "|"
#: Above this share of distinct values, a category identifies the row instead of describing it.
NEARLY_UNIQUE = 0.9
#: Whole numbers with at most this many distinct values are codes rather than amounts.
MAX_CODES = 64
#: A date as text, such as 2024-05-31 or 31.5.2024.
DATE = r"^\s*(\d{4}[-/.]\d{1,2}[-/.]\d{1,2}|\d{1,2}[-/.]\d{1,2}[-/.]\d{2,4})"


@dataclass(frozen=True)
class ColumnKind:
    """The role of one column and why it has it."""

    kind: Kind
    reason: str
    distinct: int


def infer_kinds(table: EntityTable, overrides: Mapping[str, Kind]) -> dict[str, ColumnKind]:
    """Returns the kind of every column of ``table``, in the order of the file.

    Numbers and dates that sum up interactions by their name are left out, unless they are configured.

    Args:
        table: the file read.
        overrides: kinds by column name; these are not inferred.

    Raises:
        DataColumnError: an override names a column that is not there, or a kind its type cannot have.
    """
    for name in overrides:
        if name not in table.columns:
            raise DataColumnError(
                f"{table.file}: column {name!r} is configured but missing; it has {', '.join(table.columns)}"
            )
    kinds = {}
    for name, column in table.columns.items():
        if name in overrides:
            kinds[name] = _configured(table, name, column, overrides[name])
        else:
            kinds[name] = _infer(name, column)
    return kinds


def pick_title(kinds: Mapping[str, ColumnKind], wanted: str | None) -> str | None:
    """Returns the column that names an item to people: ``wanted``, or one called title or name, or any text."""
    if wanted is not None:
        if wanted not in kinds:
            raise DataColumnError(f"title column {wanted!r} is not in items.parquet; it has {', '.join(kinds)}")
        return wanted
    for name in ("title", "name"):
        if name in kinds:
            return name
    return next((name for name, column in kinds.items() if column.kind == "text"), None)


def pick_segment(sizes: Mapping[str, int], wanted: str | None) -> str | None:
    """Returns the user category whose popular items are recommended to users without a history.

    Args:
        sizes: number of values (without unknown) of each categorical user column, in order.
        wanted: the column asked for.

    Raises:
        DataColumnError: the column asked for is not a category of users.parquet.
    """
    if wanted is not None:
        if wanted not in sizes:
            have = ", ".join(sizes) or "no categories"
            raise DataColumnError(f"segment column {wanted!r} is not a category of users.parquet; it has {have}")
        return wanted
    for name in ("segment", "country", "region"):
        if name in sizes:
            return name
    return next((name for name, size in sizes.items() if 2 <= size <= MAX_CODES), None)


def _configured(table: EntityTable, name: str, column: pa.Array, kind: Kind) -> ColumnKind:
    if kind == "number" and not _is_numeric(column.type):
        raise DataColumnError(
            f"{table.file}, column {name!r}: is {column.type}, which cannot be a number; "
            "allowed: category, text, list, ignore"
        )
    if kind == "list" and not (_is_string(column.type) or _is_list(column.type)):
        raise DataColumnError(
            f"{table.file}, column {name!r}: is {column.type}; a list is text with {SEPARATOR!r} between values"
        )
    return ColumnKind(kind, "configured", -1)


def _infer(name: str, column: pa.Array) -> ColumnKind:
    if _is_list(column.type):
        return ColumnKind("list", "arrow list", -1)
    if not (_is_string(column.type) or _is_numeric(column.type)):
        return ColumnKind("ignore", f"type {column.type} is not supported", -1)
    filled = drop_missing(column)
    distinct = pc.count_distinct(filled).as_py()
    if distinct < 2:
        return ColumnKind("ignore", "has a single value", distinct)
    words = words_of(name)
    if sums_up(words) and (not _is_string(column.type) or _are_dates(filled)):
        reason = "a statistic of interactions by its name: it may know the test period; configure it to use it"
        return ColumnKind("ignore", reason, distinct)
    if _is_string(column.type):
        return _infer_string(filled, distinct)
    return _infer_number(words, filled, distinct)


def _are_dates(filled: pa.Array) -> bool:
    return bool(pc.all(pc.match_substring_regex(filled, DATE)).as_py())


def _infer_string(filled: pa.Array, distinct: int) -> ColumnKind:
    if _looks_like_list(filled):
        return ColumnKind("list", f"values joined by {SEPARATOR!r}", distinct)
    if distinct > NEARLY_UNIQUE * len(filled):
        return ColumnKind("text", f"nearly unique: {distinct} values in {len(filled)} rows", distinct)
    return ColumnKind("category", f"{distinct} values in {len(filled)} rows", distinct)


def _infer_number(words: set[str], filled: pa.Array, distinct: int) -> ColumnKind:
    if pa.types.is_boolean(filled.type):
        return ColumnKind("category", "bool", distinct)
    if not _is_whole(filled):
        return ColumnKind("number", str(filled.type), distinct)
    code = bool(words & CODE_WORDS)
    if code and distinct > NEARLY_UNIQUE * len(filled):
        return ColumnKind("ignore", f"nearly unique: {distinct} values in {len(filled)} rows", distinct)
    if code or (distinct <= MAX_CODES and not words & AMOUNT_WORDS):
        return ColumnKind("category", f"whole numbers with {distinct} values", distinct)
    return ColumnKind("number", f"whole numbers with {distinct} values", distinct)


def _is_whole(filled: pa.Array) -> bool:
    """Returns whether all values are whole numbers, whatever their type; a time is not a whole number."""
    if pa.types.is_temporal(filled.type):
        return False
    return bool(pa.types.is_integer(filled.type) or pc.all(pc.equal(pc.floor(filled), filled)).as_py())


def _looks_like_list(filled: pa.Array) -> bool:
    """Returns whether values are joined by the separator and their parts repeat, unlike those of a title with a bar."""
    joined = pc.sum(pc.match_substring(filled, SEPARATOR)).as_py() or 0
    if joined < max(2, 0.01 * len(filled)):
        return False
    parts = pc.list_flatten(pc.split_pattern(filled, SEPARATOR))
    return bool(pc.count_distinct(parts).as_py() <= 0.5 * len(parts))


def drop_missing(column: pa.Array) -> pa.Array:
    """Returns the values of a column without null, NaN and empty text."""
    missing = pc.is_null(column, nan_is_null=True)
    if _is_string(column.type):
        missing = pc.or_(missing, pc.fill_null(pc.equal(column, ""), True))
    return column.filter(pc.invert(missing))


def to_float(column: pa.Array) -> np.ndarray:
    """Returns the values as float64 [n], NaN where missing; times in seconds."""
    if pa.types.is_temporal(column.type):
        column = pc.divide(column.cast(pa.timestamp("us"), safe=False).cast(pa.int64()).cast(pa.float64()), 1e6)
    values = column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False).astype(np.float64)
    return np.where(np.isfinite(values), values, np.nan)


def _is_string(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind))


def _is_numeric(kind: pa.DataType) -> bool:
    types = pa.types
    date = types.is_timestamp(kind) or types.is_date(kind)
    return bool(types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind) or date)
