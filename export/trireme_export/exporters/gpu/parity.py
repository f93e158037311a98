"""Compares the graph of the funnel with PyTorch: rounding may swap items whose scores are nearly equal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from trireme_export.errors import ExportError
from trireme_export.exporters.onnx_graph import TOLERANCE, Parity, check_finite
from trireme_runtime.onnx_model import OnnxModel

__all__ = ["OUTPUTS", "compare_funnel"]

#: The outputs of the graph, and their dtypes.
OUTPUTS = {"candidate_index": "int32", "retrieval_score": "float32", "ranking_score": "float32"}
SCORES = ("retrieval_score", "ranking_score")
STAGE = "funnel"
Answer = dict[str, np.ndarray]


def compare_funnel(
    module: nn.Module, model: OnnxModel, inputs: Sequence[Mapping[str, np.ndarray]], candidates: int
) -> Parity:
    """Compares candidates as sets, and scores candidate by candidate.

    An item has to be there only if its retrieval score is clearly above the lowest one of the list.

    Raises:
        ExportError: an output has another form, a score is not finite, a candidate is missing, or a score differs by more than
            ``TOLERANCE`` of the largest one.
    """
    answers: list[tuple[Answer, Answer]] = []
    for tensors in inputs:
        # A batch of one takes other paths through a graph than a batch of many.
        for rows in (slice(None), slice(0, 1)):
            part = {name: np.ascontiguousarray(array[rows]) for name, array in tensors.items()}
            with torch.inference_mode():
                expected = module(*map(torch.from_numpy, part.values()))
            answers.append((dict(zip(OUTPUTS, map(Tensor.numpy, expected), strict=True)), model.answers(part)))
            for where, answer in zip(("PyTorch", "ONNX"), answers[-1], strict=True):
                _check_form(where, answer, (len(next(iter(part.values()))), candidates))
    largest = {name: max(1e-9, *(_largest(expected, name) for expected, _ in answers)) for name in SCORES}
    relative, absolute = max(_difference(expected, found, largest) for expected, found in answers)
    if not relative <= TOLERANCE:
        raise ExportError(
            f"{STAGE}: scores of ONNX differ from PyTorch by {relative:.1e} of the largest, at most {TOLERANCE:.0e} is allowed"
        )
    return Parity(sum(len(expected["candidate_index"]) for expected, _ in answers), absolute, relative)


def _largest(answer: Answer, name: str) -> float:
    return float(np.abs(answer[name][answer["candidate_index"] >= 0]).max(initial=0.0))


def _check_form(where: str, answer: Answer, shape: tuple[int, int]) -> None:
    """Raises ExportError if an answer does not have the types and sizes that the next step reads."""
    for name, dtype in OUTPUTS.items():
        found = answer[name]
        if found.dtype != dtype or found.shape != shape:
            raise ExportError(f"{STAGE}: {name} of {where} is {found.dtype} {found.shape}, needed: {dtype} {shape}")
        if name in SCORES:
            check_finite(STAGE, where, found[answer["candidate_index"] >= 0])


def _difference(expected: Answer, found: Answer, largest: Mapping[str, float]) -> tuple[float, float]:
    """Returns the largest difference of a score of a common candidate: relative to the largest of its kind, and as it is."""
    margin, worst = TOLERANCE * largest["retrieval_score"], (0.0, 0.0)
    for row in range(len(expected["candidate_index"])):
        ours, theirs = ({name: array[row] for name, array in answer.items()} for answer in (expected, found))
        _check_candidates(row, ours, theirs, margin)
        _, here, there = np.intersect1d(ours["candidate_index"], theirs["candidate_index"], return_indices=True)
        for name, size in largest.items():
            pairs = ours[name][here] - theirs[name][there]
            pairs = pairs[ours["candidate_index"][here] >= 0]
            difference = float(np.abs(pairs).max(initial=0.0))
            worst = max(worst, (difference / size, difference))
    return worst


def _check_candidates(row: int, expected: Answer, found: Answer, margin: float) -> None:
    """Raises ExportError if a user's candidates are others, apart from those at the end of the list."""
    sizes = [np.count_nonzero(answer["candidate_index"] >= 0) for answer in (expected, found)]
    if sizes[0] != sizes[1]:
        raise ExportError(f"{STAGE}: for user {row} of a sample, ONNX finds {sizes[1]} candidates, PyTorch {sizes[0]}")
    for where, ours, theirs in (("ONNX", expected, found), ("PyTorch", found, expected)):
        index, score = (ours[name][ours["candidate_index"] >= 0] for name in ("candidate_index", "retrieval_score"))
        missing = (score > score.min(initial=np.inf) + margin) & ~np.isin(index, theirs["candidate_index"])
        if missing.any():
            raise ExportError(
                f"{STAGE}: for user {row} of a sample, {where} lacks {np.count_nonzero(missing)} candidates whose scores are "
                f"clearly above the lowest one, such as item index {index[missing][0]}"
            )
