"""The client for threads: the RPCs of `base` over a blocking gRPC channel."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from types import EllipsisType, TracebackType
from typing import TYPE_CHECKING, Any

import grpc
from tritonclient.grpc.service_pb2_grpc import GRPCInferenceServiceStub

from .base import MAX_IN_FLIGHT, BaseClient, Rpc, Steps, T
from .ledger import CallClock
from .model import ModelInfo
from .options import CHANNEL_OPTIONS, DEFAULT_TIMEOUT, TLS, Coalescing, Timeout, check_coalescing
from .recommendations import Recommendations
from .requests import Ids, Request, check_arguments, check_requests
from .sync_coalescer import SyncCoalescer
from .telemetry import Telemetry

if TYPE_CHECKING:
    from .spans import CallSpan


class Client(BaseClient):
    """Asks a Triton server for recommendations. Use it in a `with` block, or call `close` at the end.

    url: "host:port" of Triton's gRPC endpoint, or a gRPC target. model, model_version: the entry model; "" follows
    the newest version. timeout: a Timeout, or seconds for both of its limits, or None. tls: None sends in the clear.
    headers: sent with every RPC. coalescing: a Coalescing lets concurrent calls of `recommend` share RPCs: far cheaper
    under load, for client and server; None makes one RPC per call. telemetry: a Telemetry tells OpenTelemetry of every call.

    Making a client connects to nothing. The first call connects and reads the model's dimensions from the server;
    they are kept until the server answers with another version or refuses a request.

    Safe to share between threads, and meant to be: they use one connection. Make it after a fork, not before.
    """

    def __init__(
        self,
        url: str = "localhost:8001",
        *,
        model: str = "recommend",
        model_version: str = "",
        timeout: Timeout | float | None = DEFAULT_TIMEOUT,
        tls: TLS | None = None,
        headers: Mapping[str, str] | None = None,
        coalescing: Coalescing | None = None,
        telemetry: Telemetry | None = None,
    ) -> None:
        super().__init__(
            url,
            model=model,
            model_version=model_version,
            timeout=timeout,
            tls=tls,
            headers=headers,
            telemetry=telemetry,
        )
        if self._credentials is None:
            self._channel = grpc.insecure_channel(self._url, options=CHANNEL_OPTIONS)
        else:
            self._channel = grpc.secure_channel(self._url, self._credentials, options=CHANNEL_OPTIONS)
        self._stub = GRPCInferenceServiceStub(self._channel)
        checked = check_coalescing(coalescing)
        self._coalescer = None if checked is None else SyncCoalescer(self, checked, self._start, self._run)

    def recommend(
        self,
        user_id: int | None = None,
        k: int = 10,
        *,
        history: Sequence[int] | Ids | None = None,
        timeout: float | None | EllipsisType = ...,
        ledger: bool = False,
    ) -> Recommendations:
        """The k best items for one user; see Request for the arguments.

        timeout: seconds for all of this call, None for no limit; left out, the client's Timeout holds.
        ledger: tells in the answer where the time of this call went.
        Raises ValidationError before anything is sent, and any other TriremeError (see `errors`).
        """
        if self._spans is None:
            return self._recommend(user_id, k, history, timeout, ledger)
        with self._spans.recommend() as caller:
            result = self._recommend(user_id, k, history, timeout, ledger, caller)
            return result if caller is None else caller.answered(result)

    def _recommend(
        self,
        user_id: int | None,
        k: int,
        history: Sequence[int] | Ids | None,
        timeout: float | None | EllipsisType,
        ledger: bool,
        caller: CallSpan | None = None,
    ) -> Recommendations:
        clock = CallClock() if ledger else None
        request = check_arguments(user_id, k, history)
        if clock is not None:
            clock.end("validate")
        if self._coalescer is not None:
            return self._coalescer.recommend(request, timeout, clock, caller)
        if clock is not None:
            return self._run(self._ledger_steps(request, timeout, clock, caller))
        return (self._run(self._recommend_steps([request], timeout, caller)))[0]

    def recommend_many(
        self, requests: Iterable[Request], *, timeout: float | None | EllipsisType = ...
    ) -> list[Recommendations]:
        """Several users at once, in the order asked: far cheaper for the server than one at a time.

        Users travel in RPCs of up to the model's max_batch_size, those with and those without history apart, a few
        RPCs at a time. `timeout` bounds all of them together.
        A wrong request raises ValidationError with its position, before anything is sent. If one RPC fails, the call
        raises that error and drops the other answers; nothing was changed on the server, so all of it can be asked
        again. Otherwise as `recommend`.
        """
        if self._spans is None:
            return self._run(self._recommend_steps(check_requests(requests), timeout))
        with self._spans.recommend_many() as caller:
            return self._run(self._recommend_steps(check_requests(requests), timeout, caller))

    def model_info(self, *, timeout: float | None | EllipsisType = ...) -> ModelInfo:
        """The model's version and dimensions; read from the server by the first call that needs them.

        Call it at start to connect early and to learn at once if the server or the model is not there.
        """
        return self._run(self._model_info_steps(timeout))

    def close(self) -> None:
        """Closes the connection; calls under way in other threads raise ClosedError. Closing again does nothing."""
        self._closed = True
        if self._coalescer is not None:
            self._coalescer.close()
        self._channel.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _run(self, steps: Steps[T]) -> T:
        try:
            rpcs = next(steps)
            while True:
                rpcs = steps.send(self._exchange(rpcs))
        except StopIteration as finished:
            result: T = finished.value
            return result

    def _exchange(self, rpcs: list[Rpc]) -> list[Any]:
        """Makes the RPCs, MAX_IN_FLIGHT at a time; their answers in order. The first error cancels the rest."""
        waiting: deque[Any] = deque()
        answers = []
        try:
            if len(rpcs) == 1:
                return [self._call(rpcs[0])]
            for rpc in rpcs:
                if len(waiting) == MAX_IN_FLIGHT:
                    answers.append(waiting[0].result())
                    waiting.popleft()
                waiting.append(self._start(rpc))
            while waiting:
                answers.append(waiting[0].result())
                waiting.popleft()
            return answers
        except grpc.RpcError as error:
            raise self._failure(error, rpcs[0].deadline) from None
        except (grpc.FutureCancelledError, ValueError):  # gRPC's words for a channel that was closed meanwhile
            if self._closed:
                raise self._closed_meanwhile() from None
            raise
        finally:
            for call in waiting:
                call.cancel()

    def _call(self, rpc: Rpc) -> Any:
        """The answer of one RPC: a blocking call hands nothing over between threads, unlike a future."""
        span = self._rpc_span(rpc)
        if span is None:
            return self._method(rpc)(**self._call_arguments(rpc, None))
        with span:
            return self._method(rpc)(**self._call_arguments(rpc, span))

    def _start(self, rpc: Rpc) -> Any:
        """A gRPC call under way, as a future."""
        span = self._rpc_span(rpc)
        if span is None:
            return self._method(rpc).future(**self._call_arguments(rpc, None))
        with span.unless_started():
            future = self._method(rpc).future(**self._call_arguments(rpc, span))
        future.add_done_callback(lambda done: span.end(done.code().name, done.details()))
        return future

    def _method(self, rpc: Rpc) -> Any:
        return getattr(self._stub, rpc.method)
