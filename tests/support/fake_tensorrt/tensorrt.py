"""What of TensorRT's Python API builds a plan, as far as that can be without a GPU. The real module needs NVIDIA's libraries and
a GPU, which the machines that run the tests do not have; a contract test compares its names with NVIDIA's bindings.

Put this folder on the path to have it as ``tensorrt``. The environment variable FAKE_TENSORRT, a JSON object, changes what it
does: ``version``, and ``no_plan`` for a build that fails. Its plans are JSON and say what they were built from. The parser
refuses every operator that ONNX does not know.
"""

from __future__ import annotations

import json
import os
import sys
from enum import Enum
from typing import Any

import onnx

SETTINGS: dict[str, Any] = json.loads(os.environ.get("FAKE_TENSORRT", "{}"))
__version__ = SETTINGS.get("version", "10.12.0.36")


class Logger:
    WARNING = "WARNING"

    def __init__(self, severity: str) -> None:
        assert severity == self.WARNING


class NetworkDefinitionCreationFlag(Enum):
    EXPLICIT_BATCH = 0
    STRONGLY_TYPED = 1

    def __int__(self) -> int:
        return int(self.value)


class MemoryPoolType(Enum):
    WORKSPACE = 0


class Network:
    def __init__(self, flags: int) -> None:
        self.flags = flags
        self.inputs: dict[str, list[int]] = {}


class ParserError:
    def __init__(self, node: Any) -> None:
        self._node = node

    def node_name(self) -> str:
        return str(self._node.name)

    def node_operator(self) -> str:
        return str(self._node.op_type)

    def desc(self) -> str:
        return f"no importer for\n{self._node.op_type}"


class OnnxParser:
    def __init__(self, network: Network, logger: Logger) -> None:
        self._network = network
        self._errors: list[ParserError] = []

    @property
    def num_errors(self) -> int:
        return len(self._errors)

    def get_error(self, index: int) -> ParserError:
        return self._errors[index]

    def parse_from_file(self, path: str) -> bool:
        graph = onnx.load(path).graph
        self._errors = [ParserError(node) for node in graph.node if not onnx.defs.has(node.op_type)]
        for tensor in graph.input:
            self._network.inputs[tensor.name] = [dim.dim_value or -1 for dim in tensor.type.tensor_type.shape.dim]
        return not self._errors


class Profile:
    def __init__(self) -> None:
        self.shapes: dict[str, list[list[int]]] = {}

    def set_shape(self, name: str, least: list[int], typical: list[int], most: list[int]) -> None:
        self.shapes[name] = [least, typical, most]


class TimingCache:
    def __init__(self, content: bytes) -> None:
        self.content = content

    def serialize(self) -> memoryview:
        return memoryview(self.content)


class BuilderConfig:
    def __init__(self) -> None:
        self.workspace: int | None = None
        self.profiles: list[Profile] = []
        self.timings = TimingCache(b"")

    def set_memory_pool_limit(self, pool: MemoryPoolType, size: int) -> None:
        assert pool is MemoryPoolType.WORKSPACE
        self.workspace = size

    def add_optimization_profile(self, profile: Profile) -> int:
        orders = all(least <= typical <= most for least, typical, most in profile.shapes.values())
        if not orders:
            return -1
        self.profiles.append(profile)
        return len(self.profiles) - 1

    def create_timing_cache(self, content: bytes) -> TimingCache | None:
        return None if content == b"torn" else TimingCache(content)

    def set_timing_cache(self, cache: TimingCache, ignore_mismatch: bool) -> bool:
        if cache.content.startswith(b"of another GPU") and not ignore_mismatch:
            return False
        self.timings = cache
        return True

    def get_timing_cache(self) -> TimingCache:
        return self.timings


class Builder:
    def __init__(self, logger: Logger) -> None:
        if os.environ.get("CUDA_VISIBLE_DEVICES") == "":
            raise TypeError("pybind11::init(): factory function returned nullptr")

    def create_network(self, flags: int) -> Network:
        return Network(flags)

    def create_builder_config(self) -> BuilderConfig:
        return BuilderConfig()

    def create_optimization_profile(self) -> Profile:
        return Profile()

    def build_serialized_network(self, network: Network, config: BuilderConfig) -> memoryview | None:
        (profile,) = config.profiles
        if SETTINGS.get("no_plan") or profile.shapes.keys() != network.inputs.keys():
            sys.stderr.write("[11/27/2026-05:39:07] [TRT] [W] a warning\n")
            sys.stderr.write("[11/27/2026-05:39:07] [TRT] [E] Error Code 10: no implementation for node project\n")
            return None
        earlier = config.timings.content.count(b";")
        config.timings = TimingCache(config.timings.content + b"kernel;")
        plan = {
            "strongly_typed": network.flags == 1 << int(NetworkDefinitionCreationFlag.STRONGLY_TYPED),
            "shapes": profile.shapes,
            "workspace": config.workspace,
            "gpu": os.environ.get("CUDA_VISIBLE_DEVICES"),
            "earlier_timings": earlier,
        }
        return memoryview(json.dumps(plan).encode())
