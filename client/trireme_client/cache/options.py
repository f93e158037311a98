"""The options of a cache. They are checked when made."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..errors import ValidationError
from ..requests import check_int
from .address import Address, read_address


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
        features: the Redis that `trireme serve --features` reads and `trireme ingest` writes, in the same form, such as
            "redis://localhost:6379?namespace=shop": what is written there of a user ends their answers at once. Nothing is kept
            while that cannot be heard. Needs the extra ``redis``.
        store: the same Redis, which then also holds answers for all processes, and what ``forget`` ends. Instead of ``features``.
    """

    ttl_s: float = 60.0
    stale_s: float = 0.0
    jitter: float = 0.1
    max_entries: int = 100_000
    negative_ttl_s: float = 10.0
    features: str | None = None
    store: str | None = None

    def __post_init__(self) -> None:
        for name in ("ttl_s", "negative_ttl_s"):
            object.__setattr__(self, name, _check(name, getattr(self, name), "a finite number of seconds > 0", above=0))
        object.__setattr__(self, "stale_s", _check("stale_s", self.stale_s, "a finite number of seconds >= 0"))
        object.__setattr__(self, "jitter", _check("jitter", self.jitter, "a number from 0 to below 1", below=1))
        object.__setattr__(self, "max_entries", check_int("Cache.max_entries", self.max_entries, 1))
        if self.features is not None and self.store is not None:
            raise ValidationError(
                "Cache.features is given beside Cache.store; allowed: one of them, as a store hears events as well"
            )
        self.address()

    def address(self) -> Address | None:
        """The Redis of ``features`` or ``store``; None without. Raises ValidationError."""
        if self.store is not None:
            return read_address("Cache.store", self.store)
        return None if self.features is None else read_address("Cache.features", self.features)

    def life_s(self, negative: bool) -> float:
        """Returns for how many seconds an answer is given at most, without its stale time."""
        return min(self.ttl_s, self.negative_ttl_s) if negative else self.ttl_s


def check_cache(cache: object) -> Cache | None:
    """Returns a Cache as it is, or None for none."""
    if cache is None or isinstance(cache, Cache):
        return cache
    raise ValidationError(f"cache is {cache!r}; allowed: a Cache(...), or None to keep no answers")


def _check(name: str, value: object, allowed: str, above: float = -1, below: float = math.inf) -> float:
    if (
        isinstance(value, (int, float))
        and not isinstance(value, bool)
        and max(0, above) <= value < below
        and value > above
    ):
        return float(value)
    raise ValidationError(f"Cache.{name} is {value!r}; allowed: {allowed}")
