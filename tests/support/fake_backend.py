"""What ``triton_python_backend_utils`` offers a model. The real module exists only inside Triton's stub process; the
end-to-end tests run the adapter there, these stand-ins let unit tests look at its responses."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from trireme_runtime.schema import Dims

TRITONSERVER_RESPONSE_COMPLETE_FINAL = 1


@dataclass
class Tensor:
    tensor_name: str
    array: np.ndarray

    def as_numpy(self) -> np.ndarray:
        return self.array


@dataclass
class TritonError:
    INVALID_ARG = 3
    INTERNAL = 1

    message: str
    code: int


@dataclass
class InferenceResponse:
    output_tensors: list[Tensor]
    error: TritonError | None = None


def config(widths: dict[str, int], max_batch_size: int = 64, answered: dict[str, int] | None = None) -> dict[str, Any]:
    """The part of a model's configuration that the adapter reads."""
    inputs, outputs = (
        [{"name": name, "dims": [width]} for name, width in each.items()] for each in (widths, answered or {})
    )
    return {"input": inputs, "output": outputs, "max_batch_size": max_batch_size}


def chain_config(chain: Any, dims: Dims, max_batch_size: int = 64) -> dict[str, Any]:
    read, answered = (
        {tensor.name: tensor.length(dims) for tensor in tensors}
        for tensors in (chain.signature.inputs, chain.signature.outputs)
    )
    return config(read, max_batch_size, answered)


@dataclass
class Sender:
    """Keeps what is sent before a batch is done."""

    sent: list[InferenceResponse] = field(default_factory=list)
    flags: list[int] = field(default_factory=list)

    def send(self, response: InferenceResponse, flags: int) -> None:
        assert TRITONSERVER_RESPONSE_COMPLETE_FINAL not in self.flags
        self.sent.append(response)
        self.flags.append(flags)


@dataclass
class Request:
    inputs: dict[str, np.ndarray] = field(default_factory=dict)
    given: str = "{}"
    outputs: tuple[str, ...] = ()
    timeout_us: int = 0
    sender: Any = field(default_factory=Sender)

    def timeout(self) -> int:
        return self.timeout_us

    def get_response_sender(self) -> Any:
        return self.sender

    def parameters(self) -> str:
        return self.given

    def requested_output_names(self) -> list[str]:
        return list(self.outputs)


def get_input_tensor_by_name(request: Request, name: str) -> Tensor | None:
    return Tensor(name, request.inputs[name]) if name in request.inputs else None
