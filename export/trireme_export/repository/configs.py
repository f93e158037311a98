"""Authored ``config.pbtxt`` files, read and written through Triton's own protobuf.

Nothing here edits text: a config is parsed, its fields are set, and the message is printed.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import ModelConfig, ModelInstanceGroup

from trireme_runtime.cpu import usable_cpus
from trireme_runtime.schema import (
    AUTO,
    BUDGET,
    CONTEXT,
    CONTEXT_VALUES,
    INSTANCES,
    ORIGIN,
    RUNS,
    Dims,
    Layout,
    Signature,
    batch_profile,
)

__all__ = ["ServingSettings", "WarmupSample", "parse_config", "print_config", "specialise", "tensor_bytes"]


@dataclass(frozen=True)
class ServingSettings:
    """What the operator decides about scheduling."""

    max_batch_size: int
    max_queue_delay_us: int
    instances: int | None
    """Of each model; None leaves it to `trireme serve`. A server that is started otherwise runs one for each CPU of the
    machine that exports."""
    budget: Mapping[str, Any] = field(default_factory=dict)
    """The ``budget:`` section; every model carries it as a parameter, which stages publish and clients can read."""
    origin: Mapping[str, Any] = field(default_factory=dict)
    """``Checkpoint.origin``; every model carries it as a parameter, by which an evaluation knows the bundle."""
    cuda_graphs: bool = False
    """Whether TensorRT replays its launches."""
    context: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """``Checkpoint.context``; models that are given a context carry it as a parameter, from which clients know the indices."""

    @property
    def profile(self) -> tuple[int, int, int]:
        """See ``batch_profile``."""
        return batch_profile(self.max_batch_size)


@dataclass(frozen=True)
class WarmupSample:
    """Real inputs for ``model_warmup``: files under ``<model>/warmup/``, one user each.

    Triton sends a sample of batch size n as n requests of one user, so a batch forms as in service.
    """

    name: str
    batch_size: int
    files: Mapping[str, str]
    """File name by tensor name."""


def parse_config(file: Path) -> ModelConfig:
    """Reads a config.pbtxt.

    Raises:
        google.protobuf.text_format.ParseError: the file is not one; names line and column.
    """
    return text_format.Parse(file.read_text(), ModelConfig())


def print_config(config: ModelConfig) -> str:
    header = "# Written by `trireme export` from the authored model_repository/. Change it there.\n"
    return header + str(text_format.MessageToString(config))


def specialise(
    config: ModelConfig,
    name: str,
    version: int,
    layout: Layout,
    dims: Dims,
    settings: ServingSettings,
    warmup: Iterable[WarmupSample] = (),
) -> ModelConfig:
    """Returns a copy of the authored ``config`` of a target's ``layout`` as model ``name`` of one bundle.

    Sets dimensions, batch size, scheduling, warm-up, the stages, the budget, the origin, the values of a context, and the
    version: the model serves this one only, and the steps of an ensemble are pinned to it.
    """
    signature = layout.signature(config.name)
    result = ModelConfig()
    result.CopyFrom(config)
    result.name = name
    result.max_batch_size = settings.max_batch_size
    result.version_policy.specific.versions.append(version)
    _set_dims(result, signature, dims)
    if settings.budget:
        result.parameters[BUDGET].string_value = json.dumps(settings.budget)
    if settings.origin:
        result.parameters[ORIGIN].string_value = json.dumps(settings.origin)
    if settings.context and CONTEXT in signature.inputs:
        result.parameters[CONTEXT_VALUES].string_value = json.dumps(settings.context)
    if result.HasField("ensemble_scheduling"):
        for step in result.ensemble_scheduling.step:
            step.model_version = version
        return result
    result.parameters[RUNS].string_value = ",".join(layout.models[config.name])
    result.dynamic_batching.max_queue_delay_microseconds = settings.max_queue_delay_us
    if settings.instances is None:
        result.parameters[INSTANCES].string_value = AUTO
    for group in result.instance_group:
        on_cpu = group.kind == ModelInstanceGroup.KIND_CPU
        group.count = settings.instances or (usable_cpus() if on_cpu else 1)
    for sample in warmup:
        _add_warmup(result, sample, signature, dims)
    return result


def _set_dims(config: ModelConfig, signature: Signature, dims: Dims) -> None:
    lengths = {tensor.name: tensor.length(dims) for tensor in (*signature.inputs, *signature.outputs)}
    for tensor in (*config.input, *config.output):
        tensor.dims[:] = [lengths[tensor.name]]


def _add_warmup(config: ModelConfig, sample: WarmupSample, signature: Signature, dims: Dims) -> None:
    warmup = config.model_warmup.add(name=sample.name, batch_size=sample.batch_size, count=1)
    for tensor in signature.inputs:
        if tensor.name in sample.files:
            entry = warmup.inputs[tensor.name]
            entry.data_type = next(field.data_type for field in config.input if field.name == tensor.name)
            entry.dims[:] = [tensor.length(dims)]
            entry.input_data_file = sample.files[tensor.name]


def tensor_bytes(array: np.ndarray) -> bytes:
    """Returns ``array`` as Triton reads it from a warm-up file: little-endian, row by row."""
    return np.ascontiguousarray(array).tobytes()
