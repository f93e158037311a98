"""What Triton's backends ``tensorrt`` and ``onnxruntime`` refuse when they load a model, in their words.

The stand-ins refuse the same, so that a repository that they serve is not refused where the real backends are. Read in the
sources of triton-inference-server, as of mid-2026 (server 26.06 and later):

- tensorrt_backend: src/instance_state.cc (kind of the instance, ``ValidateIO``, ``ValidateIOHelper``, the input and output
  bindings), src/model_state.cc (``max_batch_size``), src/tensorrt_utils.cc (dtypes, ``CompareDimsSupported``);
- onnxruntime_backend: src/onnxruntime.cc (``ValidateInputs``, ``ValidateOutputs``), src/onnxruntime_utils.cc
  (``CompareDimsSupported``);
- backend: src/backend_model.cc (``optional``), src/backend_common.cc (names of inputs and outputs).

Where they name the instance, the model is named here. The profile of a TensorRT plan is taken to reach from a batch of 1 to
``max_batch_size``, as plans are built.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from trireme_runtime.bundle import CONFIG
from trireme_runtime.errors import ConfigError
from trireme_runtime.onnx_model import GraphSignature, GraphTensor

__all__ = ["ENGINES", "check_model"]

Check = Callable[[str, Mapping[str, Any], GraphSignature], None]

#: Triton's names of ONNX Runtime's element types; neither strings nor complex numbers are hosted here.
DTYPES = {
    "tensor(bool)": "TYPE_BOOL",
    "tensor(uint8)": "TYPE_UINT8",
    "tensor(uint16)": "TYPE_UINT16",
    "tensor(uint32)": "TYPE_UINT32",
    "tensor(uint64)": "TYPE_UINT64",
    "tensor(int8)": "TYPE_INT8",
    "tensor(int16)": "TYPE_INT16",
    "tensor(int32)": "TYPE_INT32",
    "tensor(int64)": "TYPE_INT64",
    "tensor(float16)": "TYPE_FP16",
    "tensor(float)": "TYPE_FP32",
    "tensor(double)": "TYPE_FP64",
    "tensor(bfloat16)": "TYPE_BF16",
}
#: ``ConvertDataTypeToTrtType``
TENSORRT_DTYPES = {
    *("TYPE_FP32", "TYPE_FP16", "TYPE_BF16", "TYPE_INT8", "TYPE_UINT8", "TYPE_INT32", "TYPE_INT64", "TYPE_BOOL")
}
#: An instance group in a config.pbtxt, not in a comment.
ON_CPU = re.compile(r"^[^#\n]*\bKIND_CPU\b", re.MULTILINE)


def check_model(engine: str, folder: Path, name: str, config: Mapping[str, Any], graph: GraphSignature) -> None:
    """Refuses a model that the real backend would refuse.

    Args:
        engine: a key of ``ENGINES``.
        folder: of the model, with its config as written. Where there is no GPU, Triton makes KIND_CPU of KIND_AUTO before a
            backend sees the config, so only the file says which of them was asked for.
        name: of the model.
        config: the model's, as Triton hands it to ``initialize``.
        graph: what its ``model.onnx`` takes and answers.

    Raises:
        ConfigError: in the words of the backend.
    """
    file = folder / CONFIG
    if engine == TENSORRT and file.is_file() and ON_CPU.search(file.read_text()):
        raise ConfigError(f"unable to load model '{name}', TensorRT backend supports only GPU device")
    ENGINES[engine](name, config, graph)


def _check_tensorrt(name: str, config: Mapping[str, Any], graph: GraphSignature) -> None:
    for tensor in config["input"]:
        if tensor.get("optional"):
            raise ConfigError(
                f"'optional' is set to true for input '{tensor['name']}' while the backend model doesn't support optional input"
            )
    _check_profile(name, config["max_batch_size"], graph)
    if len(config["input"]) > len(graph.inputs):
        raise ConfigError(
            f"unable to load model '{name}', configuration expects {len(config['input'])} inputs, model provides at most "
            f"{len(graph.inputs)}"
        )
    for kind, described, found in _sides(config, graph):
        for tensor in described:
            own = _named(kind, tensor["name"], found)
            _check_tensorrt_tensor(name, kind, tensor, own, config["max_batch_size"])
        for own in found:
            if own.name not in {tensor["name"] for tensor in described}:
                raise ConfigError(f"expected configuration for {kind} '{own.name}' for {name}")


def _check_profile(model: str, max_batch_size: int, graph: GraphSignature) -> None:
    """Where a graph fixes its batch, so does the profile."""
    for tensor in graph.inputs:
        most = tensor.shape[0] if tensor.shape else 0
        if most != -1 and max_batch_size > most:
            raise ConfigError(
                f"autofill failed for model '{model}': configuration specified max-batch {max_batch_size} but TensorRT engine "
                f"only supports max-batch {most}"
            )


def _check_tensorrt_tensor(
    model: str, kind: str, tensor: Mapping[str, Any], own: GraphTensor, max_batch_size: int
) -> None:
    name, wanted, given = tensor["name"], tensor["data_type"], DTYPES.get(own.element, "TYPE_INVALID")
    if wanted not in TENSORRT_DTYPES:
        raise ConfigError(f"unsupported datatype {wanted} for {kind} '{name}' for model '{model}'")
    if given != wanted:
        raise ConfigError(f"unexpected datatype {given} for inference {kind} '{name}', expecting {wanted} for {model}")
    dims = _dims(tensor, max_batch_size)
    if not _fits(own.shape, dims, [-1 in pair for pair in zip(own.shape, dims, strict=False)]):
        raise _other_dims(model, name, own.shape, dims, max_batch_size)


def _check_onnxruntime(name: str, config: Mapping[str, Any], graph: GraphSignature) -> None:
    needed = [tensor for tensor in config["input"] if not tensor.get("optional")]
    if len(needed) != len(graph.inputs):
        raise ConfigError(
            f"unable to load model '{name}', configuration expects {len(needed)} inputs, model provides {len(graph.inputs)}"
        )
    most = config["max_batch_size"]
    for tensor in config["input"]:
        if tensor.get("optional") and most:
            raise ConfigError(
                f"unable to load model '{name}', optional input '{tensor['name']}' is not supported for models that support "
                "batching"
            )
    # An output of the graph that the config leaves out is not asked for.
    for kind, described, found in _sides(config, graph):
        for tensor in described:
            own = _named(kind, tensor["name"], (*found, *(graph.initializers if kind == "input" else ())))
            _check_onnxruntime_tensor(name, kind, tensor, own, most)


def _check_onnxruntime_tensor(
    model: str, kind: str, tensor: Mapping[str, Any], own: GraphTensor, max_batch_size: int
) -> None:
    name, wanted, given = tensor["name"], tensor["data_type"], DTYPES.get(own.element, "TYPE_INVALID")
    if wanted not in DTYPES.values():
        raise ConfigError(f"unsupported datatype {wanted} for {kind} '{name}' for model '{model}'")
    if given != wanted:
        raise ConfigError(
            f"unable to load model '{model}', configuration expects datatype {wanted} for {kind} '{name}', model provides "
            f"{given}"
        )
    if max_batch_size and own.shape[:1] != (-1,):
        raise ConfigError(
            f"model '{model}', tensor '{name}': for the model to support batching the shape should have at least 1 dimension "
            f"and the first dimension must be -1; but shape expected by the model is {_written(own.shape)}"
        )
    dims = _dims(tensor, max_batch_size)
    # A width that the graph leaves open may be fixed by the config for an input, not for an output.
    if not _fits(own.shape, dims, [kind == "input" and size == -1 for size in own.shape]):
        raise _other_dims(model, name, own.shape, dims, max_batch_size)


TENSORRT = "tensorrt"
#: By the name of Triton's backend.
ENGINES: dict[str, Check] = {TENSORRT: _check_tensorrt, "onnxruntime": _check_onnxruntime}


def _sides(
    config: Mapping[str, Any], graph: GraphSignature
) -> tuple[tuple[str, Sequence[Mapping[str, Any]], tuple[GraphTensor, ...]], ...]:
    return ("input", config["input"], graph.inputs), ("output", config["output"], graph.outputs)


def _named(kind: str, name: str, found: Iterable[GraphTensor]) -> GraphTensor:
    by_name = {tensor.name: tensor for tensor in found}
    if name not in by_name:
        raise ConfigError(f"unexpected inference {kind} '{name}', allowed {kind}s are: {', '.join(sorted(by_name))}")
    return by_name[name]


def _dims(tensor: Mapping[str, Any], max_batch_size: int) -> tuple[int, ...]:
    """The whole shape that a config gives a tensor."""
    return (*((-1,) if max_batch_size else ()), *map(int, tensor["dims"]))


def _fits(shape: tuple[int, ...], dims: tuple[int, ...], open_: Sequence[bool]) -> bool:
    """Whether the sizes are equal but where they are ``open_``."""
    return len(shape) == len(dims) and all(
        free or one == other for one, other, free in zip(shape, dims, open_, strict=True)
    )


def _other_dims(
    model: str, tensor: str, shape: tuple[int, ...], dims: tuple[int, ...], max_batch_size: int
) -> ConfigError:
    batched = "an initial batch dimension because max_batch_size > 0 followed by the explicit tensor shape, making complete shape"
    return ConfigError(
        f"model '{model}', tensor '{tensor}': the model expects {len(shape)} dimensions (shape {_written(shape)}) but the model "
        f"configuration specifies {len(dims)} dimensions ({batched if max_batch_size else 'shape'} {_written(dims)})"
    )


def _written(shape: Sequence[int]) -> str:
    return f"[{','.join(map(str, shape))}]"
