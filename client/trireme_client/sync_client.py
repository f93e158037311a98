"""The client for threads."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from types import EllipsisType
from typing import Any, Literal, overload

from .base import BaseClient
from .errors import TriremeError
from .model import ModelInfo
from .recommendations import Recommendations
from .requests import Anonymous, Ids, Request, check_arguments, check_requests
from .sync_coalescer import SyncCoalescer
from .sync_session import SyncSession


class Client(BaseClient):
    """Asks a Triton server for recommendations. Use it in a ``with`` block, or call ``close`` at the end.

    Making a client does not connect. The first call connects and reads the model's dimensions from the server. They
    are read again when another version answers, in the background, or when the server refuses a request.

    One client serves all threads of a process, over one connection. Make it after a fork, not before.

    Args:
        url: "host:port" of Triton's gRPC endpoint, or a gRPC target.
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

    Raises:
        ValidationError: an argument is wrong.
    """

    _session: SyncSession
    _session_type = SyncSession
    _coalescer: SyncCoalescer | None
    _coalescer_type = SyncCoalescer

    def recommend(
        self,
        user_id: int | Anonymous | None = None,
        k: int = 10,
        *,
        history: Sequence[int] | Ids | None = None,
        exclude: Sequence[int] | Ids | None = None,
        background: bool = False,
        timeout: float | None | EllipsisType = ...,
        ledger: bool = False,
    ) -> Recommendations:
        """Returns the k best items for one user.

        Args:
            user_id: see Request, as for k, history, exclude and background.
            timeout: seconds for the whole call, None for no limit; left out, the client's Timeout holds.
            ledger: reports in the answer where the time of this call went.

        Raises:
            ValidationError: an argument is wrong; nothing was sent.
            TriremeError: any other failure (see ``errors``).
        """
        with self._session.recorders.recommend(ledger) as recorder:
            request = check_arguments(user_id, k, history, exclude, background)
            recorder.ended("validate")
            try:
                if self._coalescer is not None:
                    return recorder.answered(self._coalescer.recommend(request, timeout, recorder))
                (result,) = self._session.run(self._session.recommend_steps([request], timeout, recorder))
            except TriremeError as error:
                result = self._session.instead(request, error)
            return recorder.answered(result)

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
        with self._session.recorders.recommend_many() as recorder:
            checked = check_requests(requests, return_errors)
            steps = self._session.recommend_many_steps(checked, timeout, recorder, return_errors)
            return self._session.run(steps)

    def model_info(self, *, timeout: float | None | EllipsisType = ...) -> ModelInfo:
        """Returns the model's version and dimensions, which the first call that needs them reads from the server.

        Call it at start-up to connect early, and to find out at once if the server or the model is not there.
        """
        return self._session.run(self._session.model_info_steps(timeout))

    def close(self) -> None:
        """Closes the connection; calls in other threads raise ClosedError. Closing again does nothing.

        Before Triton 2.57, one of them may still be answered.
        """
        self._session.closed = True
        if self._coalescer is not None:
            self._coalescer.close()
        self._session.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
