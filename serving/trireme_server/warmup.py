"""Real requests before a server is called ready: so that the first user does not pay for lazy initialisation.

Triton itself cannot warm an ensemble, and ``model_warmup`` of its steps sees neither gRPC nor real batches.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
from tritonclient.utils import triton_to_np_dtype

from trireme_server.api import Api, ApiError
from trireme_server.errors import RepositoryError, WarmupError

Sample = dict[str, np.ndarray]  # input name -> values of one user, without the batch dimension

SEQUENTIAL = 8  # one user at a time: the latency path
BURST = 64  # users in flight at once: dynamic batches form, on every instance
BURSTS = 3
LARGEST_BATCH = 64
REQUEST_TIMEOUT_S = 30.0


@dataclass(frozen=True)
class Warmup:
    """Number of requests over all models, and how long they took (s)."""

    requests: int
    seconds: float


def read_samples(path: Path, limit: int = BURST) -> list[Sample]:
    """The first users of a perf_analyzer ``--input-data`` file, values still without their data type.

    Raises:
        RepositoryError: not such a file, or without users.
    """
    try:
        entries = json.loads(path.read_text())["data"]
        flat = [step for entry in entries[:limit] for step in (entry if isinstance(entry, list) else [entry])]
        samples = [{name: _values(value) for name, value in entry.items()} for entry in flat]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        cause = f"{type(error).__name__}: {error}"
        raise RepositoryError(f"{path}: is not an input file of perf_analyzer ({cause})") from error
    if not samples:
        raise RepositoryError(f"{path}: holds no users to warm up with")
    return samples


def warm_up(api: Api, models: Sequence[str], samples: Sequence[Sample]) -> Warmup:
    """Sends each model single requests, bursts and one large batch, with and without optional inputs.

    Raises:
        WarmupError: a request failed or took longer than ``REQUEST_TIMEOUT_S``; names the model and the cause.
    """
    started = time.monotonic()
    with ThreadPoolExecutor(BURST, "warm-up") as pool:
        requests = sum(_warm_model(api, pool, model, samples) for model in models)
    return Warmup(requests, time.monotonic() - started)


def _warm_model(api: Api, pool: ThreadPoolExecutor, model: str, samples: Sequence[Sample]) -> int:
    def ask(inputs: Mapping[str, np.ndarray]) -> None:
        api.infer(model, inputs, REQUEST_TIMEOUT_S)

    try:
        config = api.config(model)
        count = 0
        for variant in _variants(config, samples):
            for sample in islice(cycle(variant), SEQUENTIAL):
                ask(_inputs(config, [sample]))
            for _ in range(BURSTS):
                list(pool.map(ask, [_inputs(config, [sample]) for sample in islice(cycle(variant), BURST)]))
            batch = min(int(config.get("max_batch_size", 1)), LARGEST_BATCH)
            ask(_inputs(config, list(islice(cycle(variant), max(batch, 1)))))
            count += SEQUENTIAL + BURSTS * BURST + 1
        return count
    except ApiError as error:
        raise WarmupError(f"warm-up of model {model} failed: {error}") from error


def _variants(config: Mapping[str, Any], samples: Sequence[Sample]) -> Iterator[list[Sample]]:
    """The samples as they are and, where they carry optional inputs, once more without: another path."""
    known = {tensor["name"] for tensor in config["input"]}
    optional = {tensor["name"] for tensor in config["input"] if tensor.get("optional")}
    given = [{name: values for name, values in sample.items() if name in known} for sample in samples]
    yield given
    if any(sample.keys() & optional for sample in given):
        yield [{name: values for name, values in sample.items() if name not in optional} for sample in given]


def _inputs(config: Mapping[str, Any], samples: Sequence[Sample]) -> dict[str, np.ndarray]:
    """One request for ``samples`` (users), with the optional inputs that all of them have."""
    inputs = {}
    for tensor in config["input"]:
        name = tensor["name"]
        if all(name in sample for sample in samples):
            kind = triton_to_np_dtype(tensor["data_type"].removeprefix("TYPE_"))
            inputs[name] = np.stack([sample[name].astype(kind) for sample in samples])
    return inputs


def _values(value: Any) -> np.ndarray:
    """A flat list, or ``{"content": [...], "shape": [...]}``."""
    if isinstance(value, dict):
        return np.asarray(value["content"]).reshape(value.get("shape", [-1]))
    return np.asarray(value)
