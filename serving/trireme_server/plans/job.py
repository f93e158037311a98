"""What a builder is asked for, and how it says that it failed."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

__all__ = ["ERROR", "Job"]

#: Before a line of its output that says all there is to say.
ERROR = "error: "


@dataclass(frozen=True)
class Job:
    """One plan to build.

    Attributes:
        graph: the ONNX file.
        plan: where the plan goes.
        shapes: the least, typical and largest shape of every input.
        workspace_mib: most memory of the GPU that a layer may use for itself, in MiB; None leaves the limit to TensorRT.
        timings: file of kernel timings, which are used and added to; it may be missing. None keeps none.
    """

    graph: Path
    plan: Path
    shapes: dict[str, tuple[list[int], list[int], list[int]]]
    workspace_mib: int | None = None
    timings: Path | None = None

    def to_json(self) -> str:
        return json.dumps(asdict(self), default=str)

    @classmethod
    def from_json(cls, text: str) -> Job:
        fields = json.loads(text)
        paths = {name: Path(fields.pop(name)) for name in ("graph", "plan", "timings") if fields[name] is not None}
        return cls(**{**fields, **paths})
