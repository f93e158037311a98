"""When a call is asked of a second server as well, because the first is slow to answer. It makes no RPC.

Dean and Barroso, "The Tail at Scale", 2013.
"""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass

from .errors import ValidationError
from .options import check_seconds
from .retries import Budget

# Latencies of the last calls that count, and how many there have to be; the percentile is taken anew after so many more.
_WINDOW, _FEWEST, _EVERY = 500, 50, 25

# The share of the budget that calls use up which are slow without a fault. The rest is kept for when a server stalls.
_SHARE_WHEN_CALM = 0.5

# Second RPCs beyond the share of the calls: a server that stalls holds up more than a share of the calls of that moment.
_BURST = 100.0


@dataclass(frozen=True, slots=True)
class Hedging:
    """Asks a second server as well if the first has not answered; the first answer counts.

    Attributes:
        after: seconds until then; None for the percentile of the last calls that half of the budget is enough for: the 99th for
            the default.
        budget: the share of calls for which that may be done, beyond 100 at first: above 0, at most 1.
    """

    after: float | None = None
    budget: float = 0.02

    def __post_init__(self) -> None:
        object.__setattr__(self, "after", check_seconds("Hedging.after", self.after))
        number = isinstance(self.budget, (int, float)) and not isinstance(self.budget, bool)
        if not number or not 0 < self.budget <= 1:
            raise ValidationError(f"Hedging.budget is {self.budget!r}; allowed: a number above 0, at most 1")


class Hedges:
    """Decides for the calls of one client.

    Attributes:
        taken: how many calls were asked of a second server.
    """

    def __init__(self, options: Hedging) -> None:
        self._after = options.after
        self._budget = Budget(options.budget, first=_BURST, most=_BURST)
        self._quantile = 1 - _SHARE_WHEN_CALM * options.budget
        self.taken = 0
        self._lock = threading.Lock()
        self._latencies: deque[float] = deque(maxlen=_WINDOW)
        self._new = 0
        self._percentile: float | None = None

    def delay(self) -> float | None:
        """Returns the seconds after which a call that begins now is asked of a second server; None while that is not known."""
        self._budget.called()
        return self._percentile if self._after is None else self._after

    def take(self) -> bool:
        """Returns whether a second server may be asked now."""
        if not self._budget.take():
            return False
        with self._lock:
            self.taken += 1
        return True

    def answered(self, seconds: float) -> None:
        """Notes the latency of a call."""
        if self._after is not None:
            return
        with self._lock:
            self._latencies.append(seconds)
            self._new += 1
            if self._new >= _EVERY and len(self._latencies) >= _FEWEST:
                self._new = 0
                self._percentile = sorted(self._latencies)[int(self._quantile * len(self._latencies))]


def check_hedge(hedge: object, servers: int) -> Hedges | None:
    """Returns what decides for a client of so many servers; None for one server per call."""
    if hedge is None:
        return None
    if not isinstance(hedge, Hedging) or servers < 2:
        allowed = "a Hedging(...) with more than one url, or None for one server per call"
        raise ValidationError(f"hedge is {hedge!r}; allowed: {allowed}")
    return Hedges(hedge)
