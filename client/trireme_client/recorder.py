"""Recorders of calls and RPCs. A call takes the same path whether it is recorded or not: the base classes do nothing.

``CallClock`` here takes the times of a call's ledger; the recorders for OpenTelemetry are in ``spans``.
"""

from __future__ import annotations

import time
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, Protocol

from .breaker import HasBreaker, State
from .errors import TriremeError
from .ledger import CallLedger
from .model import STAGES
from .recommendations import Recommendations
from .rpc import Rpc

if TYPE_CHECKING:
    from opentelemetry.trace import Span

# A cache keeps answers, or it is deaf: it cannot hear what users do, and keeps none until it can.
CacheState = Literal["keeps", "deaf"]


class WatchedCache(Protocol):
    """A cache, as far as metrics know it.

    Attributes:
        counts: its ``CacheCounts``.
        state: whether answers are kept.
        closed: whether its client is closed.
    """

    @property
    def counts(self) -> Any: ...
    @property
    def state(self) -> CacheState: ...
    @property
    def closed(self) -> bool: ...


class Recorder:
    """Records one call, as a ``with`` block around it; this one records nothing.

    Attributes:
        wants_ledger: whether the parts of the call and the stages of the server are recorded.
        sampled: the spans that an RPC of this call belongs to: none or one.
    """

    __slots__ = ()
    wants_ledger: bool = False
    sampled: tuple[Span, ...] = ()

    def __enter__(self) -> Recorder:
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        pass

    def ended(self, part: str) -> None:
        """Notes that a part of the call has ended and the next one begins."""

    def served(self, row: list[int]) -> None:
        """Notes the server's row of the ledger: users and requests in the batch, and the ns of every stage."""

    def cached(self, found: str) -> None:
        """Notes what a cache had for the call: "hit", "stale", "miss", "shared" with an equal call, or in the "store"."""

    def read(self, outcome: str, seconds: float) -> None:
        """Notes how long the call waited for Redis, which had the answer ("hit") or not ("miss"), or did not tell ("error")."""

    def answered(self, result: Recommendations) -> Recommendations:
        """Notes the result of a ``recommend``; returns it with what was recorded."""
        return result


class CallClock(Recorder):
    """Times the parts of one call, which begins when this is made, and passes all else on to another recorder."""

    __slots__ = ("_last", "_other", "_parts", "_served", "_start", "sampled")
    wants_ledger = True

    def __init__(self, other: Recorder) -> None:
        self._other = other
        self.sampled = other.sampled
        self._parts: dict[str, float] = {}
        self._served: list[int] = []
        self._start = self._last = time.perf_counter_ns()

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        self._other.__exit__(kind, error, traceback)

    def ended(self, part: str) -> None:
        now = time.perf_counter_ns()
        self._parts[part] = self._parts.get(part, 0.0) + (now - self._last) / 1e3
        self._last = now

    def served(self, row: list[int]) -> None:
        self._served = row

    def cached(self, found: str) -> None:
        self._other.cached(found)

    def read(self, outcome: str, seconds: float) -> None:
        self._other.read(outcome, seconds)

    def answered(self, result: Recommendations) -> Recommendations:
        total = (time.perf_counter_ns() - self._start) / 1e3
        users, requests, *stages = self._served or (0, 0)
        spent = {name: ns / 1e3 for name, ns in zip(STAGES, stages, strict=False)}
        ledger = CallLedger(total, self._parts, spent, users, requests)
        return self._other.answered(replace(result, ledger=ledger))


class RpcRecorder:
    """Records one RPC, as a ``with`` block around the wait for its answer; this one records nothing.

    Attributes:
        headers: added to gRPC's metadata.
    """

    __slots__ = ()
    headers: tuple[tuple[str, str], ...] = ()

    def __enter__(self) -> RpcRecorder:
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        pass

    def starting(self) -> AbstractContextManager[object]:
        """Returns a ``with`` block around the start of an RPC that is waited for later."""
        return self

    def future(self, call: Any) -> Any:
        """Follows an RPC in flight, a gRPC future, and returns it."""
        return call

    def awaitable(self, call: Any) -> Any:
        """Follows an RPC in flight, an asyncio call of gRPC; returns what to await or to cancel in its place."""
        return call


NO_CALL = Recorder()
NO_RPC = RpcRecorder()


class Recorders:
    """Makes the recorders of one client at one server; these record nothing but the ledgers that are asked for.

    Attributes:
        slo_s: seconds within which 99 of 100 requests are to be answered, by the bundle's budget; None as long as
            that is not known, or if the bundle has no budget.
    """

    slo_s: float | None = None

    def recommend(self, ledger: bool) -> Recorder:
        """Begins a call of ``recommend``."""
        return CallClock(NO_CALL) if ledger else NO_CALL

    def recommend_many(self) -> Recorder:
        """Begins a call of ``recommend_many``."""
        return NO_CALL

    def rpc(self, rpc: Rpc) -> RpcRecorder:
        """Begins an RPC that serves one or more sampled calls."""
        return NO_RPC

    def watch(self, session: HasBreaker) -> None:
        """Reports the state of the server's circuit breaker as long as the session is open."""

    def watch_cache(self, cache: WatchedCache) -> None:
        """Reports what a cache gives and keeps."""

    def breaker_became(self, state: State) -> None:
        """Notes that the breaker has changed."""

    def retried(self, error: TriremeError) -> None:
        """Notes that a call that ended in an error here is tried again."""

    def hedged(self) -> None:
        """Notes that a call for which this server was slow is asked of a second one."""
