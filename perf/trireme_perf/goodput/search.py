"""The search for goodput. It knows nothing of servers: it asks a function whether the SLO is met at a rate."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

__all__ = ["PRECISION", "SLOWEST", "confirm_goodput", "find_goodput"]

PRECISION = 1.05  # where to stop: highest rate that failed over the highest that met the SLO
WIDEN = (
    1.1  # exponent by which a step down grows: a machine that has become much slower costs twenty steps, not a hundred
)
SLOWEST = 10.0  # requests/s; below it there is no goodput to speak of


async def find_goodput(meets: Callable[[float], Awaitable[bool]], start: float, *, step: float) -> tuple[float, float]:
    """Returns the highest rate seen to meet the SLO, and the lowest seen to miss it, at most ``PRECISION`` apart.

    Moves away from ``start`` by ``step``, and by ever larger ones, until one rate is met and one missed, then halves
    the ratio between them. ``step`` is 1.5 for a guess, 1.1 where an earlier search was.

    Args:
        meets: puts the rate (requests/s) on the server.
        start: the rate to begin with, at least ``SLOWEST``.
        step: > 1.

    Returns:
        (goodput, limit) in requests/s; goodput is 0 if even ``SLOWEST`` misses the SLO.
    """
    met, missed, rate = 0.0, float("inf"), start
    while missed > max(met * PRECISION, SLOWEST):
        if await meets(rate):
            met = rate
        else:
            missed = rate
        if met and missed < float("inf"):
            rate = (met * missed) ** 0.5
        else:
            rate = rate * step if met else max(SLOWEST, rate / step)
            step **= 1.5
    return met, missed


async def confirm_goodput(
    confirms: Callable[[float], Awaitable[bool]], met: float, missed: float
) -> tuple[float, float]:
    """Steps down from a rate that a search has found, by ``PRECISION`` and then a little more each time, until one is confirmed.

    A search tries many rates, and keeps the highest that did well: by luck, if it was only just too high.

    Args:
        confirms: puts the rate on the server, for longer than the search did.
        met, missed: what ``find_goodput`` returned.

    Returns:
        The same two for the rate that was confirmed; goodput is 0 if even ``SLOWEST`` is not.
    """
    step = PRECISION
    while met and not await confirms(met):
        met, missed = (max(SLOWEST, met / step) if met > SLOWEST else 0.0), met
        step **= WIDEN
    return met, missed
