"""Requests ↔ arrays: a list of Triton requests becomes one array call of a stage, and its outputs responses.

The adapter knows Triton's request objects only by the four names of ``Backend``, so that it can be
tested without a server.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from trireme_stages.schema import Signature

__all__ = ["Adapter", "Backend"]

log = logging.getLogger(__name__)


class Backend(Protocol):
    """What is used of ``triton_python_backend_utils``."""

    Tensor: Any
    InferenceResponse: Any
    TritonError: Any

    def get_input_tensor_by_name(self, request: Any, name: str) -> Any: ...


class Adapter:
    """Serves a stage, or the whole funnel, to Triton's Python backend.

    A request that is wrong gets an error of its own; the others of its batch are answered as if it had
    not been there.

    Args:
        stage: called with the signature's inputs by name, answers with a named tuple of its outputs; may
            have ``invalid_rows(**inputs) -> {row: message}``.
        signature: the tensors of the stage.
        backend: the module ``triton_python_backend_utils``.
    """

    def __init__(self, stage: Any, signature: Signature, backend: Backend) -> None:
        self._stage = stage
        self._signature = signature
        self._backend = backend
        self._invalid_rows = getattr(stage, "invalid_rows", None)

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """One response per request, in order. Never raises for what a request holds."""
        responses: list[Any] = [None] * len(requests)
        groups: dict[tuple[str, ...], list[tuple[int, dict[str, np.ndarray]]]] = {}
        for position, request in enumerate(requests):
            try:
                inputs = self._read(request)
            except ValueError as error:
                responses[position] = self._error(str(error))
            else:
                # One array call needs the same optional inputs throughout.
                groups.setdefault(tuple(inputs), []).append((position, inputs))
        for group in groups.values():
            for position, response in self._run_group(group):
                responses[position] = response
        return responses

    def _read(self, request: Any) -> dict[str, np.ndarray]:
        inputs = {}
        for tensor in self._signature.inputs:
            value = self._backend.get_input_tensor_by_name(request, tensor.name)
            if value is not None:
                inputs[tensor.name] = value.as_numpy()
            elif not tensor.optional:
                raise ValueError(f"input {tensor.name} is missing, {tensor.dtype} [batch, n] is required")
        return inputs

    def _run_group(self, group: list[tuple[int, dict[str, np.ndarray]]]) -> list[tuple[int, Any]]:
        """Responses of requests that carry the same inputs, in one call of the stage where possible."""
        if self._invalid_rows is None:
            return self._call(group)
        problems = self._find_problems(group)
        answered = [(position, self._error(message)) for position, message in problems.items()]
        valid = [entry for entry in group if entry[0] not in problems]
        return answered + (self._call(valid) if valid else [])

    def _find_problems(self, group: list[tuple[int, dict[str, np.ndarray]]]) -> dict[int, str]:
        """Message by position for every request with a row that the stage refuses."""
        assert self._invalid_rows is not None
        rows = self._invalid_rows(**_concatenate([inputs for _, inputs in group]))
        if not rows:
            return {}
        ends = np.cumsum([_rows(inputs) for _, inputs in group])
        problems: dict[int, str] = {}
        for row in sorted(rows):
            entry = int(np.searchsorted(ends, row, side="right"))
            position, inputs = group[entry]
            first = int(ends[entry]) - _rows(inputs)
            where = f" (row {row - first} of the request)" if _rows(inputs) > 1 else ""
            problems.setdefault(position, f"{rows[row]}{where}")
        return problems

    def _call(self, group: list[tuple[int, dict[str, np.ndarray]]]) -> list[tuple[int, Any]]:
        try:
            outputs = self._stage(**_concatenate([inputs for _, inputs in group]))
        except Exception as error:
            if len(group) > 1:
                # Find the culprit alone, so that its neighbours are still answered.
                return [answer for entry in group for answer in self._call([entry])]
            log.exception("stage failed")
            return [(group[0][0], self._error(f"{type(error).__name__}: {error}", internal=True))]
        answers, start = [], 0
        for position, inputs in group:
            stop = start + _rows(inputs)
            answers.append((position, self._response(outputs, start, stop)))
            start = stop
        return answers

    def _response(self, outputs: Any, start: int, stop: int) -> Any:
        tensors = [
            self._backend.Tensor(tensor.name, values[start:stop])
            for tensor, values in zip(self._signature.outputs, outputs, strict=True)
        ]
        return self._backend.InferenceResponse(output_tensors=tensors)

    def _error(self, message: str, internal: bool = False) -> Any:
        error_type = self._backend.TritonError
        code = error_type.INTERNAL if internal else error_type.INVALID_ARG
        return self._backend.InferenceResponse(output_tensors=[], error=error_type(message, code))


def _rows(inputs: dict[str, np.ndarray]) -> int:
    return int(next(iter(inputs.values())).shape[0])


def _concatenate(batch: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    if len(batch) == 1:
        return batch[0]
    return {name: np.concatenate([inputs[name] for inputs in batch]) for name in batch[0]}
