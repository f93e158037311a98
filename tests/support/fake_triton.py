"""A scripted Triton for faults that the real server does not show on demand: answers held back, statuses, tensors of the
wrong name, dtype or shape. Its answers are plain otherwise: user u gets the items u·100, u·100 + 1, …"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
import numpy as np
from tritonclient.grpc import model_config_pb2, service_pb2
from tritonclient.grpc.service_pb2_grpc import (
    GRPCInferenceServiceServicer,
    add_GRPCInferenceServiceServicer_to_server,
)

from trireme_runtime.schema import TELL_CLOCK, TELLS_CLOCK

HISTORY, ITEMS, BATCH = 5, 12, 4
WAIT = 20  # seconds; whatever has not come by then will not come

# Changes an answer, or ends the RPC through the context.
Fault = Callable[[Any, Any, grpc.ServicerContext], None]


def entry_config() -> model_config_pb2.ModelConfig:
    config = model_config_pb2.ModelConfig(name="recommend", max_batch_size=BATCH)
    for name, kind, width in (("user_id", "TYPE_INT64", 1), ("history", "TYPE_INT64", HISTORY)):
        config.input.add(name=name, data_type=kind, dims=[width])
    for name, kind, width in (
        ("item_id", "TYPE_INT64", ITEMS),
        ("score", "TYPE_FP32", ITEMS),
        ("rung", "TYPE_UINT8", 1),
        ("reason", "TYPE_UINT8", 1),
        ("feature_age_s", "TYPE_FP32", 1),
    ):
        config.output.add(name=name, data_type=kind, dims=[width])
    return config


class FakeTriton(GRPCInferenceServiceServicer):
    """Counts its RPCs, keeps the requests, holds answers back, and applies `fault` to every answer."""

    def __init__(self) -> None:
        self.config = entry_config()
        self.version = "3"
        self.stream = "recommend_stream"  # the model that answers twice
        self.stream_error = ""  # or an error in place of its answers
        self.server_version = "2.51.0"  # which does not survive cancels
        self.clock: Callable[[], int] | None = time.monotonic_ns  # None for a server that does not tell it
        self.clock_number = 7
        self.cancelled = 0
        self.requests: list[Any] = []
        self.headers: list[dict[str, str]] = []
        self.config_reads = 0
        self.fault: Fault | None = None
        self._changed = threading.Condition()
        self._answered: set[Any] = set()
        self._holds: Callable[[set[int]], bool] = lambda users: False

    def take_context(self, values: Mapping[str, Sequence[str]]) -> None:
        """Has the model take a context with these values."""
        self.config.input.add(name="context", data_type="TYPE_INT32", dims=[len(values)])
        self.config.parameters["context"].string_value = json.dumps(values)

    def hold(self, *users: int) -> None:
        """Holds back the answers to RPCs with any of these users from now on, or all answers; others are released."""
        with self._changed:
            self._holds = lambda asked: not users or not asked.isdisjoint(users)
            self._changed.notify_all()

    def release(self) -> None:
        """Holds nothing back any more."""
        with self._changed:
            self._holds = lambda users: False
            self._changed.notify_all()

    def answer_as(self, *versions: str) -> None:
        """Answers as servers of these versions by turns, as a balancer before them does."""

        def by_turns(request: Any, answer: Any, context: grpc.ServicerContext) -> None:
            answer.model_version = versions[len(self.requests) % len(versions)]

        self.fault = by_turns

    def wait_for(self, rpcs: int) -> None:
        """Returns once so many requests of users have arrived, held back or not."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.requests) >= rpcs, WAIT), f"{len(self.requests)} arrived"

    def ModelConfig(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        self.config_reads += 1
        if request.name != self.config.name:
            context.abort(grpc.StatusCode.NOT_FOUND, f"Request for unknown model: '{request.name}' is not found")
        return service_pb2.ModelConfigResponse(config=self.config)

    def ModelMetadata(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        return service_pb2.ModelMetadataResponse(name=request.name, versions=["1", self.version])

    def ServerMetadata(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        return service_pb2.ServerMetadataResponse(name="triton", version=self.server_version)

    def ModelInfer(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        if TELL_CLOCK in request.parameters and self.clock is not None:
            return self._tell_clock(request)
        self._take(request, context)
        self._hold_back(request)
        answer = self._answer(request, context)
        self._answered.add(context)
        return answer

    def ModelStreamInfer(self, requests: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:  # noqa: N802
        """Answers a request twice, the second time unless that is held back; `fault` applies to both."""
        (request,) = requests
        if request.model_name != self.stream:
            problem = f"Request for unknown model: '{request.model_name}' is not found"
            yield service_pb2.ModelStreamInferResponse(error_message=problem)
            return
        self._take(request, context)
        if self.stream_error:
            yield service_pb2.ModelStreamInferResponse(error_message=self.stream_error)
            return
        for outcome in ((1, 7), (0, 0)):
            if outcome == (0, 0):
                self._hold_back(request)
            answer = self._answer(request, context)
            answer.raw_output_contents[2:4] = [bytes([value]) for value in outcome]
            yield service_pb2.ModelStreamInferResponse(infer_response=answer)
        self._answered.add(context)

    def _take(self, request: Any, context: grpc.ServicerContext) -> None:
        context.add_callback(self._ended(context))
        with self._changed:
            self.headers.append(dict(context.invocation_metadata()))
            self.requests.append(request)
            self._changed.notify_all()

    def _hold_back(self, request: Any) -> None:
        users = np.frombuffer(request.raw_input_contents[0], np.int64)
        with self._changed:
            self._changed.wait_for(lambda: not self._holds(set(users.tolist())), WAIT)

    def _answer(self, request: Any, context: grpc.ServicerContext) -> Any:
        users = np.frombuffer(request.raw_input_contents[0], np.int64)
        items = np.abs(users)[:, None] * 100 + np.arange(ITEMS)
        scores = np.tile(np.linspace(1, 0, ITEMS, dtype=np.float32), (users.size, 1))
        answer = service_pb2.ModelInferResponse(model_name=request.model_name, model_version=self.version)
        rungs = np.where(users < 0, 3, 0).astype(np.uint8)[:, None]
        reasons = np.where(users < 0, 4, 0).astype(np.uint8)[:, None]
        named = {
            "item_id": ("INT64", items),
            "score": ("FP32", scores),
            "rung": ("UINT8", rungs),
            "reason": ("UINT8", reasons),
            "feature_age_s": ("FP32", np.full((users.size, 1), 1.5, np.float32)),
        }
        for name, (kind, array) in named.items():
            answer.outputs.add(name=name, datatype=kind, shape=array.shape)
            answer.raw_output_contents.append(array.tobytes())
        if self.fault:
            self.fault(request, answer, context)
        return answer

    def _tell_clock(self, request: Any) -> Any:
        assert self.clock is not None
        answer = service_pb2.ModelInferResponse(model_name=request.model_name, model_version=self.version)
        told = np.array([[self.clock(), self.clock_number]], np.int64)
        for name, kind, array in (("item_id", "INT64", told), ("reason", "UINT8", np.array([[TELLS_CLOCK]], np.uint8))):
            answer.outputs.add(name=name, datatype=kind, shape=array.shape)
            answer.raw_output_contents.append(array.tobytes())
        return answer

    def _ended(self, context: grpc.ServicerContext) -> Callable[[], None]:
        """What counts the RPCs that end before they are answered: cancelled, or by a deadline."""

        def count() -> None:
            with self._changed:
                self.cancelled += context not in self._answered
                self._changed.notify_all()

        return count


@contextmanager
def running(
    fake: FakeTriton, credentials: grpc.ServerCredentials | None = None, address: str = "127.0.0.1:0"
) -> Iterator[str]:
    """Serves `fake` and yields its "host:port"."""
    server = grpc.server(ThreadPoolExecutor(16))
    add_GRPCInferenceServiceServicer_to_server(fake, server)
    port = server.add_secure_port(address, credentials) if credentials else server.add_insecure_port(address)
    server.start()
    try:
        yield f"localhost:{port}" if credentials else f"127.0.0.1:{port}"
    finally:
        fake.release()
        server.stop(grace=None).wait()
