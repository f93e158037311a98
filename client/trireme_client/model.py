"""What a client must know about its model, read from Triton's configuration and metadata."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from .errors import ProtocolError

# The model that answers a request twice.
STREAM = "recommend_stream"
USER_ID, HISTORY = "user_id", "history"
# The input of a model with a context, which is also the parameter of its configuration with the names of columns and values, as
# JSON. The first value has the index 1; 0 is unknown.
CONTEXT = "context"
# The first value of a history that says: use the stored one.
STORED = -2
ITEM_ID, SCORE, RUNG, REASON, FEATURE_AGE = "item_id", "score", "rung", "reason", "feature_age_s"
# The request parameter that says how many items of each list are wanted.
K = "k"
# The request parameter with items that lists must not hold, and how many of them a user may have.
EXCLUDE, MOST_EXCLUDED = "exclude", 1000
# The request parameter for requests that give way to all others, and its value.
CLASS, BACKGROUND = "class", "background"
# The request parameters that say how long a request may take (µs), and when it was sent: ns on the server's monotonic clock,
# and the number of that clock.
TIMEOUT, SENT, SENT_CLOCK = "timeout", "sent", "sent_clock"
# The request parameter that asks for that clock, and the reason of such an answer: ITEM_ID is the clock and its number.
TELL_CLOCK, TELLS_CLOCK = "tell_clock", 255
# The request parameter that asks for the ledger, which is also the name of its tensor.
LEDGER = "ledger"
# The parameter of the configuration that holds the SLO, as JSON.
BUDGET = "budget"
# The parameter that says what the bundle was made from, as JSON.
ORIGIN = "origin"
# The request parameter with the CRC-32 of the names and values, as JSON, that the indices of a context are of.
VOCABULARY = "vocabulary"
# The order of the ledger's columns after the first two.
STAGES = ("feature_transform", "user_tower", "retrieval", "ranking", "reranking")


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """An entry model and its dimensions.

    Attributes:
        name: the model's name.
        version: its version, such as "3".
        history_length: the item ids of a history that it takes.
        list_length: the largest k.
        max_batch_size: the most users per RPC.
        slo_ms: milliseconds within which 99 of 100 requests are to be answered, by the bundle's budget; None without.
        origin: what the bundle was made from, as JSON; "" if it does not say.
        context: the values that the model knows of each feature of a request, by name; empty if it takes none.
    """

    name: str
    version: str
    history_length: int
    list_length: int
    max_batch_size: int
    slo_ms: float | None = None
    origin: str = ""
    context: Mapping[str, tuple[str, ...]] = field(default_factory=dict, hash=False)

    @property
    def bundle(self) -> str:
        """The name, the version, and what it was made from: no other bundle has the same."""
        return f"{self.name}/{self.version}/{self.origin}"


def read_model_info(config: Any, versions: Iterable[str], model_version: str) -> ModelInfo:
    """Reads a ModelInfo from a ModelConfig message and the versions that are loaded.

    Args:
        config: the message.
        versions: the versions, such as "3".
        model_version: the version that the client asks for; "" is the newest, as in Triton.

    Raises:
        ProtocolError: this is not a Trireme entry model.
    """
    inputs = {tensor.name: tensor for tensor in config.input}
    outputs = {tensor.name: tensor for tensor in config.output}
    _width(config.name, "input", inputs, USER_ID, "TYPE_INT64", 1)
    history_length = _width(config.name, "input", inputs, HISTORY, "TYPE_INT64")
    list_length = _width(config.name, "output", outputs, ITEM_ID, "TYPE_INT64")
    _width(config.name, "output", outputs, SCORE, "TYPE_FP32", list_length)
    for name in (RUNG, REASON):
        _width(config.name, "output", outputs, name, "TYPE_UINT8", 1)
    _width(config.name, "output", outputs, FEATURE_AGE, "TYPE_FP32", 1)
    if config.max_batch_size < 1:
        raise ProtocolError(f"model {config.name!r} has max_batch_size {config.max_batch_size}; allowed: >= 1")
    newest = max((version for version in versions if version.isdecimal()), key=int, default="")
    size, slo, context = config.max_batch_size, _slo_ms(config), _context(config, inputs)
    origin = config.parameters[ORIGIN].string_value if ORIGIN in config.parameters else ""
    return ModelInfo(config.name, model_version or newest, history_length, list_length, size, slo, origin, context)


def _context(config: Any, inputs: dict[str, Any]) -> dict[str, tuple[str, ...]]:
    """Returns the values of each feature of a request, by name in the order of the tensor."""
    if CONTEXT not in inputs:
        return {}
    width = _width(config.name, "input", inputs, CONTEXT, "TYPE_INT32")
    text = config.parameters[CONTEXT].string_value if CONTEXT in config.parameters else ""
    try:
        context = {str(name): tuple(map(str, values)) for name, values in json.loads(text).items()}
    except (ValueError, TypeError, AttributeError):
        context = {}
    if len(context) != width:
        allowed = f"JSON with the values of {width} names"
        raise ProtocolError(f"model {config.name!r} has the parameter {CONTEXT!r} {text!r:.60}; allowed: {allowed}")
    return context


def _slo_ms(config: Any) -> float | None:
    if BUDGET not in config.parameters:
        return None
    text = config.parameters[BUDGET].string_value
    try:
        return float(json.loads(text)["p99_ms"])
    except (ValueError, KeyError, TypeError):
        allowed = "JSON with the number p99_ms"
        raise ProtocolError(
            f"model {config.name!r} has the parameter {BUDGET!r} {text!r}; allowed: {allowed}"
        ) from None


def _width(model: str, role: str, tensors: dict[str, Any], name: str, data_type: str, width: int = 0) -> int:
    """Returns the only dimension of a tensor after checking it and the type; ``width`` is the one allowed (0: any)."""
    if name not in tensors:
        raise ProtocolError(f"model {model!r} has no {role} {name!r}: it is not a Trireme entry model")
    tensor = tensors[name]
    found = tensor.DESCRIPTOR.fields_by_name["data_type"].enum_type.values_by_number[tensor.data_type].name
    dims = list(tensor.dims)
    if found != data_type or len(dims) != 1 or dims[0] < 1 or (width and dims[0] != width):
        allowed = f"{data_type} [{width or 'a fixed length'}]"
        raise ProtocolError(f"model {model!r} has the {role} {name!r} as {found} {dims}; allowed: {allowed}")
    return int(dims[0])
