"""The optimisation profile of a plan: which batch sizes it takes, and which one its kernels are chosen for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tritonclient.grpc.model_config_pb2 import ModelConfig

from trireme_runtime.schema import batch_profile
from trireme_server.errors import PlanError

__all__ = ["Profile"]


@dataclass(frozen=True)
class Profile:
    """Batch sizes from ``least`` to ``most``; ``typical`` is the one that TensorRT measures kernels with.

    ``dims`` maps the inputs to their dimensions without the batch.
    """

    least: int
    typical: int
    most: int
    dims: Mapping[str, tuple[int, ...]]

    @classmethod
    def of(cls, config: ModelConfig) -> Profile:
        """Returns the profile of a model from its scheduling.

        The typical batch is the largest preferred one; without preferred sizes, that of ``batch_profile``.

        Raises:
            PlanError: the config allows no batches, leaves a dimension open, or prefers more than it allows.
        """
        least, usual, most = batch_profile(config.max_batch_size)
        preferred = config.dynamic_batching.preferred_batch_size
        typical = max(preferred) if preferred else usual
        if not 1 <= typical <= most:
            raise PlanError(
                f"model {config.name}: preferred_batch_size is {list(preferred)} and max_batch_size {most}; "
                "a plan needs a max_batch_size of at least 1, and preferred ones up to that"
            )
        dims = {tensor.name: tuple(tensor.dims) for tensor in config.input}
        for name, sizes in dims.items():
            if min(sizes, default=1) < 1:
                raise PlanError(f"model {config.name}: input {name} has dims {list(sizes)}; a plan needs fixed ones")
        return cls(least, typical, most, dims)

    def shapes(self) -> dict[str, tuple[list[int], list[int], list[int]]]:
        """Returns the least, typical and largest shape of every input."""
        return {
            name: ([self.least, *sizes], [self.typical, *sizes], [self.most, *sizes])
            for name, sizes in self.dims.items()
        }

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "batch": [self.least, self.typical, self.most],
            "dims": {name: list(sizes) for name, sizes in self.dims.items()},
        }
