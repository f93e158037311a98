"""Errors of this package.

IngestError
├── EventError        what was sent is not an event; the message is the reason
├── EventFileError    a file of events cannot be read
└── StoreError        the store cannot be used as it is
"""

from __future__ import annotations

__all__ = ["EventError", "EventFileError", "IngestError", "StoreError"]


class IngestError(Exception):
    """Base of everything that this package raises on purpose."""


class EventError(IngestError, ValueError):
    """A field of an event is missing or wrong; the message names it, its value and what is allowed."""


class EventFileError(IngestError):
    """A file of events cannot be read; the message names the file and the line or column."""


class StoreError(IngestError):
    """Redis refuses what ingesting needs; the message says what and why."""
