"""What ``triton_python_backend_utils`` offers a model. The real module exists only inside Triton's stub process; the
end-to-end tests run the adapter there, these stand-ins let unit tests look at its responses."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np


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


@dataclass
class Request:
    inputs: dict[str, np.ndarray] = field(default_factory=dict)
    given: str = "{}"

    def parameters(self) -> str:
        return self.given


def get_input_tensor_by_name(request: Request, name: str) -> Tensor | None:
    return Tensor(name, request.inputs[name]) if name in request.inputs else None
