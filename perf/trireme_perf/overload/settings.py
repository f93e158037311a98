"""What an overload measurement is given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["MULTIPLES", "Settings"]

MULTIPLES = (0.5, 0.8, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0)


@dataclass(frozen=True)
class Settings:
    """multiples: of the capacity, at least one, each > 0. rounds, processes (of the load generator): at least 1. seconds: of a
    point, > 0. deadline_ms: in which callers want their answer, > 0."""

    multiples: Sequence[float] = MULTIPLES
    rounds: int = 3
    seconds: float = 5.0
    deadline_ms: float = 100.0
    processes: int = 4
