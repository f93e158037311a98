"""How a server is asked, and what it answers: the bare stub, and the project's own client."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import grpc
import numpy as np
from numpy.typing import NDArray
from tritonclient.grpc import service_pb2

from trireme_client import TLS, AsyncClient, Coalescing, Telemetry
from trireme_client.requests import Anonymous
from trireme_perf.errors import PerfError

__all__ = ["COALESCING", "TIMEOUT_S", "Answer", "ClientConnection", "Connection", "RawConnection", "parameters"]

#: After a model's name: the client lets users who wait at the same time share an RPC.
COALESCING = "+coalescing"
METHOD = "/inference.GRPCInferenceService/ModelInfer"
TIMEOUT_S = 30.0  # other connections wait as long as it takes: a probe judges by latency, not by errors


class Answer(NamedTuple):
    """One user's list, best first: item_id int64 (K,) padded with -1, score float32 (K,), rung (0 is complete)."""

    item_id: NDArray[np.int64]
    score: NDArray[np.float32]
    rung: int


class Connection(Protocol):
    """A client of a running server. Any number of ``ask`` may be under way at once."""

    async def ask(self, user_id: int) -> Answer: ...

    async def close(self) -> None: ...


class RawConnection:
    """One RPC per user with as little client as gRPC allows: requests are serialised once, answers parsed by hand.

    What it sends is what tritonclient sends for the same request.
    """

    def __init__(self, address: str, model: str, tls: TLS | None = None) -> None:
        options = [("grpc.use_local_subchannel_pool", 1)]
        self._channel = (
            grpc.aio.insecure_channel(address, options)
            if tls is None
            else grpc.aio.secure_channel(address, tls.credentials(), options)
        )
        self._infer = self._channel.unary_unary(METHOD)
        self._request = service_pb2.ModelInferRequest(model_name=model)
        self._request.inputs.add(name="user_id", datatype="INT64", shape=(1, 1))
        self._requests: dict[int, bytes] = {}

    async def ask(self, user_id: int, parameters: bytes = b"") -> Answer:
        """Asks with request parameters (``parameters``) if there are any.

        Raises:
            PerfError: the server answered with an error, or not at all.
        """
        try:
            return _read(await self._infer((self._requests.get(user_id) or self._build(user_id)) + parameters))
        except grpc.aio.AioRpcError as error:
            raise PerfError(f"{error.code().name}: {error.details()}") from error

    async def close(self) -> None:
        await self._channel.close()

    def _build(self, user_id: int) -> bytes:
        del self._request.raw_input_contents[:]
        self._request.raw_input_contents.append(user_id.to_bytes(8, "little", signed=True))
        built: bytes = self._request.SerializeToString()
        self._requests[user_id] = built
        return built


class ClientConnection:
    """The project's own client, as a backend service would use it."""

    def __init__(self, client: AsyncClient, list_length: int) -> None:
        self._client = client
        self.list_length = list_length

    @classmethod
    async def open(
        cls, address: str, model: str, coalescing: bool, telemetry: Telemetry | None = None, tls: TLS | None = None
    ) -> ClientConnection:
        """Connects to a server at ``address`` (host:port).

        Raises:
            TriremeError: there is no server, or it has no such entry model.
        """
        client = AsyncClient(
            address,
            model=model,
            coalescing=Coalescing() if coalescing else None,
            telemetry=telemetry,
            tls=tls,
            timeout=TIMEOUT_S,
        )
        try:
            return cls(client, (await client.model_info()).list_length)
        except BaseException:
            await client.close()
            raise

    async def ask(
        self,
        user_id: int | Anonymous | None,
        *,
        ledger: bool = False,
        history: Sequence[int] | None = None,
        exclude: Sequence[int] | None = None,
    ) -> Answer:
        """Asks as ``AsyncClient.recommend``. ``ledger``: the answer's ledger is requested too, and dropped."""
        answer = await self._client.recommend(
            user_id, self.list_length, history=history, exclude=exclude, ledger=ledger
        )
        return Answer(answer.item_ids, answer.scores, int(answer.rung))

    async def close(self) -> None:
        await self._client.close()


def parameters(**values: int) -> bytes:
    """Returns integer request parameters as bytes to be appended to a serialised request: protobuf joins the two."""
    request = service_pb2.ModelInferRequest()
    for name, value in values.items():
        request.parameters[name].int64_param = value
    serialised: bytes = request.SerializeToString()
    return serialised


def _read(message: bytes) -> Answer:
    response: Any = service_pb2.ModelInferResponse.FromString(message)
    contents = response.raw_output_contents
    values = {output.name: content for output, content in zip(response.outputs, contents, strict=True)}
    return Answer(
        np.frombuffer(values["item_id"], "<i8"), np.frombuffer(values["score"], "<f4"), int(values["rung"][0])
    )
