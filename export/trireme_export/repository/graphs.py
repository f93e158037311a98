"""Models that hold an ONNX graph: their files, and what their engines need in a config."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np
from tritonclient.grpc.model_config_pb2 import ModelConfig

from trireme_export.repository.configs import ServingSettings
from trireme_export.repository.contents import Graph
from trireme_runtime.bundle import SAMPLES
from trireme_runtime.onnx_model import MODEL
from trireme_runtime.schema import PARITY

__all__ = ["COMPUTE_CAPABILITIES", "specialise_graph", "without_unread", "write_graph"]

#: Of GPUs that TensorRT 10 and 11 build plans for: Turing, Ampere, Ada, Hopper, Blackwell. A plan belongs to one of them.
COMPUTE_CAPABILITIES = ("7.5", "8.0", "8.6", "8.9", "9.0", "10.0", "10.3", "12.0")
WORKSPACE_BYTES = 1 << 30
#: Where ONNX Runtime keeps the engines that TensorRT builds for it, in the container.
ENGINES = "/tmp/trireme-engines"


def write_graph(graph: Graph, tensors: Mapping[str, np.ndarray], folder: Path) -> None:
    """Writes the graph, and its inputs and outputs for the real users of ``tensors``: ``in:NAME`` and ``out:NAME``."""
    graph.model.save(folder)
    inputs = {name: np.ascontiguousarray(tensors[name]) for name in graph.model.inputs}
    samples = {f"in:{name}": array for name, array in inputs.items()}
    samples |= {f"out:{name}": array for name, array in graph.model.answers(inputs).items()}
    np.savez(folder / SAMPLES, **samples)


def without_unread(config: ModelConfig, read: Mapping[str, Collection[str]]) -> ModelConfig:
    """Returns ``config`` without the inputs that are not read, and without the edges of an ensemble that end there.

    Args:
        read: the inputs that are read, by model; a model that is missing reads all of its own.
    """
    result = ModelConfig()
    result.CopyFrom(config)
    if config.name in read:
        kept = [tensor for tensor in result.input if tensor.name in read[config.name]]
        del result.input[:]
        result.input.extend(kept)
    steps = result.ensemble_scheduling.step if result.HasField("ensemble_scheduling") else ()
    for step in steps:
        for name in set(step.input_map) - set(read.get(step.model_name, step.input_map)):
            del step.input_map[name]
    used = {tensor.name for tensor in result.output}.union(*(set(step.input_map.values()) for step in steps))
    for step in steps:
        for name in [name for name, edge in step.output_map.items() if edge not in used]:
            del step.output_map[name]
    return result


def specialise_graph(config: ModelConfig, graph: Graph, engine: str, settings: ServingSettings) -> None:
    """Sets in ``config``, whose dimensions are set, what ``engine`` needs, and how far its answers may be from the samples."""
    config.parameters[PARITY].string_value = json.dumps(dict(graph.tolerances))
    if engine == "tensorrt":
        config.default_model_filename = "model.plan"
        for capability in COMPUTE_CAPABILITIES:
            config.cc_model_filenames[capability] = f"{capability}.plan"
        if settings.cuda_graphs:
            _add_cuda_graphs(config, settings)
        return
    config.platform, config.backend, config.default_model_filename = "", "onnxruntime", MODEL
    # Of a server without a GPU: instances are the parallelism.
    for name in ("intra_op_thread_count", "inter_op_thread_count"):
        config.parameters[name].string_value = "1"
    accelerator = config.optimization.execution_accelerators.gpu_execution_accelerator.add(name="tensorrt")
    least, usual, most = settings.profile
    accelerator.parameters.update(
        {
            "max_workspace_size_bytes": str(WORKSPACE_BYTES),
            "trt_engine_cache_enable": "true",
            "trt_engine_cache_path": ENGINES,
            "trt_profile_min_shapes": _shapes(config, least),
            "trt_profile_opt_shapes": _shapes(config, usual),
            "trt_profile_max_shapes": _shapes(config, most),
        }
    )


def _shapes(config: ModelConfig, batch: int) -> str:
    """The shapes of all inputs at a size of the batch, as ONNX Runtime reads them: name:1x2,name:1x3."""
    return ",".join(f"{tensor.name}:{'x'.join(map(str, (batch, *tensor.dims)))}" for tensor in config.input)


def _add_cuda_graphs(config: ModelConfig, settings: ServingSettings) -> None:
    """Captures exactly these sizes of a batch; others run without a CUDA graph."""
    cuda = config.optimization.cuda
    cuda.graphs = True
    for size in sorted(set(settings.profile)):
        spec = cuda.graph_spec.add(batch_size=size)
        for tensor in config.input:
            spec.input[tensor.name].dim.extend(tensor.dims)
