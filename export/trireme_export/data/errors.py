"""Errors of reading a data set.

DataError
├── DataFileError      a file is missing, is not parquet, or holds no rows
├── DataColumnError    a column is missing or of the wrong type
├── DataValueError     values in a column cannot be used: missing or negative ids, duplicates, no positives
└── DataSizeError      a made-up data set cannot have the sizes asked for
"""

from __future__ import annotations

__all__ = ["DataColumnError", "DataError", "DataFileError", "DataSizeError", "DataValueError"]


class DataError(Exception):
    """The data given cannot be used; the message names file, column and values."""


class DataFileError(DataError):
    """A file cannot be read, or has no rows."""


class DataColumnError(DataError):
    """A column is missing or has a type that its role does not allow."""


class DataValueError(DataError):
    """A column has the right type, but values that cannot be used."""


class DataSizeError(DataError, ValueError):
    """A made-up data set cannot have the sizes asked for; the message names the size, its value and what is allowed."""
