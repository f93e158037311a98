"""The calls that wait to share an RPC and the RPCs that are under way. No I/O, and the time is passed in."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

from .codec import Codec
from .concurrency import ConcurrencyLimit
from .errors import OverloadedError
from .ledger import CallClock
from .options import Coalescing
from .recommendations import Recommendations
from .requests import CheckedRequest

if TYPE_CHECKING:
    from .spans import CallSpan

# A call that waits is in a hurry when fewer than so many usual latencies are left until its deadline.
_HURRY = 2.0


class Call:
    """One caller's request, from when it joins until it is settled.

    deadline: a moment of the clock, infinity for none; seconds: the time allowed until then. connecting: that time is
    for the model's dimensions to be read, and begins anew after that. waiter: what the caller waits on. turn: its place
    among all calls. flight: the RPC that it travels with, None before.
    clock: takes its time, if its ledger was asked for. caller: its span, if it is sampled.
    """

    __slots__ = (
        "caller",
        "clock",
        "connecting",
        "deadline",
        "flight",
        "request",
        "result",
        "seconds",
        "settled",
        "turn",
        "waiter",
    )

    def __init__(
        self,
        request: CheckedRequest,
        deadline: float,
        seconds: float | None,
        connecting: bool,
        waiter: Any,
        clock: CallClock | None = None,
        caller: CallSpan | None = None,
    ) -> None:
        self.request = request
        self.deadline = deadline
        self.seconds = seconds
        self.connecting = connecting
        self.waiter = waiter
        self.clock = clock
        self.caller = caller
        self.turn = 0
        self.flight: Flight | None = None
        self.settled = False
        self.result: Recommendations | BaseException | None = None


class Flight:
    """One RPC and the calls that travel with it, in the order of their rows. `rpc` is its handle, to cancel it."""

    __slots__ = ("calls", "codec", "in_flight", "rpc", "sent")

    def __init__(self, calls: list[Call], sent: float, in_flight: int) -> None:
        self.calls = calls
        self.sent = sent
        self.in_flight = in_flight
        self.codec: Codec | None = None
        self.rpc: Any = None


class Window:
    """Waiting calls, first in, first out, and the number of RPCs that may take them.

    Calls with and without history wait in lanes of their own, since an RPC has the optional input for all of its users
    or for none; the lane whose first call is older goes first. While as many RPCs are under way as the limit allows,
    calls gather; otherwise they leave at once. So an idle client adds no wait, and RPCs grow with the load.
    """

    def __init__(self, options: Coalescing) -> None:
        self.limit = ConcurrencyLimit(options.max_in_flight)
        self.flights: set[Flight] = set()
        self.pending = 0
        self._max_pending = options.max_pending
        self._stored: deque[Call] = deque()  # without history: the server's stored one holds
        self._given: deque[Call] = deque()
        self._again: deque[deque[Call]] = deque()
        self._joined = 0
        self._size = 1
        self._alone: Flight | None = None

    def add(self, call: Call) -> None:
        """A call begins to wait. Raises OverloadedError if max_pending wait already."""
        if self.pending >= self._max_pending:
            raise OverloadedError(
                f"{self.pending} calls wait for the server already; allowed: Coalescing.max_pending={self._max_pending}"
            )
        self.pending += 1
        self._joined += 1
        call.turn = self._joined
        (self._stored if call.request.history is None else self._given).append(call)

    def add_again(self, calls: list[Call]) -> None:
        """Calls of a flight that the server refused, to be sent once more, apart from all others and before them."""
        for call in calls:
            call.flight = None
        self.pending += len(calls)
        self._again.append(deque(calls))

    def end(self, call: Call) -> None:
        """A call that waits or travels does so no more."""
        call.settled = True
        if call.flight is None:
            self.pending -= 1

    def waiting(self) -> list[Call]:
        """All waiting calls."""
        groups = (*self._again, self._stored, self._given)
        return [call for group in groups for call in group if not call.settled]

    def leave_by(self, call: Call) -> float:
        """The moment from which a waiting call is in a hurry."""
        return call.deadline - _HURRY * self.limit.latency

    def take(self, now: float, size: int, hurry: bool = False) -> tuple[Flight | None, list[Call]]:
        """The next RPC, with up to `size` calls, or None if nothing may leave; and the calls that are too late for it.

        These have ended. Too late is a call that would be answered after its deadline at the usual latency: the server's
        work on it would be lost for the others. hurry: one RPC more than the limit may go, for a call that must not wait
        longer.
        """
        self._size = size
        late: list[Call] = []
        calls: list[Call] = []
        if len(self.flights) < self.limit.allowed(now) + hurry:
            least = self.limit.latency if self.flights else 0.0
            while self.pending and not calls:
                self._pop(calls, late, now + least, size)
        if not calls:
            return None, late
        return self._send(calls, now), late

    def _pop(self, calls: list[Call], late: list[Call], before: float, size: int) -> None:
        """Moves calls out of the lane, or the group to be sent again, that is first in turn."""
        group = self._again[0] if self._again else self._first_lane()
        while group and len(calls) < size:
            call = group.popleft()
            if not call.settled:
                self.pending -= 1
                call.settled = call.deadline <= before
                (late if call.settled else calls).append(call)
        if self._again and not self._again[0]:
            self._again.popleft()

    def _first_lane(self) -> deque[Call]:
        if not self._stored or not self._given:
            return self._stored or self._given
        return min(self._stored, self._given, key=lambda lane: lane[0].turn)

    def _send(self, calls: list[Call], now: float) -> Flight:
        flight = Flight(calls, now, len(self.flights) + 1)
        for call in calls:
            call.flight = flight
        self._alone = None if self.flights else flight
        self.flights.add(flight)
        return flight

    def answered(self, flight: Flight, now: float) -> None:
        """A flight's answer came."""
        self.flights.discard(flight)
        self.limit.answered(
            len(flight.calls),
            now - flight.sent,
            flight.in_flight,
            alone=flight is self._alone,
            held_back=self.pending > 0,
            full=self.pending >= self._size,
            now=now,
        )

    def failed(self, flight: Flight) -> None:
        """A flight ended without an answer."""
        self.flights.discard(flight)
        self.limit.failed()

    def gave_up(self, flight: Flight) -> None:
        """A flight ended for a reason that says nothing of the server's load."""
        self.flights.discard(flight)

    def clear(self) -> list[Call]:
        """All calls that wait or travel, to be ended: no RPC will take them."""
        calls = self.waiting() + [call for flight in self.flights for call in flight.calls if not call.settled]
        self.flights.clear()
        for group in (self._again, self._stored, self._given):
            group.clear()
        return calls
