"""The calls that wait to share an RPC, and the RPCs in flight. No I/O, and the time is passed in."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from typing import Any

from .codec import MOST_IN_BACKGROUND, Codec
from .concurrency import ConcurrencyLimit, SizeLimit
from .deadlines import Deadlines
from .errors import OverloadedError
from .options import Coalescing
from .recommendations import Recommendations
from .recorder import NO_CALL, Recorder
from .requests import CheckedRequest

# An RPC in flight no longer counts against the limit after this many usual latencies, but not before so many seconds; and
# before the first answer, when no latency is known, after so many. So one that never ends does not hold up the others.
_STUCK, _STUCK_LEAST, _STUCK_UNKNOWN = 5.0, 0.1, 1.0

# Seconds without an RPC in the background after one that the server let give way, doubled each time, at most: the answers to
# those take the server's time as well.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.01, 0.5


@dataclass(slots=True, eq=False)
class Call:
    """One caller's request, from when it joins until it is settled.

    Attributes:
        deadline: a moment of the clock, infinity for none.
        seconds: the time allowed until then.
        connecting: whether that time is for reading the model's dimensions; it starts anew after that.
        waiter: what the caller waits on.
        recorder: what records the call.
        flight: the RPC that carries it, None before.
    """

    request: CheckedRequest
    deadline: float
    seconds: float | None
    connecting: bool
    waiter: Any
    recorder: Recorder = NO_CALL
    flight: Flight | None = None
    settled: bool = False
    result: Recommendations | BaseException | None = None


@dataclass(slots=True)
class Retries:
    """How many RPCs more the calls of one refused RPC may take, all of them together."""

    left: int


@dataclass(slots=True, eq=False)
class Flight:
    """One RPC and the calls that it carries, in the order of their rows.

    Attributes:
        sent: the moment of the clock when it left.
        in_flight: RPCs in flight at that moment that counted against the limit, itself included.
        retries: what is left to its calls if they are sent again already, None for calls sent for the first time.
        rpc: its handle, which has a method ``cancel``.
    """

    calls: list[Call]
    sent: float
    in_flight: int
    retries: Retries | None = None
    codec: Codec | None = None
    rpc: Any = None


class Flights:
    """The calls that wait, and the RPCs in flight that carry the others.

    They leave first in, first out, until the oldest has waited for half of its time: then the newest leave first ("adaptive
    LIFO", Maurer, Fail at Scale, 2015). Where more come than the server can answer, some are late whatever is done, and in turn
    all would be answered just after their deadlines. Calls in the background wait in a lane of their own and leave last, few at a
    time, and not at all for a while after the server has let some of them give way.

    Calls gather while as many RPCs are in flight as the limit allows, and otherwise leave at once. So an idle client adds
    no wait, and RPCs grow with the load.

    Attributes:
        limit: how many RPCs may be in flight.
        users: how many users each may have.
        in_flight: those that are.
    """

    def __init__(self, options: Coalescing) -> None:
        self.limit = ConcurrencyLimit(options.max_in_flight)
        self.users = SizeLimit()
        self.in_flight: set[Flight] = set()
        self._pending = [0, 0]  # of both lanes
        self._max_pending = options.max_pending
        # Stuck ones included: with so many of them, the server hangs.
        self._most_in_flight = 2 * options.max_in_flight
        self._lanes: tuple[deque[Call], deque[Call]] = (deque(), deque())  # the second: in the background
        self._pause, self._paused_until = _FIRST_PAUSE, -math.inf  # of the second lane
        self._again: deque[tuple[deque[Call], Retries]] = deque()
        self._deadlines = Deadlines[Call](lambda call: not call.settled)
        self._most_users = self._size = 1
        self._alone: Flight | None = None

    @property
    def pending(self) -> int:
        """The number of calls that wait."""
        return sum(self._pending)

    def add(self, call: Call) -> None:
        """Lets a call wait. Raises OverloadedError if max_pending calls wait already; those in the background count for
        each other only."""
        background = call.request.background
        pending = self.pending if background else self._pending[0]
        if pending >= self._max_pending:
            raise OverloadedError(
                f"{pending} calls wait for the server already; allowed: Coalescing.max_pending={self._max_pending}"
            )
        self._pending[background] += 1
        self._lanes[background].append(call)
        self.note_deadline(call)

    def note_deadline(self, call: Call) -> None:
        """Notes the deadline of a call that waits."""
        self._deadlines.add(call)

    def add_again(self, calls: list[Call], retries: Retries) -> None:
        """Lets calls of a refused flight wait again, to be sent apart from all others and before them."""
        for call in calls:
            call.flight = None
            self._pending[call.request.background] += 1
        self._again.append((deque(calls), retries))

    def end(self, call: Call) -> None:
        """Settles a call, whether it waits or is in flight."""
        call.settled = True
        if call.flight is None:
            self._pending[call.request.background] -= 1

    @property
    def left(self) -> int:
        """How many RPCs in flight nobody waits for any more."""
        return sum(all(call.settled for call in flight.calls) for flight in tuple(self.in_flight))

    def waiting(self) -> list[Call]:
        """Returns the calls that wait."""
        groups = (*(calls for calls, _ in self._again), *self._lanes)
        return [call for group in groups for call in group if not call.settled]

    def overdue(self, now: float) -> list[Call]:
        """Returns the calls whose deadline has passed, waiting or in flight, and settles them."""
        calls = []
        while (call := self._deadlines.first()) is not None and call.deadline <= now:
            self.end(call)
            calls.append(call)
        return calls

    def next_look(self, now: float) -> float:
        """Returns the moment of the next deadline, or when calls may leave though no answer has come."""
        moments = [math.inf]
        if (call := self._deadlines.first()) is not None:
            moments.append(call.deadline)
        if self.pending:
            moments.append(self.next_turn(now))
        return min(moments)

    def next_turn(self, now: float) -> float:
        """Returns the moment when calls may leave though no answer has come: the next RPC in flight counts as stuck, or the pause
        of those in the background is over. Infinity if there is none."""
        after = self._stuck_after()
        moments = [flight.sent + after for flight in self.in_flight]
        if self._pending[1]:
            moments.append(self._paused_until)
        return min((moment for moment in moments if moment > now), default=math.inf)

    def _stuck_after(self) -> float:
        latency = self.limit.latency
        return max(_STUCK_LEAST, _STUCK * latency) if latency else _STUCK_UNKNOWN

    def _counted(self, now: float) -> int:
        """Returns how many RPCs in flight count against the limit."""
        after = self._stuck_after()
        return sum(flight.sent + after > now for flight in self.in_flight)

    def take(self, now: float, most: int) -> tuple[Flight | None, list[Call]]:
        """Takes waiting calls for the next RPC, and settles those that are too late for it.

        A call is too late if, at the usual latency, its answer would come after its deadline: the server would work on
        it for nothing while the others wait.

        Args:
            now: the moment of the clock.
            most: users that the server takes in one RPC.

        Returns:
            The flight, None if nothing may leave; and the calls that are too late.
        """
        self._most_users, self._size = most, self.users.allowed(most)
        late: list[Call] = []
        calls: list[Call] = []
        retries = None
        counted = self._counted(now)
        if counted < self.limit.allowed(now) and len(self.in_flight) < self._most_in_flight:
            least = self.limit.latency if counted else 0.0
            while not calls and self._has_turn(now):
                retries = self._pop(calls, late, now + least)
        if not calls:
            return None, late
        return self._send(calls, retries, counted, now), late

    def _has_turn(self, now: float) -> bool:
        """Returns whether there are calls that may leave, or are still in a lane though they are settled."""
        return bool(self._again or self._lanes[0] or (self._lanes[1] and now >= self._paused_until))

    def _pop(self, calls: list[Call], late: list[Call], before: float) -> Retries | None:
        """Moves calls out of the group to be sent again whose turn it is, or else out of the first lane with calls."""
        group, retries = self._again[0] if self._again else (self._lanes[0] or self._lanes[1], None)
        newest: list[Call] = []
        size = min(self._size, MOST_IN_BACKGROUND) if group is self._lanes[1] else self._size
        while group and len(calls) + len(newest) < size:
            if group[0].settled:  # such as those that were overtaken: nobody else takes them away
                group.popleft()
                continue
            overtaken = retries is None and _is_overtaken(group[0], before)
            call = group.pop() if overtaken else group.popleft()
            if not call.settled:
                self._pending[call.request.background] -= 1
                call.settled = call.deadline <= before
                (late if call.settled else newest if overtaken else calls).append(call)
        calls += reversed(newest)
        if self._again and not self._again[0][0]:
            self._again.popleft()
        return retries

    def _send(self, calls: list[Call], retries: Retries | None, counted: int, now: float) -> Flight:
        flight = Flight(calls, now, counted + 1, retries)
        for call in calls:
            call.flight = flight
        self._alone = None if counted else flight
        self.in_flight.add(flight)
        return flight

    def answered(self, flight: Flight, now: float) -> None:
        """Ends a flight whose answer came."""
        self.in_flight.discard(flight)
        seconds = min((call.seconds for call in flight.calls if call.seconds is not None), default=math.inf)
        slope = self.limit.baseline.slope
        self.users.answered(len(flight.calls), now - flight.sent, seconds, self._most_users, slope)
        self.limit.answered(
            len(flight.calls),
            now - flight.sent,
            flight.in_flight,
            alone=flight is self._alone,
            held_back=self.pending > 0,
            full=self.pending >= self._size,
            now=now,
        )

    def gave_way(self, some: bool, now: float) -> None:
        """Notes whether the server let some calls of an RPC in the background give way."""
        if not some:
            self._pause = _FIRST_PAUSE
        elif now >= self._paused_until:
            self._paused_until = now + self._pause
            self._pause = min(2 * self._pause, _LONGEST_PAUSE)

    def failed(self, flight: Flight) -> None:
        """Ends a flight that was not answered."""
        self.in_flight.discard(flight)
        self.limit.failed()

    def gave_up(self, flight: Flight) -> None:
        """Ends a flight for a reason that is no sign of the server's load."""
        self.in_flight.discard(flight)

    def clear(self) -> list[Call]:
        """Empties this; returns the calls that waited or were in flight, which are not settled yet."""
        calls = self.waiting() + [call for flight in self.in_flight for call in flight.calls if not call.settled]
        self.in_flight.clear()
        self._again.clear()
        for lane in self._lanes:
            lane.clear()
        return calls


def _is_overtaken(call: Call, now: float) -> bool:
    """Returns whether newer calls leave before this one, the oldest that waits."""
    return call.seconds is not None and call.deadline - now < call.seconds / 2
