"""The options of a cache. They are checked when made."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..errors import ValidationError
from ..requests import check_int


@dataclass(frozen=True, slots=True)
class Cache:
    """Keeps complete answers in the client, and gives them to equal calls.

    Attributes:
        ttl_s: seconds for which an answer is given.
        stale_s: seconds after that in which it is still given, while one call in the background asks for a new one.
        jitter: the share, from 0 to below 1, by which the time of an answer is shortened at most, by chance: answers that were
            asked for together do not all end together.
        max_entries: answers that are kept at most.
        negative_ttl_s: seconds for answers to users of whom nothing is known, or who have seen every item; never more than
            ``ttl_s``.
    """

    ttl_s: float = 60.0
    stale_s: float = 0.0
    jitter: float = 0.1
    max_entries: int = 100_000
    negative_ttl_s: float = 10.0

    def __post_init__(self) -> None:
        for name in ("ttl_s", "negative_ttl_s"):
            object.__setattr__(self, name, _check(name, getattr(self, name), "a finite number of seconds > 0", above=0))
        object.__setattr__(self, "stale_s", _check("stale_s", self.stale_s, "a finite number of seconds >= 0"))
        object.__setattr__(self, "jitter", _check("jitter", self.jitter, "a number from 0 to below 1", below=1))
        object.__setattr__(self, "max_entries", check_int("Cache.max_entries", self.max_entries, 1))


def _check(name: str, value: object, allowed: str, above: float = -1, below: float = math.inf) -> float:
    if (
        isinstance(value, (int, float))
        and not isinstance(value, bool)
        and max(0, above) <= value < below
        and value > above
    ):
        return float(value)
    raise ValidationError(f"Cache.{name} is {value!r}; allowed: {allowed}")
