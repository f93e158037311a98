"""What the calls of one client share: the channel, the model once it is known, and the errors. No RPC is made here."""

from __future__ import annotations

from collections.abc import Mapping
from types import EllipsisType
from typing import Any

from tritonclient.grpc import service_pb2
from tritonclient.grpc.service_pb2_grpc import GRPCInferenceServiceStub

from .codec import Codec
from .errors import ClosedError, InvalidRequestError, ModelNotFoundError, TriremeError
from .model import ModelInfo, read_model_info
from .options import CHANNEL_OPTIONS, TLS, Timeout, check_headers, check_model, check_seconds, check_tls, check_url
from .recommendations import Recommendations
from .recorder import NO_RPC, Recorder, RpcRecorder
from .requests import CheckedRequest
from .rpc import Deadline, Rpc, Steps
from .status import error_from_status
from .telemetry import Telemetry, check_telemetry

Limit = float | EllipsisType | None
"""Seconds for all of a call, None for no limit; left out (...), the client's Timeout holds."""


class Session:
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
        headers: Mapping[str, str] | None,
        telemetry: Telemetry | None,
    ) -> None:
        self._grpc, self._owner = grpc, owner
        self._url = check_url(url)
        self._model, self._model_version = check_model(model, model_version)
        self.timeout = Timeout.of(timeout)
        self._credentials = check_tls(tls)
        self._metadata = check_headers(headers)
        self.recorders = check_telemetry(telemetry, self._model, self._url)
        self.codec: Codec | None = None
        self.closed = False
        self.channel: Any = None
        self._stub: Any = None

    def __repr__(self) -> str:
        closed = " closed" if self.closed else ""
        return f"<{self._owner} {self._url} model={self._model!r}{closed}>"

    def open(self) -> None:
        """Makes the channel, which connects with its first RPC."""
        if self._credentials is None:
            self.channel = self._grpc.insecure_channel(self._url, options=CHANNEL_OPTIONS)
        else:
            self.channel = self._grpc.secure_channel(self._url, self._credentials, options=CHANNEL_OPTIONS)
        self._stub = GRPCInferenceServiceStub(self.channel)

    def method(self, rpc: Rpc) -> Any:
        """Returns gRPC's callable for an RPC; opens the channel if that was not done yet."""
        if self._stub is None:
            self.open()
        return getattr(self._stub, rpc.method)

    def arguments(self, rpc: Rpc, recorder: RpcRecorder) -> dict[str, Any]:
        """Returns the arguments for that callable."""
        metadata = self._metadata + recorder.headers
        return {"request": rpc.message, "timeout": rpc.deadline.remaining(), "metadata": metadata}

    def recorder(self, rpc: Rpc) -> RpcRecorder:
        """Begins an RPC; it is recorded if it serves a sampled call."""
        return self.recorders.rpc(rpc) if rpc.callers else NO_RPC

    def recommend_steps(
        self, requests: list[CheckedRequest], timeout: Limit, recorder: Recorder
    ) -> Steps[list[Recommendations]]:
        """Takes the steps of a call: its RPCs, then its results in the order of the requests."""
        first = Deadline(self.allowed_seconds(timeout))
        if not requests:
            return []
        codec = self.codec or (yield from self.codec_steps(first))
        recorder.ended("connect")
        batches = codec.batches(requests, recorder.wants_ledger)
        recorder.ended("serialise")
        deadline = Deadline(self.timeout.request) if timeout is ... else first
        answers = yield [Rpc("ModelInfer", batch.message, deadline, recorder.sampled) for batch in batches]
        recorder.ended("rpc")
        for answer in answers:
            self.notice_version(codec, answer)
        results = codec.recommendations(batches, answers, recorder)
        recorder.ended("parse")
        return results

    def model_info_steps(self, timeout: Limit) -> Steps[ModelInfo]:
        """Takes the steps of ``model_info``."""
        deadline = Deadline(self.allowed_seconds(timeout))
        codec = self.codec or (yield from self.codec_steps(deadline))
        return codec.info

    def codec_steps(self, deadline: Deadline) -> Steps[Codec]:
        """Reads the model's configuration. Calls that need it at the same time may each read it: it is the same."""
        named = {"name": self._model, "version": self._model_version}
        config, metadata = yield [
            Rpc("ModelConfig", service_pb2.ModelConfigRequest(**named), deadline),
            Rpc("ModelMetadata", service_pb2.ModelMetadataRequest(**named), deadline),
        ]
        info = read_model_info(config.config, metadata.versions, self._model_version)
        self.codec = codec = Codec(info, self._model_version)
        self.recorders.slo_s = None if info.slo_ms is None else info.slo_ms / 1000
        return codec

    def notice_version(self, codec: Codec, answer: Any) -> None:
        """Forgets the model's dimensions if another version answered: its dimensions may differ."""
        if answer.model_version != codec.info.version:
            self.codec = None

    def allowed_seconds(self, timeout: Limit) -> float | None:
        """Returns the seconds for a call's next step, or for the whole call if ``timeout`` was given."""
        if self.closed:
            raise ClosedError(f"{self!r} cannot be used any more: make a new client")
        if not isinstance(timeout, EllipsisType):
            return check_seconds("timeout", timeout)
        return self.timeout.connect if self.codec is None else self.timeout.request

    def failure(self, error: Any, deadline: Deadline) -> TriremeError:
        """Returns the error to raise for one that gRPC raised.

        A server that refuses a request which fits the known dimensions has another model by now. The dimensions are
        then forgotten, so that the next call reads them again.
        """
        failure = error_from_status(error.code().name, error.details() or "", self._where(), deadline.seconds)
        if self.closed and error.code().name == "CANCELLED":
            return self.closed_meanwhile()
        if isinstance(failure, (InvalidRequestError, ModelNotFoundError)):
            self.codec = None
        return failure

    def timed_out(self, seconds: float | None) -> TriremeError:
        """Returns the error of a call that was not answered within ``seconds``."""
        return error_from_status("DEADLINE_EXCEEDED", "", self._where(), seconds)

    def closed_meanwhile(self) -> ClosedError:
        """Returns the error of a call whose client was closed before the answer came."""
        return ClosedError(f"{self!r} was closed during the call")

    def _where(self) -> str:
        return f"model {self._model!r} at {self._url}"
