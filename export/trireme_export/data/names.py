"""What the words in a column's name say about its numbers. It knows names only, no values.

A statistic over all interactions knows the test period. So a name that may be one counts as one: the report names the
column, and a kind in pipeline.yaml overrules the name.
"""

from __future__ import annotations

import re
from collections.abc import Set

__all__ = ["AMOUNT_WORDS", "CODE_WORDS", "sums_up", "words_of"]

#: An amount, however few distinct values it has.
AMOUNT_WORDS = frozenset((
    "age", "amount", "count", "days", "duration", "height", "length", "minutes", "num", "number", "price", "quantity",
    "size", "width", "year",
))  # fmt: skip
#: A code, however many distinct values it has.
CODE_WORDS = frozenset(("id", "is", "has", "type", "code", "onehot", "flag"))
#: Statistics over interactions.
SNAPSHOT_WORDS = frozenset((
    "aov", "average", "avg", "bookings", "bought", "clicks", "clv", "comments", "conversions", "ctr", "downloads",
    "favorites", "favourites", "frequency", "impressions", "interactions", "last", "latest", "likes", "logins", "ltv",
    "mean", "median", "monetary", "orders", "plays", "popularity", "purchases", "rating", "ratings", "recency",
    "revenue", "reviews", "sales", "sessions", "shares", "spend", "spending", "spent", "streams", "total",
    "transactions", "turnover", "views", "visits", "votes",
))  # fmt: skip
#: One interaction, and what makes a statistic of it: ``purchase_count`` is one, ``purchase`` and ``first_purchase`` are not.
EVENT_WORDS = frozenset((
    "active", "buy", "cart", "click", "comment", "conversion", "download", "impression", "interaction", "like",
    "listen", "login", "order", "play", "purchase", "review", "sale", "session", "share", "sold", "stream",
    "transaction", "view", "visit", "vote", "watch",
))  # fmt: skip
MEASURE_WORDS = frozenset((
    "amount", "count", "counts", "days", "frequency", "hours", "minutes", "num", "quantity", "rate", "ratio", "recent",
    "since", "sum", "time", "units", "value",
))  # fmt: skip


def words_of(name: str) -> set[str]:
    """Returns the words of ``total_spent``, ``totalSpent`` or ``TOTAL SPENT``, in lower case."""
    return {word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", name)}


def sums_up(words: Set[str]) -> bool:
    """Returns whether a number of that name may sum up interactions. What happened first is known ever since."""
    counted = words & EVENT_WORDS and words & MEASURE_WORDS and "first" not in words
    return bool(words & SNAPSHOT_WORDS or counted)
