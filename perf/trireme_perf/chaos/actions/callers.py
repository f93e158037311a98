"""Faults of others who call the same server: plain clients that give up early, or whose requests are very large."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.synchronize import Event
from typing import Annotated, Any

import grpc
from pydantic import Field
from tritonclient.grpc import service_pb2

from trireme_perf.chaos.actions.disturber import disturbing
from trireme_perf.chaos.scene import Scene

__all__ = ["INFER", "impatient", "large_requests", "message"]

INFER = "/inference.GRPCInferenceService/ModelInfer"
LEAST_MS, MOST_MS = 1.0, 50.0
IN_FLIGHT = 32
LARGE_S, MEGABYTE = 30.0, 10**6


@contextmanager
def impatient(
    scene: Scene,
    calls: Annotated[int, Field(ge=1)] = 10_000,
    cancelled: Annotated[float, Field(ge=0, le=1)] = 0.5,
) -> Iterator[None]:
    """Plain clients that set deadlines of gRPC's of 1 to 50 ms, or cancel after such a time.

    Args:
        calls: the most calls.
        cancelled: the share of calls that are cancelled; the others have a deadline.
    """
    with disturbing(scene, _impatient, scene.server.grpc, scene.model, scene.users, calls, cancelled, scene.seed):
        yield


@contextmanager
def large_requests(
    scene: Scene,
    requests: Annotated[int, Field(ge=1)] = 100,
    megabytes: Annotated[int, Field(ge=1, le=1000)] = 60,
) -> Iterator[None]:
    """Requests with a parameter of so many MB, at most so many, one after the other, each over a connection of its own; notes how
    they end. tritonserver keeps most of the memory that one takes."""
    with disturbing(scene, _large, scene.server.grpc, scene.model, scene.users[0], requests, megabytes):
        yield


def message(model: str, *users: int) -> Any:
    """Returns the request for these users."""
    request = service_pb2.ModelInferRequest(model_name=model)
    request.inputs.add(name="user_id", datatype="INT64", shape=(len(users), 1))
    request.raw_input_contents.append(b"".join(user.to_bytes(8, "little", signed=True) for user in users))
    return request


def _impatient(
    stop: Event, url: str, model: str, users: Sequence[int], calls: int, cancelled: float, seed: int
) -> Counter[str]:
    rng, counts = random.Random(seed), Counter[str]()
    with grpc.insecure_channel(url, options=[("grpc.max_reconnect_backoff_ms", 500)]) as channel:
        infer = channel.unary_unary(INFER)
        flying: list[tuple[float, Any]] = []  # with when each is cancelled
        for _ in range(calls):
            if stop.is_set():
                break
            seconds = rng.uniform(LEAST_MS, MOST_MS) / 1e3
            request = message(model, rng.choice(users)).SerializeToString()
            cancels = rng.random() < cancelled
            call = infer.future(request, timeout=None if cancels else seconds)
            flying.append((time.monotonic() + (seconds if cancels else MOST_MS), call))
            while len(flying) >= IN_FLIGHT:
                time.sleep(LEAST_MS / 1e3)
                flying = _land(flying, counts)
        for _, call in flying:
            call.cancel()
            _count(call, counts)
    return counts


def _large(stop: Event, url: str, model: str, user: int, requests: int, megabytes: int) -> Counter[str]:
    request, counts = message(model, user), Counter[str]()
    request.parameters["padding"].string_param = "x" * (megabytes * MEGABYTE)
    content = request.SerializeToString()
    options = [("grpc.use_local_subchannel_pool", 1)]
    while not stop.is_set() and counts["calls"] < requests:
        with grpc.insecure_channel(url, options=options) as channel:
            try:
                channel.unary_unary(INFER)(content, timeout=LARGE_S)
                code = grpc.StatusCode.OK
            except grpc.RpcError as error:
                code = error.code()
        counts["calls"] += 1
        counts[code.name.lower()] += 1
    return counts


def _land(flying: list[tuple[float, Any]], counts: Counter[str]) -> list[tuple[float, Any]]:
    """Cancels calls whose moment has come, counts those that have ended, and returns the others."""
    left = []
    for moment, call in flying:
        if moment <= time.monotonic():
            call.cancel()
        if call.done():
            _count(call, counts)
        else:
            left.append((moment, call))
    return left


def _count(call: Any, counts: Counter[str]) -> None:
    counts["calls"] += 1
    with suppress(grpc.FutureCancelledError):
        counts[call.code().name.lower()] += 1
