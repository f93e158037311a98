"""What the calls of one client share: the channel, the model once it is known, and the errors. No RPC is made here."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import suppress
from types import EllipsisType
from typing import Any

from tritonclient.grpc import service_pb2
from tritonclient.grpc.service_pb2_grpc import GRPCInferenceServiceStub

from .breaker import Breaker
from .clock import ServerClock
from .codec import NOBODY, Codec, read_clock
from .errors import (
    ClosedError,
    InvalidRequestError,
    ModelNotFoundError,
    OverloadedError,
    ProtocolError,
    TriremeError,
)
from .model import SENT, SENT_CLOCK, STREAM, TIMEOUT, ModelInfo, read_model_info
from .options import Header, Headers, Timeout, check_channel_options, check_model, check_time_left, check_url
from .recommendations import Recommendations
from .recorder import NO_CALL, NO_RPC, Recorder, RpcRecorder
from .requests import CheckedRequest, check_names
from .retries import counts_against_server
from .rpc import CEILING, Deadline, EachRpc, Flying, Rpc, Steps
from .status import error_from_status, survives_cancels
from .telemetry import Telemetry, check_telemetry
from .tls import TLS, check_tls

# Seconds between two readings of the dimensions, whatever the reason. Behind a balancer, servers of two versions may
# answer by turns, and what a server refuses may be refused again and again.
_READ_AGAIN_EVERY = 1.0

# Seconds for what a client asks beside the model's configuration when it connects: it can do without.
_EXTRAS = 0.5

# Seconds that a server has to answer a probe.
_PROBE = 1.0

# RPCs that nobody waits for any more and that a server which must not be told so has not answered yet. Beyond that, calls fail
# at once: they would only lengthen its queue.
MOST_LEFT = 64

# Seconds that the channel of a closed client stays open for such RPCs.
CLOSE_GRACE = 5.0

# How the message of an error in a stream begins that is about the request. Triton would say it by the status of the stream if it
# were asked to, but 2.51 crashes when it does (the header triton_grpc_error).
_INVALID = "INVALID_ARGUMENT: "

Limit = float | EllipsisType | None
"""Seconds for all of a call, None for no limit; left out (...), the client's Timeout holds."""


class Session(ABC):
    """The channel and stub of one client, its options, the codec of its model, and the steps of its calls.

    Args:
        grpc: the module that makes the channel: ``grpc``, or ``grpc.aio``.
        owner: the class of the client, for messages.
    """

    def __init__(
        self,
        grpc: Any,
        owner: str,
        url: str,
        *,
        model: str,
        model_version: str,
        timeout: Timeout | float | None,
        tls: TLS | None,
        headers: Mapping[str, Header] | None,
        channel_options: Mapping[str, int | str] | None,
        telemetry: Telemetry | None,
        fallback: bool = False,
    ) -> None:
        self._grpc, self._owner = grpc, owner
        self.url = check_url(url)
        self._model, self._model_version = check_model(model, model_version)
        self.timeout = Timeout.of(timeout)
        self._certificates = check_tls(tls)
        self._headers = Headers(headers)
        self._channel_options = check_channel_options(channel_options)
        self.recorders = check_telemetry(telemetry, self._model, self.url)
        self.codec: Codec | None = None
        self.clock = ServerClock()
        self.cancels = False  # whether the server may be told that nobody waits for an answer any more
        self.left: set[Any] = set()
        self.flying: set[Any] = set()
        self.breaker = Breaker(became=self.recorders.breaker_became)
        self._falls_back = fallback
        self.popular: Recommendations | None = None
        self.closed = False
        self.channel: Any = None
        self.retired: Any = None  # the channel with the certificates before these: its last RPCs may be in flight
        self._stub: Any = None
        self._read_again_at = float("-inf")
        self.recorders.watch(self)

    def __repr__(self) -> str:
        closed = " closed" if self.closed else ""
        return f"<{self._owner} {self.url} model={self._model!r}{closed}>"

    def open(self) -> None:
        """Makes the channel, which connects with its first RPC."""
        options = self._channel_options
        if self._certificates is None:
            self.channel = self._grpc.insecure_channel(self.url, options=options)
        else:
            self.channel = self._grpc.secure_channel(self.url, self._certificates.credentials, options=options)
        self._stub = GRPCInferenceServiceStub(self.channel)
        # A stream has one request: as a stream of requests, it would take a thread, and three writes instead of one.
        self._stub.ModelStreamInfer = self.channel.unary_stream(
            "/inference.GRPCInferenceService/ModelStreamInfer",
            request_serializer=service_pb2.ModelInferRequest.SerializeToString,
            response_deserializer=service_pb2.ModelStreamInferResponse.FromString,
        )

    def _open_again(self) -> None:
        """Makes another channel in place of this one, with the certificates as they are now."""
        old, self.retired = self.retired, self.channel
        self.open()
        if old is not None:
            self.close_channel(old)

    @abstractmethod
    def close_channel(self, channel: Any) -> None:
        """Closes a channel that no RPC needs any more."""

    @abstractmethod
    def refresh(self) -> None:
        """Reads the model's dimensions in the background; until they have come, or if they do not, the old ones serve."""

    @abstractmethod
    def probe(self) -> None:
        """Asks in the background whether the server answers, and notes in the breaker whether it does."""

    @abstractmethod
    def ask_clock(self, codec: Codec) -> None:
        """Asks for the server's clock in the background."""

    @abstractmethod
    def leave(self, flying: Flying) -> None:
        """Ends an RPC that nobody waits for any more: now, or when it is answered, if the server does not survive that."""

    def method(self, rpc: Rpc) -> Any:
        """Returns gRPC's callable for an RPC; opens the channel if that was not done yet, or the certificates are new."""
        if self._stub is None:
            self.open()
        elif self._certificates is not None and self._certificates.renewed():
            self._open_again()
        return getattr(self._stub, rpc.method)

    def arguments(self, rpc: Rpc, recorder: RpcRecorder, ends: bool = False) -> dict[str, Any]:
        """Returns the arguments for that callable. ends: whether gRPC ends the RPC at its deadline, whatever the server is."""
        seconds, metadata = rpc.deadline.remaining(), self._headers.now() + recorder.headers
        if rpc.method in ("ModelInfer", "ModelStreamInfer"):
            self._check_left()
            self._stamp(rpc.message, seconds)
        # A deadline of gRPC's is a cancel at the server.
        limit = CEILING if seconds is None else seconds if ends or self.cancels else max(CEILING, seconds)
        return {"request": rpc.message, "timeout": limit, "metadata": metadata}

    def _check_left(self) -> None:
        if len(self.left) >= MOST_LEFT:
            raise OverloadedError(f"{self._where()} has not ended {len(self.left)} calls that were given up")

    def _stamp(self, message: Any, seconds: float | None) -> None:
        """Writes into a ModelInferRequest how long it may take, from now on."""
        if seconds is None:
            return
        message.parameters[TIMEOUT].int64_param = max(1, int(seconds * 1e6))
        now = self.clock.read()
        if now is not None:
            message.parameters[SENT].int64_param, message.parameters[SENT_CLOCK].int64_param = now

    @staticmethod
    def until(rpc: Rpc) -> float:
        """Returns the moment until which an RPC that starts now is waited for."""
        seconds = rpc.deadline.remaining()
        return time.monotonic() + (CEILING if seconds is None else seconds)

    def recorder(self, rpc: Rpc) -> RpcRecorder:
        """Begins an RPC; it is recorded if it serves a sampled call."""
        return self.recorders.rpc(rpc) if rpc.callers else NO_RPC

    def recommend_steps(
        self, requests: Sequence[CheckedRequest], timeout: Limit, recorder: Recorder, keeps_errors: bool = False
    ) -> Steps[list[Any]]:
        """Takes the steps of a call: its RPCs, then its results in the order of the requests.

        keeps_errors: whether the error of an RPC is the result of its requests; otherwise it ends the call.
        """
        first = Deadline(self.allowed_seconds(timeout))
        if not requests:
            return []
        codec = self.codec or (yield from self.codec_steps(first))
        recorder.ended("connect")
        batches = codec.batches(requests, recorder.wants_ledger)
        recorder.ended("serialise")
        if self.clock.due():
            self.ask_clock(codec)
        deadline = EachRpc(self.timeout.request) if timeout is ... else first
        sampled = recorder.sampled
        answers = yield [Rpc("ModelInfer", batch.message, deadline, sampled, keeps_errors) for batch in batches]
        recorder.ended("rpc")
        for answer in answers:
            self.notice_version(codec, answer)
        results = codec.results(batches, answers, recorder, keeps_errors)
        recorder.ended("parse")
        return results

    def stream_steps(self, request: CheckedRequest, timeout: Limit) -> Steps[tuple[Codec, Rpc]]:
        """Takes the steps before a stream: returns the codec, and the RPC that is answered up to two times.

        Raises:
            ValidationError: the context has a name that the model does not know.
        """
        first = Deadline(self.allowed_seconds(timeout))
        codec = self.codec or (yield from self.codec_steps(first))
        check_names([request], codec.info.context)
        message = codec.message([request])
        message.model_name = STREAM
        if self.clock.due():
            self.ask_clock(codec)
        return codec, Rpc("ModelStreamInfer", message, Deadline(self.timeout.request) if timeout is ... else first)

    def streamed(self, codec: Codec, answer: Any, request: CheckedRequest) -> Recommendations:
        """Returns the list of one ModelStreamInferResponse. Raises: TriremeError: it is an error."""
        if answer.error_message:
            error = self._told(answer.error_message)
            if not isinstance(error, ModelNotFoundError) and self._may_read_again():
                self.codec = None  # as in ``failure``: without a status, a request of the wrong form may be any error
            raise error
        self.notice_version(codec, answer.infer_response)
        return codec.answer(answer.infer_response, 1).of(0, request, NO_CALL)

    def _told(self, message: str) -> TriremeError:
        """Returns the error for a message in a stream, which comes without a status."""
        if message.startswith(_INVALID):
            status, message = "INVALID_ARGUMENT", message.removeprefix(_INVALID)
        elif "unknown model" in message:
            status = "NOT_FOUND"
            if message.endswith("is not found"):
                message += "; an export with serving.stream writes it"
        else:
            status = "UNKNOWN"
        return error_from_status(status, message, self._where(STREAM), None)

    def model_info_steps(self, timeout: Limit) -> Steps[ModelInfo]:
        """Takes the steps of ``model_info``."""
        deadline = Deadline(self.allowed_seconds(timeout))
        codec = self.codec or (yield from self.codec_steps(deadline))
        return codec.info

    def codec_steps(self, deadline: Deadline) -> Steps[Codec]:
        """Reads the model's configuration. Calls that need it at the same time may each read it: it is the same."""
        named = {"name": self._model, "version": self._model_version}
        config, metadata, server = yield [
            Rpc("ModelConfig", service_pb2.ModelConfigRequest(**named), deadline),
            Rpc("ModelMetadata", service_pb2.ModelMetadataRequest(**named), deadline),
            Rpc("ServerMetadata", service_pb2.ServerMetadataRequest(), deadline, keeps_error=True),
        ]
        self.cancels = not isinstance(server, TriremeError) and survives_cancels(server.version)
        info = read_model_info(config.config, metadata.versions, self._model_version)
        self.codec = codec = Codec(info, self._model_version)
        self.recorders.slo_s = None if info.slo_ms is None else info.slo_ms / 1000
        yield from self.clock_steps(codec)
        if self._falls_back:
            yield from self._popular_steps(codec)
        return codec

    def probe_steps(self) -> Steps[None]:
        """Has the server answer, and reads the model's dimensions if they are not known. Raises TriremeError if it does not."""
        codec = self.codec or (yield from self.codec_steps(Deadline(self.timeout.connect)))
        yield from self.clock_steps(codec, _PROBE, raises=True)

    def clock_steps(self, codec: Codec, seconds: float = _EXTRAS, raises: bool = False) -> Steps[None]:
        """Asks for the server's clock, which no answer tells by the way: Triton's answers carry tensors of a fixed form only.

        Args:
            codec: writes the request.
            seconds: how long that may take.
            raises: whether an error is raised; otherwise it only means that the clock is not known.
        """
        asked = self.clock.now()
        (answer,) = yield [Rpc("ModelInfer", codec.clock_message(), Deadline(seconds), keeps_error=not raises)]
        if isinstance(answer, TriremeError):
            self.clock.missed()
        elif (told := read_clock(answer)) is not None:
            self.clock.learn(asked, self.clock.now(), *told)

    def _popular_steps(self, codec: Codec) -> Steps[None]:
        """Asks for the list that takes the place of an answer which does not come."""
        (answer,) = yield [Rpc("ModelInfer", codec.popular_message(), Deadline(_EXTRAS), keeps_error=True)]
        if not isinstance(answer, TriremeError):
            with suppress(ProtocolError):
                self.popular = codec.answer(answer, 1).of(0, NOBODY._replace(k=codec.info.list_length), NO_CALL)

    def notice_version(self, codec: Codec, answer: Any) -> None:
        """Has the model's dimensions read again if another version answered: its dimensions may differ."""
        if isinstance(answer, TriremeError) or answer.model_version == codec.info.version or self.codec is not codec:
            return
        self.read_again()

    def read_again(self) -> None:
        """Has the model's dimensions read in the background, unless they were a moment ago."""
        if self._may_read_again():
            self.refresh()

    def _may_read_again(self) -> bool:
        now = time.monotonic()
        if now - self._read_again_at < _READ_AGAIN_EVERY:
            return False
        self._read_again_at = now
        return True

    def allowed_seconds(self, timeout: Limit) -> float | None:
        """Returns the seconds for a call's next step, or for the whole call if ``timeout`` was given."""
        if self.closed:
            raise ClosedError(f"{self!r} cannot be used any more: make a new client")
        if not isinstance(timeout, EllipsisType):
            return check_time_left(timeout)
        return self.timeout.connect if self.codec is None else self.timeout.request

    def failure(self, error: Any, deadline: Deadline, model: str = "") -> TriremeError:
        """Returns the error to raise for one that gRPC raised, of another model than the session's if that is given.

        A server that refuses a request which fits the known dimensions has another model by now. The dimensions are
        then forgotten, so that the next call reads them again.
        """
        seconds = CEILING if deadline.seconds is None else deadline.seconds
        failure = error_from_status(error.code().name, error.details() or "", self._where(model), seconds)
        if self.closed and error.code().name == "CANCELLED":
            return self.closed_meanwhile()
        if isinstance(failure, (InvalidRequestError, ModelNotFoundError)) and self._may_read_again():
            self.codec = None
        return failure

    def noted(self, failure: TriremeError) -> TriremeError:
        """Notes in the breaker how an RPC ended, and returns its error."""
        if counts_against_server(failure):
            self.breaker.failed()
        return failure

    def timed_out(self, seconds: float | None, model: str = "") -> TriremeError:
        """Returns the error of a call that was not answered within ``seconds``."""
        return error_from_status("DEADLINE_EXCEEDED", "", self._where(model), seconds)

    def closed_meanwhile(self) -> ClosedError:
        """Returns the error of a call whose client was closed before the answer came."""
        return ClosedError(f"{self!r} was closed during the call")

    def _where(self, model: str = "") -> str:
        return f"model {model or self._model!r} at {self.url}"
