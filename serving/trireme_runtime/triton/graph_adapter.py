"""Requests ↔ an ONNX graph: a list of Triton requests becomes one run of the graph, and its outputs become responses.

As the adapter of the stages, it knows Triton's request objects only by a few names, so that it can be tested without a server.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from trireme_runtime.onnx_model import OnnxModel
from trireme_runtime.triton.adapter import Backend
from trireme_runtime.triton.parameters import InvalidRequestError

__all__ = ["GraphAdapter"]

log = logging.getLogger(__name__)


class Entry(NamedTuple):
    """A request of a batch: its position, its inputs, and the names of the outputs that it asks for."""

    position: int
    inputs: dict[str, np.ndarray]
    outputs: tuple[str, ...]

    @property
    def rows(self) -> int:
        return len(next(iter(self.inputs.values())))


class GraphAdapter:
    """Serves a graph to Triton's Python backend.

    A request that is wrong gets an error of its own; the others of its batch are answered as if it had not been there.

    Args:
        graph: takes and answers the tensors of ``config``, see ``engines``.
        backend: the module ``triton_python_backend_utils``.
        model: its name, for errors.
        config: the model's, as Triton hands it to ``initialize``. Without ``max_batch_size``, each request is a run.
    """

    def __init__(self, graph: OnnxModel, backend: Backend, model: str, config: Mapping[str, Any]) -> None:
        self._graph = graph
        self._backend = backend
        self._model = model
        self._most = int(config["max_batch_size"])
        self._dims = {tensor["name"]: [int(size) for size in tensor["dims"]] for tensor in config["input"]}
        self._optional = {tensor["name"] for tensor in config["input"] if tensor.get("optional")}
        self._outputs = [tensor["name"] for tensor in config["output"]]

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """One response per request, in order. Never raises: Triton would fail the whole batch."""
        responses: list[Any] = [None] * len(requests)
        group: list[Entry] = []
        for position, request in enumerate(requests):
            try:
                group.append(self._read(position, request))
            except InvalidRequestError as error:
                responses[position] = self._error(str(error), self._backend.TritonError.INVALID_ARG)
            except Exception as error:
                log.exception("a request could not be read")
                responses[position] = self._internal(error)
        for part in [group] if self._most else [[entry] for entry in group]:
            for entry, response in zip(part, self._answers(part), strict=True):
                responses[entry.position] = response
        return responses

    def _read(self, position: int, request: Any) -> Entry:
        """Raises: InvalidRequestError."""
        inputs = {}
        for name in self._dims:
            tensor = self._backend.get_input_tensor_by_name(request, name)
            if tensor is not None:
                inputs[name] = tensor.as_numpy()
                self._check_shape(name, inputs[name].shape)
            elif name not in self._optional:
                raise InvalidRequestError(f"input '{name}' is missing for {self._model}")
        rows = {name: len(array) for name, array in inputs.items()}
        if self._most and len(set(rows.values())) > 1:
            raise InvalidRequestError(f"inputs have different batch sizes for {self._model}: {rows}; one is allowed")
        asked = set(request.requested_output_names())
        return Entry(position, inputs, tuple(name for name in self._outputs if name in asked))

    def _check_shape(self, name: str, shape: tuple[int, ...]) -> None:
        """Raises: InvalidRequestError: in the words of TensorRT's backend; a profile reaches from a batch of 1 to the largest."""
        ranges = [*([(1, self._most)] if self._most else []), *((size, size) for size in self._dims[name])]
        problem = None
        if len(shape) != len(ranges):
            problem = f"model expected {len(ranges)} dimensions but received {len(shape)} dimensions"
        for axis, (size, (low, high)) in enumerate(zip(shape, ranges, strict=False)):
            if problem is None and low != -1 and not low <= size <= high:
                problem = (
                    f"model expected the shape of dimension {axis} to be between {low} and {high} but received {size}"
                )
        if problem is not None:
            raise InvalidRequestError(
                f"request specifies invalid shape for input '{name}' for {self._model}. Error details: {problem}"
            )

    def _answers(self, group: list[Entry]) -> list[Any]:
        """The responses of a group in one run; if that fails, each in a run of its own, so that its neighbours are answered."""
        if not group:
            return []
        try:
            return self._run(group)
        except Exception as error:  # onnxruntime's exceptions have no common base of their own
            log.exception("%s failed on a batch of %d requests", self._model, len(group))
            if len(group) == 1:
                return [self._internal(error)]
            return [response for entry in group for response in self._answers([entry])]

    def _run(self, group: list[Entry]) -> list[Any]:
        # Requests with and without an optional input are never one batch: Triton keeps them apart.
        batch = {
            name: array if len(group) == 1 else np.concatenate([entry.inputs[name] for entry in group])
            for name, array in group[0].inputs.items()
        }
        asked = [name for name in self._outputs if any(name in entry.outputs for entry in group)]
        found = dict(zip(asked, self._graph.run(batch, asked), strict=True)) if asked else {}
        rows = sum(entry.rows for entry in group) if self._most else 0
        for name, values in found.items():
            if self._most and values.shape[:1] != (rows,):
                raise ValueError(f"output '{name}' has the shape {list(values.shape)} for a batch of {rows}")
        responses, start = [], 0
        for entry in group:
            stop = start + (entry.rows if self._most else 0)
            tensors = [
                self._backend.Tensor(name, found[name][start:stop] if self._most else found[name])
                for name in entry.outputs
            ]
            responses.append(self._backend.InferenceResponse(output_tensors=tensors))
            start = stop
        return responses

    def _internal(self, error: Exception) -> Any:
        return self._error(f"{self._model}: {type(error).__name__}: {error}", self._backend.TritonError.INTERNAL)

    def _error(self, message: str, code: int) -> Any:
        return self._backend.InferenceResponse(output_tensors=[], error=self._backend.TritonError(message, code))
