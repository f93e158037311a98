"""int8 for the ranker's layers, where it is faster on this machine and the scores stay the same.

Dynamic quantisation measures the range of a layer's input in every call, static quantisation fixes it from a sample (ONNX
Runtime's QDQ form). Which of them wins, if any, depends on the processor: without VNNI instructions float32 usually does.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import onnx
from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_dynamic, quantize_static

from trireme_export.errors import ExportError
from trireme_export.exporters.onnx_graph import save_graph
from trireme_runtime.onnx_model import MODEL, OnnxModel

__all__ = ["choose_precision"]

LAYERS = ["MatMul", "Gemm"]
#: What int8 must save of the time of float32.
SAVING = 0.1
BATCH = 32
ROUNDS = 31


@dataclass(frozen=True)
class Variant:
    """A precision that was measured. ``difference``: root mean square of the change of score over the scores' deviation."""

    name: str
    difference: float
    us_per_user: float


def choose_precision(
    model: OnnxModel, sample: Mapping[str, np.ndarray], wanted: str, tolerance: float
) -> tuple[OnnxModel, dict[str, Any]]:
    """Returns the fastest precision of the ranker that keeps its scores, and the record of the choice.

    Args:
        model: the float32 ranker.
        sample: its inputs for real users; calibrates and measures.
        wanted: auto, float32 or int8.
        tolerance: largest difference of a quantised ranker.

    Returns:
        The model, and ``{"chosen": name, "variants": [{"name", "difference", "us_per_user"}, …]}``.

    Raises:
        ExportError: ``wanted`` is int8 and no variant is within the tolerance.
    """
    models = {"float32": model}
    if wanted != "float32":
        models |= dict(_quantised(model, sample))
    variants = _measure(models, sample)
    allowed = [variant for variant in variants[1:] if variant.difference <= tolerance]
    if wanted == "int8" and not allowed:
        nearest = min(variant.difference for variant in variants[1:])
        raise ExportError(
            f"serving.precision is 'int8' and changes the ranker's scores by {nearest:.4f}, allowed by "
            f"gate.score_difference: {tolerance}"
        )
    if wanted == "auto":
        allowed = [variant for variant in allowed if variant.us_per_user < (1 - SAVING) * variants[0].us_per_user]
    chosen = min(allowed, key=lambda variant: variant.us_per_user, default=variants[0])
    return models[chosen.name], {"chosen": chosen.name, "variants": [asdict(variant) for variant in variants]}


def _quantised(model: OnnxModel, sample: Mapping[str, np.ndarray]) -> Iterator[tuple[str, OnnxModel]]:
    """Yields the ranker with weights of 7 bits: with 8, processors without VNNI overflow the sum of two products."""
    source, logger = str(model.file), logging.getLogger()
    level = logger.level
    logger.setLevel(logging.ERROR)  # it recommends steps that these graphs do not need
    try:
        for name in ("int8-dynamic", "int8-static"):
            folder = model.file.parent / name
            folder.mkdir(exist_ok=True)
            target = str(folder / MODEL)
            common: dict[str, Any] = {
                "op_types_to_quantize": LAYERS,
                "per_channel": True,
                "reduce_range": True,
                "use_external_data_format": True,  # needed beyond 2 GiB
            }
            options = {"MatMulConstBOnly": True}
            if name == "int8-dynamic":
                quantize_dynamic(source, target, weight_type=QuantType.QInt8, extra_options=options, **common)
            else:
                read = {name: sample[name] for name in model.inputs}
                quantize_static(source, target, _Sample(read), extra_options=options, **common)
            graph = onnx.load(target)
            for file in folder.iterdir():
                file.unlink()
            save_graph(graph, folder)
            yield name, OnnxModel(folder)
    finally:
        logger.setLevel(level)


class _Sample(CalibrationDataReader):
    """The sample, as one batch."""

    def __init__(self, sample: Mapping[str, np.ndarray]) -> None:
        self._batches = iter([{name: array[:BATCH] for name, array in sample.items()}])

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._batches, None)


def _measure(models: Mapping[str, OnnxModel], sample: Mapping[str, np.ndarray]) -> list[Variant]:
    """Measures every model in turns; the result of float32 comes first."""
    valid = sample["candidate_index"] >= 0
    expected = models["float32"](sample)[valid]
    batch = {name: array[:BATCH] for name, array in sample.items()}
    seconds: dict[str, list[float]] = {name: [] for name in models}
    for _ in range(ROUNDS):
        for name, model in models.items():
            start = time.perf_counter()
            model(batch)
            seconds[name].append((time.perf_counter() - start) / len(valid[:BATCH]))
    deviation = max(float(expected.std()), 1e-9)
    return [
        Variant(
            name,
            float(np.sqrt(np.mean((model(sample)[valid] - expected) ** 2))) / deviation,
            float(np.median(seconds[name]) * 1e6),
        )
        for name, model in models.items()
    ]
