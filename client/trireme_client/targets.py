"""The servers of one client, and which of them a call goes to. It makes no RPC but for probes."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Sequence
from types import EllipsisType
from typing import Any, NamedTuple

from .breaker import State
from .errors import ClosedError, ConnectError, TimeoutError, TriremeError
from .options import Timeout
from .recommendations import Recommendations
from .retries import Budget, worth_a_retry
from .session import Limit

# Seconds until a call is tried again at the only server: enough to connect anew.
_PAUSE = 0.05, 0.15


class TargetState(NamedTuple):
    """One server of a client.

    Attributes:
        url: as given to the client.
        state: of its circuit breaker: "closed" if it is asked, "open" if not, "half_open" while a probe finds out.
        outstanding: calls that wait for it, and RPCs that nobody waits for any more and that it has not answered yet.
    """

    url: str
    state: State
    outstanding: int


class Target:
    """One server: the session with it, the coalescer if calls share RPCs, and how many calls wait for it."""

    __slots__ = ("calls", "coalescer", "session")

    def __init__(self, session: Any, coalescer: Any) -> None:
        self.session, self.coalescer = session, coalescer
        self.calls = 0

    @property
    def load(self) -> int:
        """How busy it is, compared with others: what is outstanding, and all RPCs that calls share, which is fast to count."""
        coalesced = 0 if self.coalescer is None else len(self.coalescer.flights.in_flight)
        return self.calls + len(self.session.left) + coalesced

    @property
    def left(self) -> int:
        """RPCs that nobody waits for any more and that the server has not answered yet."""
        return len(self.session.left) + (0 if self.coalescer is None else self.coalescer.flights.left)

    @property
    def ready(self) -> bool:
        """Whether the model's dimensions are known."""
        return self.session.codec is not None

    @property
    def healthy(self) -> bool:
        """Whether its circuit breaker is closed."""
        return bool(self.session.breaker.state == "closed")

    @property
    def state(self) -> TargetState:
        """What the client's users see of it."""
        return TargetState(self.session.url, self.session.breaker.state, self.calls + self.left)


class Call:
    """One call of a client, and its tries.

    Attributes:
        target: the server of this try.
        timeout: the time that this try has.
    """

    __slots__ = ("_began", "_each_rpc", "_ready", "_targets", "_timeout", "_tried", "target", "timeout")

    def __init__(self, targets: Targets, target: Target, timeout: Limit, each_rpc: bool, began: float) -> None:
        self._targets, self._timeout, self._each_rpc, self._began = targets, timeout, each_rpc, began
        self._tried: list[Target] = []
        self.target, self.timeout = target, timeout
        self._ready = target.ready

    def again(self, error: TriremeError) -> float:
        """Goes on to the next try after this one has failed, and returns the seconds to wait before it.

        Raises:
            TriremeError: the same error, if there is no other try.
        """
        several = len(self._targets.all) > 1
        self._tried.append(self.target)
        free = several and _never_sent(error, self._ready or self.target.ready)
        if len(self._tried) >= max(2, len(self._targets.all)) or not (free or worth_a_retry(error)):
            raise error
        pause = 0.0 if several else self._targets.pause()
        if self._timeout is not ... or not self._each_rpc:
            connecting = not all(each.ready for each in self._tried)
            self.timeout = left = self._targets.time_left(self._timeout, self._began, connecting)
            if left is not None and left <= pause:
                raise error
        if not free and not self._targets.budget.take():
            raise error
        self.target.session.recorders.retried(error)
        self.target = self._targets.move(self.target, self._tried)
        self._ready = self.target.ready
        return pause


class Targets:
    """All servers of a client, and the calls in progress.

    Args:
        targets: one or more.
        timeout: the client's.
        owner: describes the client.
        now: the clock, seconds.
        chance: random numbers.
    """

    def __init__(
        self,
        targets: Sequence[Target],
        timeout: Timeout,
        owner: Callable[[], str],
        now: Callable[[], float] = time.monotonic,
        chance: random.Random | None = None,
    ) -> None:
        self.all = tuple(targets)
        self.closing = False
        self._timeout, self._owner, self._now = timeout, owner, now
        self._chance = chance or random.Random()
        self.budget = Budget()
        self._lock = threading.Lock()
        self._in_progress = 0
        self._on_idle: list[Callable[[], object]] = []

    @property
    def popular(self) -> Recommendations | None:
        """What is popular, by the first server that has told it."""
        return next((target.session.popular for target in self.all if target.session.popular is not None), None)

    @property
    def known(self) -> Target:
        """The first server whose model is known, or the first one."""
        for target in self.all:
            if target.ready:
                return target
        return self.all[0]

    def drain(self, on_idle: Callable[[], object]) -> None:
        """Lets no new call begin, and calls ``on_idle`` when those in progress have ended."""
        with self._lock:
            self.closing = True
            self._on_idle.append(on_idle)
            idle = not self._in_progress
        if idle:
            on_idle()

    def check_open(self) -> None:
        """Raises ClosedError if the client is closed."""
        if self.closing:
            raise ClosedError(f"{self._owner()} cannot be used any more: make a new client")

    def begin(self, timeout: Limit, each_rpc: bool = False) -> Call:
        """Begins a call; ``end`` follows.

        Args:
            timeout: the call's.
            each_rpc: whether the client's Timeout holds for each RPC anew.

        Raises:
            ClosedError: the client is closed.
        """
        self.budget.called()
        with self._lock:
            self.check_open()
            self._in_progress += 1
            target = self.all[0] if len(self.all) == 1 else self._choose(())
            target.calls += 1
        return Call(self, target, timeout, each_rpc, self._now())

    def end(self, call: Call) -> None:
        """Notes that a call has ended."""
        with self._lock:
            call.target.calls -= 1
            self._in_progress -= 1
            idle = self.closing and not self._in_progress
        if idle:
            for on_idle in self._on_idle:
                on_idle()

    def move(self, target: Target, tried: Sequence[Target]) -> Target:
        """Returns the server of the next try of a call."""
        with self._lock:
            target.calls -= 1
            target = self.all[0] if len(self.all) == 1 else self._choose(tried)
            target.calls += 1
            return target

    def pause(self) -> float:
        """Returns the seconds until a call is tried again at the only server."""
        return self._chance.uniform(*_PAUSE)

    def time_left(self, timeout: Limit, began: float, connecting: bool = False) -> float | None:
        """Returns the seconds left to a call that began at that moment; None if there is no limit."""
        seconds = self._timeout.request if isinstance(timeout, EllipsisType) else timeout
        if seconds is None:
            return None
        if isinstance(timeout, EllipsisType) and connecting:
            if self._timeout.connect is None:
                return None
            seconds += self._timeout.connect
        return seconds - (self._now() - began)

    def second(self, first: Target) -> Target | None:
        """Takes a server to be asked beside the first one, as ``release`` says; None if no other one is ready."""
        with self._lock:
            others = [target for target in self.all if target is not first and target.ready and target.healthy]
            if not others:
                return None
            target = self._less_busy(others)
            target.calls += 1
            return target

    def hold(self, target: Target) -> None:
        """Notes that an RPC goes on for which its call does not wait; ``release`` follows."""
        with self._lock:
            target.calls += 1

    def release(self, target: Target) -> None:
        """Notes that nothing of one call waits for a server any more."""
        with self._lock:
            target.calls -= 1

    def _choose(self, tried: Sequence[Target]) -> Target:
        """Returns one of those not tried whose breaker is closed. Where all are open, that is no reason not to ask."""
        self._probe()
        untried = [target for target in self.all if target not in tried]
        closed = [target for target in untried if target.healthy]
        return self._less_busy([target for target in closed if target.ready] or closed or untried)

    def _less_busy(self, targets: Sequence[Target]) -> Target:
        """Returns the less busy one of two by chance ("The Power of Two Choices in Randomized Load Balancing", Mitzenmacher,
        2001)."""
        two = self._chance.sample(targets, min(2, len(targets)))
        return min(two, key=lambda target: target.load)

    def _probe(self) -> None:
        """Begins to ask those that are not asked and may be again, and those that are not connected while another one is."""
        connected = any(target.ready and target.healthy for target in self.all)
        for target in self.all:
            breaker = target.session.breaker
            if breaker.due() or (connected and not target.ready and target.healthy):
                breaker.probe()
                target.session.probe()


def _never_sent(error: TriremeError, connected: bool) -> bool:
    """Returns whether a server never got the request, so that asking another one adds nothing to anyone's load.

    connected: whether that server's model was known before or after the try; if not, it was read first.
    """
    if isinstance(error, ConnectError):
        return not error.sent
    return isinstance(error, TimeoutError) and not connected
