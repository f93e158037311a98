"""What a client must know of the model it calls, read from Triton's configuration and metadata of that model."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from .errors import ProtocolError

USER_ID, HISTORY = "user_id", "history"
ITEM_ID, SCORE, RUNG = "item_id", "score", "rung"
# Asked for by a request parameter of this name, and the stages in the order of its columns after the first two.
LEDGER = "ledger"
# Parameter of the configuration: the SLO, as JSON.
BUDGET = "budget"
STAGES = ("feature_transform", "user_tower", "retrieval", "ranking", "reranking")


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """An entry model: its name, its version ("3"), and its dimensions.

    history_length: ids of history that it takes; list_length: the largest k; max_batch_size: users per RPC.
    slo_ms: within which 99 of 100 requests are to be answered, by the bundle's budget; None if it has none.
    """

    name: str
    version: str
    history_length: int
    list_length: int
    max_batch_size: int
    slo_ms: float | None = None


def read_model_info(config: Any, versions: Iterable[str], model_version: str) -> ModelInfo:
    """ModelInfo from a ModelConfig message and the versions that are loaded.

    model_version: the one the client asks for; "" stands for the newest, as in Triton.
    Raises ProtocolError if this is not a Trireme entry model.
    """
    inputs = {tensor.name: tensor for tensor in config.input}
    outputs = {tensor.name: tensor for tensor in config.output}
    _width(config.name, "input", inputs, USER_ID, "TYPE_INT64", 1)
    history_length = _width(config.name, "input", inputs, HISTORY, "TYPE_INT64")
    list_length = _width(config.name, "output", outputs, ITEM_ID, "TYPE_INT64")
    _width(config.name, "output", outputs, SCORE, "TYPE_FP32", list_length)
    _width(config.name, "output", outputs, RUNG, "TYPE_UINT8", 1)
    if config.max_batch_size < 1:
        raise ProtocolError(f"model {config.name!r} has max_batch_size {config.max_batch_size}; allowed: >= 1")
    newest = max((version for version in versions if version.isdecimal()), key=int, default="")
    size, slo = config.max_batch_size, _slo_ms(config)
    return ModelInfo(config.name, model_version or newest, history_length, list_length, size, slo)


def _slo_ms(config: Any) -> float | None:
    if BUDGET not in config.parameters:
        return None
    told = config.parameters[BUDGET].string_value
    try:
        return float(json.loads(told)["p99_ms"])
    except (ValueError, KeyError, TypeError):
        allowed = "JSON with the number p99_ms"
        raise ProtocolError(
            f"model {config.name!r} has the parameter {BUDGET!r} {told!r}; allowed: {allowed}"
        ) from None


def _width(model: str, role: str, tensors: dict[str, Any], name: str, data_type: str, width: int = 0) -> int:
    """The only dimension of a tensor, after checking its type; `width` is the one it must have (0: any)."""
    if name not in tensors:
        raise ProtocolError(f"model {model!r} has no {role} {name!r}: it is not a Trireme entry model")
    tensor = tensors[name]
    found = tensor.DESCRIPTOR.fields_by_name["data_type"].enum_type.values_by_number[tensor.data_type].name
    dims = list(tensor.dims)
    if found != data_type or len(dims) != 1 or dims[0] < 1 or (width and dims[0] != width):
        allowed = f"{data_type} [{width or 'a fixed length'}]"
        raise ProtocolError(f"model {model!r} has the {role} {name!r} as {found} {dims}; allowed: {allowed}")
    return int(dims[0])
