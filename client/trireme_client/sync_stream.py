"""Calls that are answered up to two times, for threads."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Generator
from contextlib import closing
from typing import Any

import grpc

from .errors import TriremeError
from .model import STREAM
from .recommendations import Recommendations
from .recorder import NO_RPC
from .requests import CheckedRequest
from .rpc import Flying, Rpc
from .session import Limit
from .sync_session import SyncSession
from .targets import Targets
from .workers import WORKERS, Job

Lists = Generator[Recommendations, None, None]


def stream_lists(
    targets: Targets,
    request: CheckedRequest,
    timeout: Limit,
    instead: Callable[[CheckedRequest, TriremeError], Recommendations],
) -> Lists:
    """Asks one server, and yields its lists as they come.

    Args:
        targets: the servers.
        request: what is asked.
        timeout: for all of the call.
        instead: returns what takes the place of an answer that does not come, or raises its error.
    """
    call = targets.begin(timeout)
    listed = False
    try:
        session: SyncSession = call.target.session
        codec, rpc = session.run(session.stream_steps(request, call.timeout))
        with closing(_answers(session, rpc)) as answers:
            for answer in answers:
                result = session.streamed(codec, answer, request)
                listed = True
                yield result
    except TriremeError as error:
        if listed:
            raise
        yield instead(request, error)
    finally:
        targets.end(call)


def _answers(session: SyncSession, rpc: Rpc) -> Generator[Any, None, None]:
    """Yields the messages of a stream. What ends this early leaves the RPC, see ``Session.leave``."""
    try:
        with _Stream(session, rpc) as stream:
            while (answer := stream.next()) is not None:
                yield answer
        session.breaker.answered()
        return
    except grpc.RpcError as error:
        failure = session.failure(error, rpc.deadline, STREAM)
    except TimeoutError:
        failure = session.timed_out(rpc.deadline.seconds, STREAM)
    except ValueError:  # what gRPC raises for a channel that was closed meanwhile
        if not session.closed:
            raise
        failure = session.closed_meanwhile()
    raise session.noted(failure)


class _Stream:
    """One RPC, whose answers a thread reads to the end, whoever still waits for them."""

    def __init__(self, session: SyncSession, rpc: Rpc) -> None:
        self._session = session
        self._until = session.until(rpc)
        self._arrived: deque[Any] = deque()
        self._changed = threading.Event()
        self._job = Job()
        self._call = session.method(rpc)(**session.arguments(rpc, NO_RPC))

    def __enter__(self) -> _Stream:
        session, job = self._session, self._job
        session.waiting[job] = self._changed
        session.flying.add(job)
        job.add_done_callback(session.flying.discard)
        job.add_done_callback(lambda _: self._changed.set())
        WORKERS.start(job, self._read)
        return self

    def __exit__(self, *exception: object) -> None:
        del self._session.waiting[self._job]
        if not self._job.done():
            self._session.leave(Flying(self._call if self._session.cancels else self._job, self._until))

    def _read(self) -> None:
        for answer in self._call:
            self._arrived.append(answer)
            self._changed.set()

    def next(self) -> Any:
        """Returns the next answer, None after the last one. Raises TimeoutError, ClosedError, or an error of gRPC's."""
        while True:
            ended = self._job.done()
            if self._arrived:
                return self._arrived.popleft()
            if ended:
                self._job.result()
                return None
            if self._session.closed:
                raise self._session.closed_meanwhile()
            if not self._changed.wait(min(max(0.0, self._until - time.monotonic()), threading.TIMEOUT_MAX)):
                raise TimeoutError
            self._changed.clear()
