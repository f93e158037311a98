"""The client for threads."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Generator, Iterable, Mapping, Sequence
from functools import partial
from queue import Empty, SimpleQueue
from types import EllipsisType
from typing import Any, Literal, overload

from .base import BaseClient
from .cache.threads import ThreadCache
from .errors import TriremeError
from .many import Many
from .model import ModelInfo
from .options import check_grace
from .recommendations import Recommendations
from .recorder import Recorder
from .requests import (
    Anonymous,
    CheckedRequest,
    ContextValue,
    Ids,
    Request,
    check_arguments,
    check_requests,
)
from .rpc import T
from .session import Limit
from .sync_coalescer import SyncCoalescer
from .sync_session import SyncSession
from .sync_stream import stream_lists
from .targets import Call, Target
from .workers import WORKERS, Job


class Client(BaseClient):
    """Asks a Triton server for recommendations. Use it in a ``with`` block, or call ``close`` at the end.

    Making a client does not connect. The first call connects and reads the model's dimensions from the server. They
    are read again when another version answers, in the background, or when the server refuses a request.

    One client serves all threads of a process, over one connection. Make it after a fork, not before.

    Args:
        url: "host:port" of Triton's gRPC endpoint, or a gRPC target; or a sequence of them, whose servers all have the model.
        model: the entry model.
        model_version: its version, such as "3"; "" follows the newest.
        timeout: a Timeout, or seconds for both of its limits, or None for no limit but the 60 s after which any RPC is
            given up. The default is 2 s for a request, and 5 s to connect.
        tls: the certificates; None for a connection without encryption. New connections use files that were replaced.
        headers: sent with every RPC. A value is a string, or a callable that returns one at once, such as a token that
            has to be renewed: it is called for every RPC, from any thread.
        channel_options: gRPC's, such as {"grpc.keepalive_time_ms": 30000}; they add to this client's own or replace them.
        coalescing: lets concurrent calls of ``recommend`` share RPCs, which is far cheaper under load for client and
            server; None makes one RPC per call.
        telemetry: reports every call to OpenTelemetry.
        fallback: answers a call that the server does not answer with popular items, which the client has got when it connected:
            rung POPULAR, reason DEADLINE, OVERLOAD or FAULT. Without it, or before they are known, the call raises its error.
        hedge: asks a second server as well if the first is slow to answer; needs several urls.
        cache: keeps complete answers, and gives them to equal calls; None asks the server every time.
        request_log: notes who asks and when in a file, for `trireme perf cache`.

    Raises:
        ValidationError: an argument is wrong.
    """

    _session_type = SyncSession
    _coalescer_type = SyncCoalescer
    _cache_type = ThreadCache

    def recommend(
        self,
        user_id: int | Anonymous | None = None,
        k: int = 10,
        *,
        history: Sequence[int] | Ids | None = None,
        exclude: Sequence[int] | Ids | None = None,
        background: bool = False,
        context: Mapping[str, ContextValue] | None = None,
        timeout: float | None | EllipsisType = ...,
        ledger: bool = False,
    ) -> Recommendations:
        """Returns the k best items for one user.

        Args:
            user_id: see Request, as for k, history, exclude, background and context.
            timeout: seconds for the whole call, None for no limit; left out, the client's Timeout holds.
            ledger: reports in the answer where the time of this call went.

        Raises:
            ValidationError: an argument is wrong; nothing was sent.
            TriremeError: any other failure (see ``errors``).
        """
        with self._recorders.recommend(ledger) as recorder:
            request = self._note(check_arguments(user_id, k, history, exclude, background, context=context))
            recorder.ended("validate")
            try:
                if request.context:
                    self._check_names([request], self._context_names(timeout))
                if self._cache is None:
                    result = self._served(request, recorder, timeout)
                else:
                    result = self._cache.recommend(request, recorder, timeout, self._served)
            except TriremeError as error:
                result = self._instead(request, error)
            return recorder.answered(result)

    def recommend_stream(
        self,
        user_id: int | Anonymous | None = None,
        k: int = 10,
        *,
        history: Sequence[int] | Ids | None = None,
        exclude: Sequence[int] | Ids | None = None,
        background: bool = False,
        context: Mapping[str, ContextValue] | None = None,
        timeout: float | None | EllipsisType = ...,
    ) -> Generator[Recommendations, None, None]:
        """Asks the model `recommend_stream` for one user, and yields up to two lists as they come.

        The first one has the reason PRELIMINARY and the order of retrieval, the second one is what ``recommend`` returns. Where
        that is not a ranked one, such as for a user of whom nothing is known, it is the only one.

        Such a call goes to one server once: it shares no RPC, is not hedged, not tried again, not kept in a cache, and not
        reported to OpenTelemetry. Closing the iterator early is allowed; a server before Triton 2.57 answers all the same.

        Args:
            user_id: as for ``recommend``, like the others.
            timeout: seconds for both lists together.

        Raises:
            ValidationError: an argument is wrong; nothing was sent. For a name of the context that the model does not know, it is
                raised when the iterator is advanced, as all that follow.
            ModelNotFoundError: the server has no such model.
            TriremeError: any other failure (see ``errors``).
        """
        request = self._note(check_arguments(user_id, k, history, exclude, background, context=context))
        return stream_lists(self._targets, request, timeout, self._instead)

    def _served(self, request: CheckedRequest, recorder: Recorder, timeout: Limit) -> Recommendations:
        """Returns the answer of a server, by one or more tries."""
        call = self._targets.begin(timeout)
        try:
            return self._ask(request, recorder, call)
        except TriremeError as error:
            return self._again(partial(self._ask, request, recorder), call, error)
        finally:
            self._targets.end(call)

    def _ask(self, request: CheckedRequest, recorder: Recorder, call: Call) -> Recommendations:
        """Returns the answer of one try."""
        hedges = self._hedges_for(recorder)
        if hedges is not None:
            return self._hedged(request, recorder, call, hedges.delay())
        return self._ask_at(call.target, request, recorder, call.timeout)

    def _ask_at(self, target: Target, request: CheckedRequest, recorder: Recorder, timeout: Limit) -> Recommendations:
        if target.coalescer is not None:
            shared: Recommendations = target.coalescer.recommend(request, timeout, recorder)
            return shared
        return self._ask_alone(target.session, request, recorder, timeout)

    def _ask_alone(
        self, session: SyncSession, request: CheckedRequest, recorder: Recorder, timeout: Limit
    ) -> Recommendations:
        result: Recommendations
        (result,) = session.run(session.recommend_steps([request], timeout, recorder))
        return result

    def _again(self, ask: Callable[[Call], T], call: Call, error: TriremeError) -> T:
        while True:
            pause = call.again(error)
            if pause:
                time.sleep(pause)
            try:
                return ask(call)
            except TriremeError as another:
                error = another

    def _hedged(self, request: CheckedRequest, recorder: Recorder, call: Call, delay: float | None) -> Recommendations:
        """Returns the answer of one server, or of the faster one of two if the first takes longer than the delay."""
        began = time.monotonic()
        ended: SimpleQueue[Job] = SimpleQueue()

        def start(target: Target, timeout: Limit) -> Job:
            """Asks in a thread, which goes on after this call has ended with the answer of another server."""
            job = Job()
            job.add_done_callback(lambda _: self._targets.release(target))
            job.add_done_callback(ended.put)
            WORKERS.start(job, partial(self._ask_at, target, request, recorder, timeout))
            return job

        self._targets.hold(call.target)
        tries = {start(call.target, call.timeout): call.target}
        try:
            job = ended.get(timeout=delay)
        except Empty:
            second = self._second(call, delay)
            if second is not None:
                tries[start(*second)] = second[0]
            job = ended.get()
            if job.failed and second is not None:
                job = ended.get()
        result: Recommendations = job.result()
        self._answered(call, tries[job], time.monotonic() - began)
        return result

    @overload
    def recommend_many(
        self,
        requests: Iterable[Request],
        *,
        timeout: float | None | EllipsisType = ...,
        return_errors: Literal[False] = False,
    ) -> list[Recommendations]: ...
    @overload
    def recommend_many(
        self, requests: Iterable[Request], *, timeout: float | None | EllipsisType = ..., return_errors: Literal[True]
    ) -> list[Recommendations | TriremeError]: ...
    def recommend_many(
        self,
        requests: Iterable[Request],
        *,
        timeout: float | None | EllipsisType = ...,
        return_errors: bool = False,
    ) -> list[Any]:
        """Returns the answers for several users in the order asked: far cheaper for the server than one at a time.

        An RPC takes up to the model's max_batch_size users; a few RPCs are in flight at a time. If one RPC fails, the call
        raises that error and drops the other answers, unless ``return_errors`` is set. Nothing was changed on the server,
        so the whole call can be repeated.

        Args:
            requests: the users; all of them are checked before anything is sent.
            timeout: seconds for all of them together, None for no limit; left out, the client's Timeout holds for each
                RPC.
            return_errors: puts errors in the place of answers, so that one failure costs only the users of its RPC. Without
                a connection, or without the model, there are no answers at all: those errors are raised.

        Raises:
            ValidationError: a request is wrong; the message names its position.
            TriremeError: any other failure (see ``errors``).
        """
        with self._recorders.recommend_many() as recorder:
            checked = check_requests(requests, return_errors)
            if any(isinstance(each, CheckedRequest) and each.context for each in checked):
                checked = self._check_names(checked, self._context_names(timeout), return_errors)
            many = Many(self._noted(checked), self._cache)
            keeps_errors = return_errors or self._falls_back
            try:
                self._tried(partial(self._ask_many, many, recorder, keeps_errors), timeout)
            except TriremeError as error:
                many.failed(error, self._falls_back)
            return many.results(self._instead, return_errors)

    def _ask_many(self, many: Many, recorder: Recorder, keeps_errors: bool, call: Call) -> None:
        session = call.target.session
        steps = session.recommend_steps(many.asked, call.timeout, recorder, keeps_errors)
        many.came(session.run(steps))

    def _context_names(self, timeout: Limit) -> Collection[str]:
        """Returns the names that a context may have, which the first call that needs them reads from the server."""
        names = self._known_names()
        return self.model_info(timeout=timeout).context if names is None else names

    def model_info(self, *, timeout: float | None | EllipsisType = ...) -> ModelInfo:
        """Returns the model's version and dimensions, which the first call that needs them reads from the server.

        Call it at start-up to connect early, and to find out at once if the server or the model is not there.
        """
        return self._tried(self._read_info, timeout)

    def _read_info(self, call: Call) -> ModelInfo:
        session = call.target.session
        info: ModelInfo = session.run(session.model_info_steps(call.timeout))
        return info

    def _tried(self, ask: Callable[[Call], T], timeout: Limit) -> T:
        """Returns what one try of a call of several RPCs gives, or another one."""
        call = self._targets.begin(timeout, each_rpc=True)
        try:
            return ask(call)
        except TriremeError as error:
            return self._again(ask, call, error)
        finally:
            self._targets.end(call)

    def close(self, grace: float = 0.0) -> None:
        """Closes the connections. Closing again does nothing.

        Args:
            grace: seconds in which calls in other threads may end; no new ones begin. Those that have not ended by then raise
                ClosedError; before Triton 2.57, one of them may still be answered.
        """
        grace, idle = check_grace(grace), threading.Event()
        self._targets.drain(idle.set)
        if grace > 0:
            idle.wait(grace)
        for target in self._targets.all:
            target.session.closed = True
            if target.coalescer is not None:
                target.coalescer.close()
            target.session.close()
        if self._cache is not None:
            self._cache.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
