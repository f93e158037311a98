"""The plans of a model repository behind tritonserver, as contestants."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from tritonclient.grpc import service_pb2

from trireme_client import AsyncClient, Coalescing, Telemetry
from trireme_perf.errors import PerfError
from trireme_perf.goodput.contestants import Answer, Connection, Contestant, Kind
from trireme_perf.host.server import Command, Server

__all__ = ["ENTRIES", "ClientConnection", "baseline_plans", "own_plans", "ready_address", "serve_command"]

POLL_S = 0.05
METHOD = "/inference.GRPCInferenceService/ModelInfer"
#: Entry models by what a repository was exported with (`--plan`).
ENTRIES = {"both": {"ensemble": "recommend", "fused": "recommend_fused"}, "fused": {"fused": "recommend"}}
ABOUT = {
    "ensemble": "one Triton model per stage; one user per RPC, gRPC's asyncio stub with prebuilt requests",
    "fused": "all stages in one Triton model; one user per RPC, gRPC's asyncio stub with prebuilt requests",
    "fused_coalescing": "as fused; trireme_client.AsyncClient puts users who wait at the same time into one RPC",
}


def own_plans(repository: Path, plan: str) -> list[Contestant]:
    """The plans of ``repository``, served by this installation."""
    command = serve_command(repository)
    entries = ENTRIES[plan]
    plans = [_contestant(name, "own", command, partial(_raw, model)) for name, model in entries.items()]
    coalescing = partial(ClientConnection.open, model=entries["fused"], coalescing=True)
    return [*plans, _contestant("fused_coalescing", "own", command, coalescing)]


def baseline_plans(checkout: Path, repository: Path) -> list[Contestant]:
    """Both plans of ``repository``, served by another checkout of this project.

    Raises:
        PerfError: the checkout has no environment, or the repository not both plans.
    """
    command = checkout.absolute() / ".venv" / "bin" / "trireme"
    if not command.is_file():
        raise PerfError(
            f"--baseline is {checkout}, which has no .venv/bin/trireme; allowed: a checkout after `make demo`"
        )
    plans = ENTRIES["both"]
    for model in plans.values():
        if not (repository / model).is_dir():
            raise PerfError(f"--baseline-repository is {repository}, which has no {model}; export it with --plan both")
    return [
        _contestant(f"baseline_{name}", "baseline", serve_command(repository, (str(command),)), partial(_raw, model))
        for name, model in plans.items()
    ]


def serve_command(
    repository: Path,
    trireme: tuple[str, ...] = (sys.executable, "-m", "trireme_cli"),
    options: tuple[str, ...] = (),
) -> Command:
    """How ``repository`` is served on free ports, by this installation or that of another ``trireme``."""
    ports = ("--grpc-port=0", "--http-port=0", "--metrics-port=0")
    return Command((*trireme, "serve", str(repository.absolute()), *ports, *options, "--json"), Path.cwd())


async def ready_address(server: Server, key: str = "grpc_url") -> str:
    """Where the server listens; `trireme serve --json` says it in a line of JSON once it is ready. Raises: StartError."""
    while True:
        for line in server.log().splitlines():
            if line.startswith("{") and line.endswith("}"):
                return str(json.loads(line)[key])
        server.check_starting()
        await asyncio.sleep(POLL_S)


def _contestant(name: str, kind: Kind, command: Command, connect: Callable[[str], Awaitable[Connection]]) -> Contestant:
    about = ABOUT[name.removeprefix("baseline_")]
    return Contestant(name, about, kind, lambda port: command, lambda server, port: ready_address(server), connect)


async def _raw(model: str, address: str) -> Connection:
    return RawConnection(address, model)


class RawConnection:
    """One RPC per user with as little client as gRPC allows: requests are serialised before, answers parsed by hand."""

    def __init__(self, address: str, model: str) -> None:
        self._channel = grpc.aio.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1)])
        self._infer = self._channel.unary_unary(METHOD)
        self._request = service_pb2.ModelInferRequest(model_name=model)
        self._request.inputs.add(name="user_id", datatype="INT64", shape=(1, 1))
        self._requests: dict[int, bytes] = {}

    async def ask(self, user_id: int) -> Answer:
        return _read(await self._infer(self._requests.get(user_id) or self._build(user_id)))

    async def close(self) -> None:
        await self._channel.close()

    def _build(self, user_id: int) -> bytes:
        del self._request.raw_input_contents[:]
        self._request.raw_input_contents.append(user_id.to_bytes(8, "little", signed=True))
        built: bytes = self._request.SerializeToString()
        self._requests[user_id] = built
        return built


def _read(message: bytes) -> Answer:
    response: Any = service_pb2.ModelInferResponse.FromString(message)
    contents = response.raw_output_contents
    values = {output.name: content for output, content in zip(response.outputs, contents, strict=True)}
    return Answer(
        np.frombuffer(values["item_id"], "<i8"), np.frombuffer(values["score"], "<f4"), int(values["rung"][0])
    )


class ClientConnection:
    """The project's own client, as a backend service would use it."""

    def __init__(self, client: AsyncClient, list_length: int) -> None:
        self._client = client
        self.list_length = list_length

    @classmethod
    async def open(
        cls, address: str, model: str, coalescing: bool, telemetry: Telemetry | None = None
    ) -> ClientConnection:
        client = AsyncClient(
            address,
            model=model,
            coalescing=Coalescing() if coalescing else None,
            telemetry=telemetry,
            timeout=30.0,  # the others wait as long as it takes: a probe judges by latency, not by errors
        )
        return cls(client, (await client.model_info()).list_length)

    async def ask(self, user_id: int, *, ledger: bool = False) -> Answer:
        """``ledger``: the answer's ledger is asked for too, and dropped."""
        answer = await self._client.recommend(user_id, self.list_length, ledger=ledger)
        return Answer(answer.item_ids, answer.scores, int(answer.rung))

    async def close(self) -> None:
        await self._client.close()
