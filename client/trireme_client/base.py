"""What both clients do, without any I/O.

A call is a generator of steps: it yields the RPCs to be made, is sent their answers, and returns the result. The
clients differ only in how they make the RPCs.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Mapping, Sequence
from dataclasses import replace
from types import EllipsisType
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from tritonclient.grpc import service_pb2

from .codec import Answer, Codec
from .errors import ClosedError, InvalidRequestError, ModelNotFoundError, TriremeError
from .ledger import CallClock
from .model import ModelInfo, read_model_info
from .options import DEFAULT_TIMEOUT, TLS, Timeout, check_headers, check_model, check_seconds, check_tls, check_url
from .recommendations import Recommendations
from .requests import CheckedRequest
from .status import error_from_status
from .telemetry import Telemetry, check_telemetry

if TYPE_CHECKING:
    from .spans import CallSpan, RpcSpan

# RPCs of one recommend_many on their way at a time: enough to hide the round trips, few enough that one caller with
# ten thousand users does not fill the server's queue in front of everybody else.
MAX_IN_FLIGHT = 4

T = TypeVar("T")


class Deadline:
    """A moment, and the seconds that were allowed until it (None: no limit)."""

    __slots__ = ("_at", "seconds")

    def __init__(self, seconds: float | None) -> None:
        self.seconds = seconds
        self._at = None if seconds is None else time.monotonic() + seconds

    def remaining(self) -> float | None:
        """Seconds left, at least 0; None without a limit."""
        return None if self._at is None else max(0.0, self._at - time.monotonic())


class Rpc(NamedTuple):
    """One call to be made: the stub's method, its message, until when, and the sampled calls that it serves."""

    method: str
    message: Any
    deadline: Deadline
    callers: Sequence[CallSpan] = ()


Steps = Generator[list[Rpc], list[Any], T]


class BaseClient:
    """Options, the model's dimensions once they are known, and the steps of each call."""

    def __init__(
        self,
        url: str = "localhost:8001",
        *,
        model: str = "recommend",
        model_version: str = "",
        timeout: Timeout | float | None = DEFAULT_TIMEOUT,
        tls: TLS | None = None,
        headers: Mapping[str, str] | None = None,
        telemetry: Telemetry | None = None,
    ) -> None:
        self._url = check_url(url)
        self._model, self._model_version = check_model(model, model_version)
        self._timeout = Timeout.of(timeout)
        self._credentials = check_tls(tls)
        self._metadata = check_headers(headers)
        self._spans = check_telemetry(telemetry, self._model, self._url)
        self._codec: Codec | None = None
        self._closed = False

    def __repr__(self) -> str:
        closed = " closed" if self._closed else ""
        return f"<{type(self).__name__} {self._url} model={self._model!r}{closed}>"

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed

    def _recommend_steps(
        self,
        requests: list[CheckedRequest],
        timeout: float | None | EllipsisType,
        caller: CallSpan | None = None,
    ) -> Steps[list[Recommendations]]:
        first = self._first_deadline(timeout)
        if not requests:
            return []
        codec = self._codec or (yield from self._codec_steps(first))
        batches = codec.batches(requests)
        deadline = Deadline(self._timeout.request) if isinstance(timeout, EllipsisType) else first
        callers = () if caller is None else (caller,)
        answers = yield [Rpc("ModelInfer", batch.message, deadline, callers) for batch in batches]
        for answer in answers:
            self._notice_version(codec, answer)
        return codec.recommendations(batches, answers)

    def _ledger_steps(
        self,
        request: CheckedRequest,
        timeout: float | None | EllipsisType,
        clock: CallClock,
        caller: CallSpan | None = None,
    ) -> Steps[Recommendations]:
        """As `_recommend_steps` for one request, with its ledger."""
        first = self._first_deadline(timeout)
        codec = self._codec or (yield from self._codec_steps(first))
        clock.end("connect")
        codec.check_k(request)
        message = codec.message([request], ledger=True)
        clock.end("serialise")
        deadline = Deadline(self._timeout.request) if isinstance(timeout, EllipsisType) else first
        (answer,) = yield [Rpc("ModelInfer", message, deadline, () if caller is None else (caller,))]
        clock.end("rpc")
        self._notice_version(codec, answer)
        read = Answer(answer, 1)
        result, clock.told = read.of(0, request), read.ledger(0)
        clock.end("parse")
        return replace(result, ledger=clock.ledger())

    def _notice_version(self, codec: Codec, answer: Any) -> None:
        """Another version may serve now, perhaps with other dimensions: then they are read again."""
        if answer.model_version != codec.info.version:
            self._codec = None

    def _model_info_steps(self, timeout: float | None | EllipsisType) -> Steps[ModelInfo]:
        first = self._first_deadline(timeout)
        codec = self._codec or (yield from self._codec_steps(first))
        return codec.info

    def _first_deadline(self, timeout: float | None | EllipsisType) -> Deadline:
        """The deadline of a call's first step; that of all of the call if it was given with it."""
        given = not isinstance(timeout, EllipsisType)
        seconds = check_seconds("timeout", timeout) if given else self._timeout.connect
        if self._closed:
            raise self._closed_before()
        return Deadline(seconds)

    def _allowed_seconds(self, timeout: float | None | EllipsisType) -> float | None:
        """The seconds for a call's next step; those of all of the call if they were given with it."""
        if self._closed:
            raise self._closed_before()
        if not isinstance(timeout, EllipsisType):
            return check_seconds("timeout", timeout)
        return self._timeout.connect if self._codec is None else self._timeout.request

    def _codec_steps(self, deadline: Deadline) -> Steps[Codec]:
        """Reads the model's configuration. Callers that come here at once each read it: the same, and once."""
        named = {"name": self._model, "version": self._model_version}
        config, metadata = yield [
            Rpc("ModelConfig", service_pb2.ModelConfigRequest(**named), deadline),
            Rpc("ModelMetadata", service_pb2.ModelMetadataRequest(**named), deadline),
        ]
        info = read_model_info(config.config, metadata.versions, self._model_version)
        self._codec = codec = Codec(info, self._model_version)
        if self._spans is not None:
            self._spans.slo_s = None if info.slo_ms is None else info.slo_ms / 1000
        return codec

    def _rpc_span(self, rpc: Rpc) -> RpcSpan | None:
        """The span of an RPC that begins; None if it serves no sampled call."""
        return self._spans.rpc(rpc) if rpc.callers and self._spans is not None else None

    def _call_arguments(self, rpc: Rpc, span: RpcSpan | None) -> dict[str, Any]:
        """What a gRPC method is called with."""
        metadata = self._metadata if span is None else self._metadata + span.headers
        return {"request": rpc.message, "timeout": rpc.deadline.remaining(), "metadata": metadata}

    def _failure(self, error: Any, deadline: Deadline) -> TriremeError:
        """The error to raise for one that gRPC raised.

        If the server does not take a request that was right by what is known of its model, the model has changed:
        its dimensions are forgotten, so that the next call reads them again.
        """
        failure = error_from_status(error.code().name, error.details() or "", self._where(), deadline.seconds)
        if self._closed and error.code().name == "CANCELLED":
            return self._closed_meanwhile()
        if isinstance(failure, (InvalidRequestError, ModelNotFoundError)):
            self._codec = None
        return failure

    def _timed_out(self, seconds: float | None) -> TriremeError:
        return error_from_status("DEADLINE_EXCEEDED", "", self._where(), seconds)

    def _where(self) -> str:
        return f"model {self._model!r} at {self._url}"

    def _closed_before(self) -> ClosedError:
        return ClosedError(f"{self!r} cannot be used any more: make a new client")

    def _closed_meanwhile(self) -> ClosedError:
        return ClosedError(f"{self!r} was closed during the call")
