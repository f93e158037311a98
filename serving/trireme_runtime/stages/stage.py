"""What every stage is: a pure array function with its own files."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Protocol

__all__ = ["Stage"]


class Stage(Protocol):
    """Called with the tensors of its ``schema.STAGES`` entry by name, answers with a named tuple.

    All arrays have the batch (users) as first axis. A stage holds no state between calls. What ``save`` wrote, the
    class method ``load`` reads.
    """

    name: ClassVar[str]

    def __call__(self, *args: Any, **tensors: Any) -> Any: ...

    def save(self, path: Path) -> None: ...
