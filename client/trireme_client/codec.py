"""Checked requests to Triton's messages, Triton's messages to recommendations. Knows nothing of connections."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from tritonclient.grpc import service_pb2

from .errors import ProtocolError, ValidationError
from .model import HISTORY, ITEM_ID, RUNG, SCORE, USER_ID, ModelInfo
from .recommendations import Recommendations, Rung
from .requests import ANONYMOUS, CheckedRequest

_WIRE_INT64 = np.dtype("<i8")
_OUTPUT_DTYPES: dict[str, tuple[str, np.dtype[Any]]] = {
    ITEM_ID: ("INT64", _WIRE_INT64),
    SCORE: ("FP32", np.dtype("<f4")),
    RUNG: ("UINT8", np.dtype("u1")),
}


class Batch(NamedTuple):
    """Users of one RPC: their positions in the caller's order, their requests, and the ModelInferRequest."""

    positions: list[int]
    requests: list[CheckedRequest]
    message: Any


class Codec:
    """Writes requests to one model, and reads its answers. Safe to share between threads."""

    def __init__(self, info: ModelInfo, model_version: str = "") -> None:
        self.info = info
        self._model_version = model_version  # "" follows the server to a newer version
        self._headers: dict[tuple[int, bool], Any] = {}

    def batches(self, requests: Sequence[CheckedRequest]) -> list[Batch]:
        """Splits requests into RPCs of at most max_batch_size users.

        Users with and without history go apart: whether an optional input is there holds for a whole RPC.
        Raises ValidationError for a k beyond the model's list length.
        """
        for request in requests:
            if request.k > self.info.list_length:
                name, version = self.info.name, self.info.version
                allowed = f"1 to {self.info.list_length}, the list length of model {name!r} version {version!r}"
                raise ValidationError(f"{request.where}k is {request.k}; allowed: {allowed}")
        stored = [i for i, request in enumerate(requests) if request.history is None]
        given = [i for i, request in enumerate(requests) if request.history is not None]
        return [self._batch(chunk, requests) for group in (stored, given) for chunk in self._chunks(group)]

    def _chunks(self, positions: list[int]) -> Iterator[list[int]]:
        size = self.info.max_batch_size
        return (positions[start : start + size] for start in range(0, len(positions), size))

    def _batch(self, positions: list[int], requests: Sequence[CheckedRequest]) -> Batch:
        chosen = [requests[i] for i in positions]
        histories = [request.history for request in chosen if request.history is not None]
        message = service_pb2.ModelInferRequest()
        message.CopyFrom(self._header(len(chosen), bool(histories)))
        message.raw_input_contents.append(np.array([request.user_id for request in chosen], _WIRE_INT64).tobytes())
        if histories:
            message.raw_input_contents.append(pad_histories(histories, self.info.history_length).tobytes())
        return Batch(positions, chosen, message)

    def _header(self, rows: int, with_history: bool) -> Any:
        """All of a request but its data: the same for every batch of this size, so built once."""
        header = self._headers.get((rows, with_history))
        if header is None:
            header = service_pb2.ModelInferRequest(model_name=self.info.name, model_version=self._model_version)
            header.inputs.add(name=USER_ID, datatype="INT64", shape=(rows, 1))
            if with_history:
                header.inputs.add(name=HISTORY, datatype="INT64", shape=(rows, self.info.history_length))
            self._headers[rows, with_history] = header
        return header

    def recommendations(self, batches: Sequence[Batch], answers: Sequence[Any]) -> list[Recommendations]:
        """The answers (ModelInferResponse, one per batch) in the caller's order. Raises ProtocolError."""
        ordered: dict[int, Recommendations] = {}
        for batch, answer in zip(batches, answers, strict=True):
            ordered.update(zip(batch.positions, read_answer(batch.requests, answer), strict=True))
        return [ordered[position] for position in range(len(ordered))]


def pad_histories(histories: Sequence[NDArray[np.int64]], length: int) -> NDArray[np.int64]:
    """int64 (batch, length): the newest `length` ids of each history, newest last, -1 in front of short ones."""
    padded = np.full((len(histories), length), -1, dtype=_WIRE_INT64)
    for row, history in zip(padded, histories, strict=True):
        newest = history[-length:]
        row[length - len(newest) :] = newest
    return padded


def read_answer(requests: Sequence[CheckedRequest], answer: Any) -> list[Recommendations]:
    """One Recommendations per request, from a ModelInferResponse; the arrays are views of its bytes.

    A list longer than the one in the model's configuration is read too: a newer version may have come meanwhile.
    Raises ProtocolError for a missing tensor, a wrong dtype, shape or size, an unknown rung or a list shorter than k.
    """
    item_ids = _tensor(answer, ITEM_ID, len(requests))
    width = item_ids.shape[1]
    scores = _tensor(answer, SCORE, len(requests), width)
    rungs = _tensor(answer, RUNG, len(requests), 1)[:, 0]
    longest = max(request.k for request in requests)
    if width < longest:
        raise ProtocolError(f"{_name(answer)} answered with lists of {width} items; asked for {longest}")
    if item_ids.min() < -1:
        raise ProtocolError(f"{_name(answer)} answered with the item id {item_ids.min()}; allowed: >= -1")
    if rungs.max() > max(Rung):
        raise ProtocolError(f"{_name(answer)} answered with rung {rungs.max()}; allowed: 0 to {max(Rung):d}")
    return [
        _recommendations(request, item_ids[row], scores[row], Rung(rungs[row]), answer)
        for row, request in enumerate(requests)
    ]


def _recommendations(
    request: CheckedRequest, item_ids: NDArray[np.int64], scores: NDArray[np.float32], rung: Rung, answer: Any
) -> Recommendations:
    item_ids, scores = item_ids[: request.k], scores[: request.k]
    if item_ids.min() < 0:  # -1: padding
        found = item_ids >= 0
        item_ids, scores = item_ids[found], scores[found]
        item_ids.flags.writeable = scores.flags.writeable = False
    user_id = None if request.user_id == ANONYMOUS else request.user_id
    return Recommendations(user_id, item_ids, scores, rung, answer.model_name, answer.model_version)


def _tensor(answer: Any, name: str, rows: int, width: int | None = None) -> NDArray[Any]:
    """One output (rows, width), as a read-only view of the answer's bytes."""
    index = next((i for i, output in enumerate(answer.outputs) if output.name == name), None)
    if index is None or index >= len(answer.raw_output_contents):
        raise ProtocolError(f"{_name(answer)} answered without the tensor {name!r}")
    datatype, dtype = _OUTPUT_DTYPES[name]
    output, raw = answer.outputs[index], answer.raw_output_contents[index]
    shape = list(output.shape)
    right = len(shape) == 2 and shape[0] == rows and (shape[1] >= 1 if width is None else shape[1] == width)
    if output.datatype != datatype or not right:
        allowed = f"{datatype} [{rows}, {width or 'a fixed length'}]"
        raise ProtocolError(f"{_name(answer)} answered with {name!r} as {output.datatype} {shape}; allowed: {allowed}")
    if len(raw) != rows * shape[1] * dtype.itemsize:
        expected = rows * shape[1] * dtype.itemsize
        raise ProtocolError(f"{_name(answer)} answered with {len(raw)} bytes for {name!r}; expected {expected}")
    return np.frombuffer(raw, dtype).reshape(shape)


def _name(answer: Any) -> str:
    return f"model {answer.model_name!r} version {answer.model_version!r}"
