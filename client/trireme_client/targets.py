"""The servers of one client, and which of them a call goes to. It makes no RPC but for probes."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Generator, Sequence
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
    def outstanding(self) -> int:
        """See TargetState."""
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
    def closed(self) -> bool:
        """Whether its circuit breaker lets calls through."""
        return bool(self.session.breaker.state == "closed")

    @property
    def state(self) -> TargetState:
        """What the client's users see of it."""
        return TargetState(self.session.url, self.session.breaker.state, self.outstanding)


class Attempt(NamedTuple):
    """One try of a call: at which server, the time that it has, and the seconds to wait before."""

    target: Target
    timeout: Limit
    pause: float


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
        self._budget = Budget()
        self._lock = threading.Lock()
        self._in_progress = 0
        self._on_idle: Callable[[], object] | None = None

    @property
    def popular(self) -> Recommendations | None:
        """What is popular, by the first server that has told it."""
        return next((target.session.popular for target in self.all if target.session.popular is not None), None)

    @property
    def known(self) -> Target:
        """The first server whose model is known, or the first one."""
        return next((target for target in self.all if target.ready), self.all[0])

    def drain(self, on_idle: Callable[[], object]) -> None:
        """Lets no new call begin, and calls ``on_idle`` when those in progress have ended."""
        with self._lock:
            self.closing = True
            self._on_idle = on_idle
            idle = not self._in_progress
        if idle:
            on_idle()

    def attempts(self, timeout: Limit, each_rpc: bool = False) -> Generator[Attempt, None, None]:
        """Yields where to try a call, one after another; throwing an error in asks for the next one, or raises it again.

        Closing the generator ends the call.

        Args:
            timeout: the call's.
            each_rpc: whether the client's Timeout holds for each RPC anew.

        Raises:
            ClosedError: the client is closed.
        """
        self._begin()
        began, pause, limit = self._now(), 0.0, timeout
        tried: list[Target] = []
        try:
            while True:
                target = self._take(tried)
                ready = target.ready
                try:
                    yield Attempt(target, limit, pause)
                    return
                except TriremeError as error:
                    tried.append(target)
                    free = len(self.all) > 1 and _never_sent(error, ready or target.ready)
                    if len(tried) >= max(2, len(self.all)) or not (free or worth_a_retry(error)):
                        raise
                    pause = 0.0 if len(self.all) > 1 else self._chance.uniform(*_PAUSE)
                    if timeout is not ... or not each_rpc:
                        limit = self.left(timeout, began, connecting=not all(each.ready for each in tried))
                        if limit is not None and limit <= pause:
                            raise
                    if not free and not self._budget.take():
                        raise
                finally:
                    self.release(target)
        finally:
            self._end()

    def left(self, timeout: Limit, began: float, connecting: bool = False) -> float | None:
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
            others = [target for target in self.all if target is not first and target.ready and target.closed]
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

    def _begin(self) -> None:
        with self._lock:
            if self.closing:
                raise ClosedError(f"{self._owner()} cannot be used any more: make a new client")
            self._in_progress += 1
        self._budget.called()

    def _end(self) -> None:
        with self._lock:
            self._in_progress -= 1
            idle = self.closing and not self._in_progress
        if idle and self._on_idle is not None:
            self._on_idle()

    def _take(self, tried: Sequence[Target]) -> Target:
        with self._lock:
            target = self.all[0] if len(self.all) == 1 else self._choose(tried)
            target.calls += 1
            return target

    def _choose(self, tried: Sequence[Target]) -> Target:
        """Returns one of those not tried whose breaker is closed. Where all are open, that is no reason not to ask."""
        self._probe()
        untried = [target for target in self.all if target not in tried]
        closed = [target for target in untried if target.closed]
        return self._less_busy([target for target in closed if target.ready] or closed or untried)

    def _less_busy(self, targets: Sequence[Target]) -> Target:
        """Returns the less busy one of two by chance ("The Power of Two Choices in Randomized Load Balancing", Mitzenmacher,
        2001)."""
        two = self._chance.sample(targets, min(2, len(targets)))
        return min(two, key=lambda target: target.outstanding)

    def _probe(self) -> None:
        """Begins to ask those that are not asked and may be again, and those that are not connected while another one is."""
        connected = any(target.ready and target.closed for target in self.all)
        for target in self.all:
            breaker = target.session.breaker
            if breaker.due() or (connected and not target.ready and target.closed):
                breaker.probe()
                target.session.probe()


def _never_sent(error: TriremeError, connected: bool) -> bool:
    """Returns whether a server never got the request, so that asking another one adds nothing to anyone's load.

    connected: whether that server's model was known before or after the try; if not, it was read first.
    """
    if isinstance(error, ConnectError):
        return not error.sent
    return isinstance(error, TimeoutError) and not connected
