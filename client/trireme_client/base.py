"""What both clients are made of."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from .cache.answers import AnswerCache
from .cache.options import Cache, check_cache
from .errors import ValidationError
from .fallback import popular_instead, reason_of
from .hedging import Hedges, Hedging, check_hedge
from .options import (
    DEFAULT_TIMEOUT,
    Coalescing,
    Header,
    Timeout,
    check_coalescing,
    check_urls,
)
from .recommendations import Recommendations
from .recorder import Recorder, Recorders
from .request_log import RequestLog, check_request_log
from .requests import CheckedRequest, check_flag, check_names
from .session import Limit
from .targets import Call, Target, Targets, TargetState
from .telemetry import Telemetry
from .tls import TLS

Checked = CheckedRequest | ValidationError


class BaseClient:
    """For each server a session, and a coalescer if calls share RPCs; for all of them a cache, if answers are kept. Subclasses
    name the classes."""

    _session_type: Any
    _coalescer_type: Any
    _cache_type: Any

    def __init__(
        self,
        url: str | Sequence[str] = "localhost:8001",
        *,
        model: str = "recommend",
        model_version: str = "",
        timeout: Timeout | float | None = DEFAULT_TIMEOUT,
        tls: TLS | None = None,
        headers: Mapping[str, Header] | None = None,
        channel_options: Mapping[str, int | str] | None = None,
        coalescing: Coalescing | None = None,
        telemetry: Telemetry | None = None,
        fallback: bool = False,
        hedge: Hedging | None = None,
        cache: Cache | None = None,
        request_log: RequestLog | None = None,
    ) -> None:
        options = {
            "model": model,
            "model_version": model_version,
            "timeout": Timeout.of(timeout),
            "tls": tls,
            "headers": headers,
            "channel_options": channel_options,
            "telemetry": telemetry,
            "fallback": check_flag("fallback", fallback),
        }
        self._model = model
        self._falls_back = fallback
        checked = check_coalescing(coalescing)
        targets = [self._target(one, checked, options) for one in check_urls(url)]
        self._targets = Targets(targets, Timeout.of(timeout), self.__repr__)
        self._hedges = check_hedge(hedge, len(targets))
        self._request_log = check_request_log(request_log)
        kept = check_cache(cache)
        self._cache = None if kept is None else self._cache_type(kept, self._targets)
        if self._cache is not None:
            self._recorders.watch_cache(self._cache)

    def _target(self, url: str, coalescing: Coalescing | None, options: Mapping[str, Any]) -> Target:
        session = self._session_type(type(self).__name__, url, **options)
        return Target(session, None if coalescing is None else self._coalescer_type(session, coalescing))

    def __repr__(self) -> str:
        urls = ", ".join(target.session.url for target in self._targets.all)
        closed = " closed" if self.closed else ""
        return f"<{type(self).__name__} {urls} model={self._model!r}{closed}>"

    @property
    def targets(self) -> tuple[TargetState, ...]:
        """The servers in the order given: the url, whether it is asked now, and how much of it has not been answered."""
        return tuple(target.state for target in self._targets.all)

    @property
    def left_rpcs(self) -> int:
        """RPCs that nobody waits for any more and that the server has not answered yet: it computes for nobody."""
        return sum(target.left for target in self._targets.all)

    @property
    def hedged(self) -> int:
        """Calls so far that were asked of a second server; 0 without ``hedge``."""
        return 0 if self._hedges is None else self._hedges.taken

    @property
    def closed(self) -> bool:
        """Whether ``close`` was called."""
        return self._targets.closing

    @property
    def cache(self) -> AnswerCache | None:
        """The answers that are kept: ``counts`` of what became of calls, and ``forget`` for users; None without a cache."""
        cache: AnswerCache | None = self._cache
        return cache

    def _noted(self, requests: list[Checked]) -> list[Checked]:
        """Returns checked requests, which the log notes, and the errors of others, as they are."""
        return [self._note(request) if isinstance(request, CheckedRequest) else request for request in requests]

    def _note(self, request: CheckedRequest) -> CheckedRequest:
        """Returns a checked request, which the log notes."""
        if self._request_log is not None:
            self._request_log.note(request)
        return request

    def _known_names(self) -> Collection[str] | None:
        """Returns the names that a context may have; None as long as no server has told them."""
        codec = self._targets.known.session.codec
        return None if codec is None else codec.info.context

    def _check_names(
        self, requests: list[Checked], known: Collection[str], keeps_errors: bool = False
    ) -> list[Checked]:
        """See ``check_names``. A bundle that came meanwhile may know a name: later calls are checked by what is read then."""
        checked = check_names(requests, known, keeps_errors=True)
        pairs = zip(checked, requests, strict=True)
        wrong = [one for one, request in pairs if one is not request and isinstance(one, ValidationError)]
        if wrong:
            self._targets.known.session.read_again()
        if wrong and not keeps_errors:
            raise wrong[0]
        return checked

    @property
    def _recorders(self) -> Recorders:
        recorders: Recorders = self._targets.known.session.recorders
        return recorders

    def _hedges_for(self, recorder: Recorder) -> Hedges | None:
        """Returns what says when a call is asked of a second server; None if never. A ledger is of one server."""
        return None if recorder.wants_ledger else self._hedges

    def _second(self, call: Call, seconds: float | None) -> tuple[Target, Limit] | None:
        """Returns the second server of a call that has waited so long, and the time that is left; ``release`` it at the end.

        None if there is no other server that is asked now, or the budget is spent.
        """
        assert self._hedges is not None
        assert seconds is not None
        target = self._targets.second(call.target)
        if target is None:
            return None
        if not self._hedges.take():
            self._targets.release(target)
            return None
        call.target.session.recorders.hedged()
        return target, self._targets.time_left(call.timeout, time.monotonic() - seconds)

    def _answered(self, call: Call, winner: Target, seconds: float) -> None:
        """Notes the latency of a call, and which server was the faster: one that always loses may have stalled."""
        assert self._hedges is not None
        self._hedges.answered(seconds)
        if winner is not call.target:
            call.target.session.breaker.failed()

    def _instead(self, request: CheckedRequest, error: BaseException) -> Recommendations:
        """Returns what a call gets that is not answered. Raises ``error`` if that is not the matter, or there is nothing."""
        popular, reason = self._targets.popular, reason_of(error)
        if popular is None or reason is None:
            raise error
        return popular_instead(popular, request, reason)
