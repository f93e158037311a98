"""What every stage is: a pure array function with its own files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Protocol

from trireme_runtime.native.tables import Tables
from trireme_runtime.schema import SIGNATURES

__all__ = ["EXCLUDED", "EXCLUDING", "ON_DEVICE", "Stage", "stage_inputs"]

#: What requests exclude, an ``arrays.Pairs`` or None: no tensor, since its length is not that of the batch.
EXCLUDED = "excluded"
#: The stages that take it.
EXCLUDING = ("retrieval", "exclusion", "reranking")
#: The stages that can compute on a GPU: their ``load`` takes its number as ``device``, None for the CPU.
ON_DEVICE = ("retrieval",)


class Stage(Protocol):
    """Called with the tensors of its ``schema.SIGNATURES`` entry by name, answers with a named tuple.

    All arrays have the batch (users) as first axis. A stage holds no state between calls. What ``save`` wrote, the
    class method ``load`` reads.
    """

    name: ClassVar[str]

    def __call__(self, *args: Any, **tensors: Any) -> Any: ...

    def tables(self) -> Tables | None:
        """What the compiled form of the stage reads; None if it has none, see ``native``."""
        ...

    def save(self, path: Path) -> None: ...


def stage_inputs(stage: str, tensors: Mapping[str, Any]) -> dict[str, Any]:
    """Picks the inputs of the stage ``stage`` from ``tensors``; an optional one that is not there is None, as is EXCLUDED."""
    inputs = {
        tensor.name: tensors.get(tensor.name) if tensor.optional else tensors[tensor.name]
        for tensor in SIGNATURES[stage].inputs
    }
    if stage in EXCLUDING:
        inputs[EXCLUDED] = tensors.get(EXCLUDED)
    return inputs
