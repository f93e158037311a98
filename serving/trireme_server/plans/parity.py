"""Whether the graph models of a running server answer as their graphs did at the export.

The export keeps inputs of real users with the answers of ONNX Runtime. What serves may compute in another precision and on
another device, and has been seen to return answers of earlier requests (triton-inference-server/server#8550, CUDA graphs).
So the inputs are sent alone and in batches, in changing orders, and more than once.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from trireme_runtime.bundle import SAMPLES
from trireme_runtime.schema import PARITY
from trireme_server.api import Api, ApiError
from trireme_server.errors import ParityError, RepositoryError
from trireme_server.plans.answers import Answers, Tolerance
from trireme_server.plans.graphs import GraphModel, graph_models
from trireme_server.plans.profile import Profile

__all__ = ["check_parity"]

INPUT, OUTPUT = "in:", "out:"
ROUNDS = 2
REQUEST_TIMEOUT_S = 30.0


def check_parity(api: Api, repository: Path) -> None:
    """Sends the samples of every graph model to that model, and compares the answers.

    Args:
        api: of the server.
        repository: what it serves.

    Raises:
        ParityError: an answer differs by more than the model's config allows, is that of another request, or fails; names the
            model, the output, what was found and what is allowed.
        RepositoryError: as ``graph_models``; or a model has no samples or no tolerance.
    """
    for model in graph_models(repository):
        _check_model(api, model)


def batch_sizes(profile: Profile) -> list[int]:
    """Returns those of the profile, for which an export with CUDA graphs has them captured, and one that has none."""
    return sorted({profile.least, profile.typical, min(profile.typical + 1, profile.most), profile.most})


def _check_model(api: Api, model: GraphModel) -> None:
    inputs, answers = _read_samples(model)
    generator = np.random.default_rng(0)
    for _ in range(ROUNDS):
        for size in batch_sizes(Profile.of(model.config)):
            order = generator.permutation(answers.samples)
            batches = _batches(order, size)
            found = [
                _ask(api, model, {name: values[batch] for name, values in inputs.items()}, answers) for batch in batches
            ]
            outputs = {name: np.concatenate([each[name] for each in found]) for name in answers.expected}
            if problem := answers.problem(batches.ravel(), outputs):
                raise ParityError(f"model {model.name}, batches of {size}: {problem}")


def _batches(order: np.ndarray, size: int) -> np.ndarray:
    """Returns samples in the given order, (batches, size); the last batch begins again where they run out."""
    return np.resize(order, (-(-len(order) // size), size))


def _ask(api: Api, model: GraphModel, batch: Mapping[str, np.ndarray], answers: Answers) -> dict[str, np.ndarray]:
    """Returns the outputs of one request, of the right shapes."""
    try:
        outputs = api.infer(model.name, batch, REQUEST_TIMEOUT_S)
    except ApiError as error:
        raise ParityError(f"model {model.name} does not answer the samples of its bundle: {error}") from error
    users = len(next(iter(batch.values())))
    for name in answers.expected:
        found = outputs.get(name)
        wanted = (users, *answers.expected[name].shape[1:])
        if found is None or found.shape != wanted:
            shape = "missing" if found is None else f"of shape {list(found.shape)}"
            raise ParityError(f"model {model.name}: output {name} is {shape}; expected shape {list(wanted)}")
    return outputs


def _read_samples(model: GraphModel) -> tuple[dict[str, np.ndarray], Answers]:
    file = model.folder / SAMPLES
    try:
        with np.load(file, allow_pickle=False) as arrays:
            inputs = {name.removeprefix(INPUT): arrays[name] for name in arrays if name.startswith(INPUT)}
            expected = {name.removeprefix(OUTPUT): arrays[name] for name in arrays if name.startswith(OUTPUT)}
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise RepositoryError(f"{file}: cannot be read ({error}); export it again") from None
    counts = {len(values) for values in (*inputs.values(), *expected.values())}
    if not inputs or not expected or len(counts) != 1 or 0 in counts:
        raise RepositoryError(f"{file}: holds no samples with inputs and outputs of the same users; export it again")
    return inputs, Answers(expected, inputs.get("candidate_index"), _tolerance(model))


def _tolerance(model: GraphModel) -> Tolerance:
    try:
        fields: dict[str, Any] = json.loads(model.config.parameters[PARITY].string_value)
        return Tolerance(**fields)
    except (ValueError, TypeError) as error:
        raise RepositoryError(
            f"model {model.name}: parameter {PARITY} of its config is not a tolerance ({error}); export it again"
        ) from None
