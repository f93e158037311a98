"""Exports a PyTorch module as ONNX, and checks that the graph computes what the module does."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import nn

from trireme_export.errors import ExportError
from trireme_export.exporters.hoisting import hoist
from trireme_runtime.onnx_model import CONSTANTS, MODEL, OnnxModel

__all__ = ["OPSET", "TOLERANCE", "Parity", "check_finite", "export_onnx", "save_graph", "trace_onnx"]

#: Read by ONNX Runtime ≥ 1.12 and TensorRT ≥ 8.6.
OPSET = 17
#: Constants of at least this many bytes lie beside the graph, where they can be mapped and shared.
OUTSIDE = 1 << 16
#: Largest difference from PyTorch in float32, relative to the largest value of the output.
TOLERANCE = 1e-4


@dataclass(frozen=True)
class Parity:
    """How far a graph is from its module: over ``samples`` rows, absolute and relative to the largest output."""

    samples: int
    max_difference: float
    relative: float


def export_onnx(
    module: nn.Module,
    stage: str,
    output: str,
    inputs: Sequence[Mapping[str, np.ndarray]],
    folder: Path,
    *,
    width: int,
    padding: str | None = None,
) -> tuple[OnnxModel, Parity]:
    """Writes ``module`` as ONNX with a dynamic batch and compares it with PyTorch on all of ``inputs``.

    What a first layer does to items and users is hoisted out of it (see ``hoisting``).

    Args:
        module: takes the arrays of an input by position, in their order.
        stage: for messages.
        output: name of the output.
        inputs: at least one set of named arrays; the first one traces the graph.
        folder: where to write, made if missing.
        width: columns of the output.
        padding: an input that is negative where the output may be anything.

    Raises:
        ExportError: the module does not return float32 (batch, width) or returns numbers that are not finite; or the graph has
            another opset, no dynamic batch, or differs by more than ``TOLERANCE``.
    """
    _check_output(module.eval(), stage, inputs[0], width)
    folder.mkdir(parents=True, exist_ok=True)
    save_graph(trace_onnx(module, stage, {output: width}, inputs[0], folder), folder)
    model = OnnxModel(folder)
    return model, _compare(module, stage, model, inputs, padding)


def trace_onnx(
    module: nn.Module, stage: str, outputs: Mapping[str, int], inputs: Mapping[str, np.ndarray], folder: Path
) -> onnx.ModelProto:
    """Returns ``module`` as a graph with a dynamic batch, hoisted and not compared with it; see ``export_onnx``.

    Args:
        outputs: their columns by name.
        folder: has to be there, and holds the constants meanwhile.

    Raises:
        ExportError: PyTorch cannot export the module; or the graph has another opset, or no dynamic batch.
    """
    names = list(inputs)
    # Beyond 2 GiB, a file for every constant lies beside the traced graph.
    with tempfile.TemporaryDirectory(dir=folder) as traced, warnings.catch_warnings():
        # The TorchScript exporter is deprecated in favour of one that needs onnxscript; these graphs are straight
        # lines without control flow, which tracing exports whole. `_compare` holds it to that.
        warnings.simplefilter("ignore")
        try:
            torch.onnx.export(
                module,
                tuple(torch.from_numpy(np.ascontiguousarray(array)) for array in inputs.values()),
                str(Path(traced, MODEL)),
                input_names=names,
                output_names=list(outputs),
                dynamic_axes={name: {0: "batch"} for name in (*names, *outputs)},
                opset_version=OPSET,
                dynamo=False,
            )
        except torch.onnx.OnnxExporterError as error:
            told = " ".join(str(error).partition("  [Caused by")[0].split())
            raise ExportError(f"{stage}: PyTorch cannot export the module to ONNX: {told}") from error
        graph = onnx.load(str(Path(traced, MODEL)))
    _declare_outputs(graph, outputs)
    hoist(graph)
    _check_graph(stage, graph, names)
    return graph


def _declare_outputs(graph: onnx.ModelProto, outputs: Mapping[str, int]) -> None:
    """A trace may leave the columns open, and Triton's backends refuse an output that is fixed in a config only."""
    for value in graph.graph.output:
        shape = value.type.tensor_type.shape
        shape.Clear()
        shape.dim.add(dim_param="batch")
        shape.dim.add(dim_value=outputs[value.name])


def _check_output(module: nn.Module, stage: str, tensors: Mapping[str, np.ndarray], width: int) -> None:
    rows = len(next(iter(tensors.values())))
    with torch.inference_mode():
        answer = module(*(torch.from_numpy(np.ascontiguousarray(array)) for array in tensors.values()))
    found = type(answer).__name__
    if isinstance(answer, torch.Tensor):
        if answer.dtype == torch.float32 and answer.shape == (rows, width):
            return
        found = f"{str(answer.dtype).removeprefix('torch.')} {tuple(answer.shape)}"
    raise ExportError(
        f"{stage}: for {rows} users, the module returns {found}, needed: a tensor float32 {(rows, width)}"
    )


def save_graph(model: onnx.ModelProto, folder: Path) -> None:
    """Writes the graph, and its large constants as a file of their own; replaces what is there."""
    (folder / CONSTANTS).unlink(missing_ok=True)
    onnx.save_model(
        model,
        str(folder / MODEL),
        save_as_external_data=True,
        all_tensors_to_one_file=True,
        location=CONSTANTS,
        size_threshold=OUTSIDE,
    )
    onnx.checker.check_model(str(folder / MODEL))


def _check_graph(stage: str, graph: onnx.ModelProto, names: Sequence[str]) -> None:
    opset = next(entry.version for entry in graph.opset_import if entry.domain in ("", "ai.onnx"))
    if opset != OPSET:
        raise ExportError(f"{stage}: the graph has opset {opset}, expected {OPSET}")
    for tensor in graph.graph.input:
        if tensor.name in names and not tensor.type.tensor_type.shape.dim[0].dim_param:
            raise ExportError(f"{stage}: the batch of input {tensor.name} is fixed, it must be dynamic")


def _compare(
    module: nn.Module, stage: str, model: OnnxModel, inputs: Sequence[Mapping[str, np.ndarray]], padding: str | None
) -> Parity:
    largest, difference, samples = 0.0, 0.0, 0
    for tensors in inputs:
        # A batch of one takes other paths through a graph than a batch of many.
        for rows in (slice(None), slice(0, 1)):
            part = {name: np.ascontiguousarray(array[rows]) for name, array in tensors.items()}
            with torch.inference_mode():
                expected = module(*map(torch.from_numpy, part.values())).numpy()
            found = model(part)
            if found.shape != expected.shape or found.dtype != expected.dtype:
                raise ExportError(
                    f"{stage}: the graph answers {found.dtype} {found.shape}, PyTorch {expected.dtype} {expected.shape}"
                )
            samples += len(expected)
            if padding is not None:
                expected, found = (answer[part[padding] >= 0] for answer in (expected, found))
            check_finite(stage, "PyTorch", expected)
            check_finite(stage, "ONNX", found)
            difference = max(difference, float(np.abs(found - expected).max(initial=0.0)))
            largest = max(largest, float(np.abs(expected).max(initial=0.0)))
    parity = Parity(samples, difference, difference / max(largest, 1e-9))
    if not parity.relative <= TOLERANCE:
        raise ExportError(
            f"{stage}: ONNX differs from PyTorch by {parity.relative:.1e} of the largest output, "
            f"at most {TOLERANCE:.0e} is allowed"
        )
    return parity


def check_finite(stage: str, where: str, answer: np.ndarray) -> None:
    """Raises ExportError if a number is none."""
    bad = answer[~np.isfinite(answer)]
    if bad.size:
        raise ExportError(
            f"{stage}: {bad.size} of {answer.size} outputs of {where} are not finite (such as {bad[0]}); every output "
            "has to be a finite number"
        )
