"""Models as they would be without the ledger, or without metrics. Run inside the server, for ``trireme perf ab`` alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import triton_python_backend_utils as pb_utils

from trireme_runtime.onnx_model import one_thread
from trireme_runtime.schema import STAGES
from trireme_runtime.stages.chain import Chain, Run, load_stages
from trireme_runtime.triton.adapter import Adapter
from trireme_runtime.triton.model import ChainModel

__all__ = ["WithoutLedger", "WithoutMetrics"]


class WithoutMetrics(ChainModel):
    """Publishes nothing. The ledger is as in ``ChainModel``, the clock of the stages with it."""

    chain: type[Chain] = Chain
    adapter: type[Adapter] = Adapter

    def initialize(self, args: dict[str, str]) -> None:
        one_thread()
        stages = load_stages(Path(args["model_repository"], args["model_version"]), self.model)
        self._adapter = self.adapter(self.chain(self.model, stages), pb_utils)

    def finalize(self) -> None:
        """There is no publisher to be closed."""


class Unwatched(NamedTuple):
    """A request of a batch: its position and its inputs."""

    position: int
    inputs: dict[str, np.ndarray]


class BareChain(Chain):
    """Looks at no clock."""

    def run(self, **inputs: np.ndarray | None) -> Run:
        tensors: dict[str, Any] = dict(inputs)
        for stage in self.stages:
            outputs = stage(**{tensor.name: tensors.get(tensor.name) for tensor in STAGES[stage.name].inputs})
            tensors.update(outputs._asdict())
        return Run(tuple(tensors[tensor.name] for tensor in self._answered), ())


class BareAdapter(Adapter):
    """The path of a valid request, as if nobody could ask for a ledger; a request that is wrong is not foreseen."""

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        responses: list[Any] = [None] * len(requests)
        groups: dict[tuple[str, ...], list[Unwatched]] = {}
        for position, request in enumerate(requests):
            inputs = self._read(request)
            groups.setdefault(tuple(inputs), []).append(Unwatched(position, inputs))
        for group in groups.values():
            for position, response in self._answer(group):
                responses[position] = response
        return responses

    def _answer(self, group: Sequence[Unwatched]) -> list[tuple[int, Any]]:
        batch = _concatenate(group)
        if rows := self._chain.invalid_rows(**batch):
            raise ValueError(f"requests are wrong: {rows}")
        outputs = self._chain.run(**batch).outputs
        answers, start = [], 0
        for entry in group:
            stop = start + _rows(entry.inputs)
            answers.append((entry.position, self._slice(outputs, start, stop)))
            start = stop
        return answers

    def _slice(self, outputs: Sequence[np.ndarray], start: int, stop: int) -> Any:
        tensors = [
            self._backend.Tensor(tensor.name, values[start:stop])
            for tensor, values in zip(self._answered, outputs, strict=True)
        ]
        return self._backend.InferenceResponse(output_tensors=tensors)


class WithoutLedger(WithoutMetrics):
    """Publishes nothing, reports no ledger and looks at no clock."""

    chain = BareChain
    adapter = BareAdapter


def _rows(inputs: Mapping[str, np.ndarray]) -> int:
    return int(next(iter(inputs.values())).shape[0])


def _concatenate(group: Sequence[Unwatched]) -> dict[str, np.ndarray]:
    if len(group) == 1:
        return group[0].inputs
    return {name: np.concatenate([entry.inputs[name] for entry in group]) for name in group[0].inputs}
