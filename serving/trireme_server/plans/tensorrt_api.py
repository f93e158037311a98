"""TensorRT's Python API, which is used here and nowhere else. The module is passed in as ``trt``.

Every attribute in this file is a name of TensorRT's, of 10.12 and of 11 alike: a contract test collects them and looks for each
in NVIDIA's bindings. So files, texts and errors are dealt with elsewhere.
"""

from __future__ import annotations

from typing import Any

__all__ = ["build_plan", "version"]

#: Name of an input, and its least, typical and largest shape.
InputShapes = tuple[str, list[int], list[int], list[int]]


class GraphError(Exception):
    """The parser takes the graph for none that TensorRT can run; the first argument lists each error with its node."""


class NoPlanError(Exception):
    """TensorRT made no plan; its log says why."""


def version(trt: Any) -> str:
    """Returns the version of TensorRT, of three or four numbers."""
    return str(trt.__version__)


def build_plan(
    trt: Any, graph: str, shapes: list[InputShapes], workspace_bytes: int | None, timings: bytes
) -> tuple[Any, Any]:
    """Returns a plan of the ONNX file ``graph`` and the timings that its kernels were chosen by, both as buffers.

    Args:
        trt: the module ``tensorrt``.
        graph: path of the file; its precisions are those of the plan.
        shapes: of all inputs.
        workspace_bytes: most memory of the GPU that a layer may use for itself; None leaves the limit to TensorRT.
        timings: those of earlier builds, or nothing. TensorRT takes no others than its own of the same GPU.

    Raises:
        GraphError: the graph cannot be read, or a node cannot be run.
        NoPlanError: a shape does not fit the graph, or the build failed.
    """
    logger = trt.Logger(trt.Logger.WARNING)
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(graph):
        raise GraphError([_describe(parser.get_error(index)) for index in range(parser.num_errors)])
    config = builder.create_builder_config()
    if workspace_bytes is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, workspace_bytes)
    profile = builder.create_optimization_profile()
    for name, least, typical, most in shapes:
        profile.set_shape(name, least, typical, most)
    if config.add_optimization_profile(profile) < 0:
        raise NoPlanError("add_optimization_profile: the shapes do not fit the graph")
    _set_timings(config, timings)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise NoPlanError("build_serialized_network returned None")
    return plan, config.get_timing_cache().serialize()


def _set_timings(config: Any, timings: bytes) -> None:
    """Takes none where TensorRT refuses those that are given."""
    for content in (timings, b""):
        cache = config.create_timing_cache(content)
        if cache is not None and config.set_timing_cache(cache, False):
            return


def _describe(error: Any) -> str:
    operator = f" ({error.node_operator()})" if error.node_operator() else ""
    return f"node {error.node_name()!r}{operator}: {error.desc()}"
