"""The tensors of the pipeline: the one place where names, dtypes and shapes are written down.

Every stage, every ``config.pbtxt`` and the exporter agree with this module (a contract test holds it).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

import numpy as np

__all__ = [
    "AUTO",
    "BACKGROUND",
    "BUDGET",
    "BUSY_PREFIX",
    "CLASS",
    "CONTEXT",
    "CONTEXT_VALUES",
    "ENTRY",
    "EXCLUDE",
    "FUSED",
    "INSTANCES",
    "INTERACTIVE",
    "LAYOUTS",
    "LEDGER",
    "ORIGIN",
    "OTLP_ENDPOINT",
    "PARITY",
    "RUNS",
    "SENT",
    "SENT_CLOCK",
    "SIGNATURES",
    "STAGES",
    "STORED",
    "STREAM",
    "TELLS_CLOCK",
    "TELL_CLOCK",
    "TRANSPORT",
    "VOCABULARY",
    "Dims",
    "K",
    "Layout",
    "Signature",
    "Tensor",
    "batch_profile",
    "signature_of",
    "stages_of",
]

#: The time of a request outside of all stages: client, network, queues and the hops between models.
TRANSPORT = "transport"
#: Parameter of an entry model's config: the SLO and the share of every stage, as JSON.
BUDGET = "budget"
#: Parameter of an entry model's config: the columns of the context and the values of each, from index 1 on, as JSON.
CONTEXT_VALUES = "context"
#: Parameter of an entry model's config: what the bundle was exported from, as JSON.
ORIGIN = "origin"
#: Parameter of a model's config, and its value where the server decides how many instances it runs.
INSTANCES, AUTO = "instances", "auto"
#: Parameter of a model's config: the stages that it runs, separated by commas.
RUNS = "stages"
#: Parameter of a graph's config: how far its answers may be from those that the export saw, as JSON.
PARITY = "parity"
#: Environment variable of OpenTelemetry: where spans go. The stages send some only if it is set.
OTLP_ENDPOINT = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"
#: Environment variable: where an instance tells since when it has been computing, as the beginning of the path of its file.
BUSY_PREFIX = "TRIREME_BUSY_PREFIX"

#: The first value of a row of `history` that says: use the stored history. The rest of the row is ignored.
STORED = -2

#: Parameter of a request: items that its lists must not hold, as "12,15;;7" for three users.
EXCLUDE = "exclude"
#: Parameter of a request, and its values: what gives way first where more waits than the server can answer in full.
CLASS, INTERACTIVE, BACKGROUND = "class", "interactive", "background"
#: Parameters of a request: when it was sent, ns on the monotonic clock of the server's machine; and the number of that clock, by
#: which a time of another machine is told apart. Without a number it counts as this machine's.
SENT, SENT_CLOCK = "sent", "sent_clock"
#: Parameter of a request: the CRC-32 of the names and values that the indices of its context are of, as JSON.
#: A model with others takes the context for unknown.
VOCABULARY = "vocabulary"
#: Parameter of a request that wants no list: `item_id` is the server's clock now and its number instead.
TELL_CLOCK = "tell_clock"
#: The `reason` of such an answer. It is no reason of a list.
TELLS_CLOCK = 255
#: Parameter of a request: how many items of each list it wants. The answer has no more of them, and all of them without it.
K = "k"

ENTRY = "recommend"
FUSED = "recommend_fused"
#: Answers a request twice, where the export was told to write it.
STREAM = "recommend_stream"

TRITON_DTYPES = {"int64": "TYPE_INT64", "int32": "TYPE_INT32", "float32": "TYPE_FP32", "uint8": "TYPE_UINT8"}


@dataclass(frozen=True)
class Dims:
    """The sizes that a bundle fixes. Every tensor has the batch (users) in front of them."""

    history: int
    """L, most recent items of a user that the models read."""
    candidates: int
    """C, items that retrieval hands to ranking."""
    list_length: int
    """K, items in an answer."""
    query: int
    """Length of the user vector and of an item vector."""
    category: int
    """F, categorical features of a user, at least 1."""
    number: int
    """D, numerical features of a user; the last one is log1p(length of the history)."""
    catalogue: int
    """N, items."""
    context: int = 0
    """Features of a request; they are the last of the F categories."""

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if value < (least := 0 if name == "context" else 1):
                raise ValueError(f"dims.{name} is {value}, must be at least {least}")
        if self.list_length > self.candidates:
            raise ValueError(
                f"dims.list_length is {self.list_length}, must be at most dims.candidates {self.candidates}"
            )

    @property
    def catalogue_bytes(self) -> int:
        """Bytes of a mask with a bit for every item."""
        return -(-self.catalogue // 8)


@dataclass(frozen=True)
class Tensor:
    """One tensor: ``dim`` names the attribute of ``Dims`` that is its length, or is a plain number."""

    name: str
    dtype: str
    dim: str | int
    optional: bool = False

    @property
    def numpy_dtype(self) -> np.dtype:
        return np.dtype(self.dtype)

    @property
    def triton_dtype(self) -> str:
        return TRITON_DTYPES[self.dtype]

    def length(self, dims: Dims) -> int:
        return self.dim if isinstance(self.dim, int) else int(getattr(dims, self.dim))


@dataclass(frozen=True)
class Signature:
    """Inputs and outputs of one model, in order."""

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]

    @property
    def answered(self) -> tuple[Tensor, ...]:
        """The outputs that every answer has."""
        return tuple(tensor for tensor in self.outputs if not tensor.optional)


USER_ID = Tensor("user_id", "int64", 1)
HISTORY = Tensor("history", "int64", "history", optional=True)
#: In repositories of data with a context; the export takes it out of the configs of others.
CONTEXT = Tensor("context", "int32", "context", optional=True)
USER_ROW = Tensor("user_row", "int32", 1)
HISTORY_INDEX = Tensor("history_index", "int32", "history")
USER_CATEGORY = Tensor("user_category", "int32", "category")
USER_NUMBER = Tensor("user_number", "float32", "number")
FRESHNESS = Tensor("freshness", "float32", 1)
QUERY = Tensor("query", "float32", "query")
CANDIDATE_INDEX = Tensor("candidate_index", "int32", "candidates")
RETRIEVAL_SCORE = Tensor("retrieval_score", "float32", "candidates")
RANKING_SCORE = Tensor("ranking_score", "float32", "candidates")
ITEM_ID = Tensor("item_id", "int64", "list_length")
SCORE = Tensor("score", "float32", "list_length")
RUNG = Tensor("rung", "uint8", 1)
REASON = Tensor("reason", "uint8", 1)
FEATURE_AGE = Tensor("feature_age_s", "float32", 1)

_ENTRY_SIGNATURE = Signature((USER_ID, HISTORY, CONTEXT), (ITEM_ID, SCORE, RUNG, REASON, FEATURE_AGE))

#: The stages in the order of a request.
STAGES: Mapping[str, Signature] = {
    "feature_transform": Signature(
        (USER_ID, HISTORY, CONTEXT), (USER_ROW, HISTORY_INDEX, USER_CATEGORY, USER_NUMBER, FRESHNESS)
    ),
    "user_tower": Signature((HISTORY_INDEX, USER_CATEGORY, USER_NUMBER), (QUERY,)),
    "retrieval": Signature((QUERY, USER_ROW, HISTORY_INDEX), (CANDIDATE_INDEX, RETRIEVAL_SCORE)),
    "ranking": Signature(
        (QUERY, HISTORY_INDEX, USER_CATEGORY, USER_NUMBER, CANDIDATE_INDEX, RETRIEVAL_SCORE),
        (RANKING_SCORE,),
    ),
    "reranking": Signature(
        (USER_ROW, HISTORY_INDEX, USER_CATEGORY, FRESHNESS, CANDIDATE_INDEX, RETRIEVAL_SCORE, RANKING_SCORE),
        (ITEM_ID, SCORE, RUNG, REASON, FEATURE_AGE),
    ),
}

#: Answered only to requests with the parameter of this name: for each user the number of users in their batch, the number of
#: requests in it, and the ns that each stage computed, in the order of the stages.
LEDGER = Tensor("ledger", "int64", 2 + len(STAGES), optional=True)

#: A bit for every item, eight to a byte, the first one lowest: 1 for what the user has seen or the request excludes.
EXCLUDED_ITEMS = Tensor("excluded_items", "uint8", "catalogue_bytes")

#: The stages, and a sixth array function that only a graph of the whole funnel needs, which cannot look up who has seen what.
SIGNATURES: Mapping[str, Signature] = {
    **STAGES,
    "exclusion": Signature((USER_ROW, HISTORY_INDEX), (EXCLUDED_ITEMS,)),
}


@dataclass(frozen=True)
class Layout:
    """The Triton models of a target, in the order of a request, and the stages that each runs.

    A plan of several models is chained by an ensemble; ``graphs`` are models that hold an ONNX graph, the others are Python's.
    ``stream``, which may be added to any plan, is empty for a target that cannot answer twice.
    """

    ensemble: Mapping[str, tuple[str, ...]]
    fused: Mapping[str, tuple[str, ...]]
    graphs: frozenset[str] = frozenset()
    stream: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def models(self) -> Mapping[str, tuple[str, ...]]:
        """All of them."""
        return {**self.ensemble, **self.fused, **self.stream}

    def names(self, plan: str, stream: bool = False) -> dict[str, str]:
        """Returns the authored model by the name that it gets in a repository of ``plan``: ensemble, fused or both.

        stream: whether the model that answers twice is in it, too.
        """
        ensemble = {name: name for name in (ENTRY, *self.ensemble)}
        fused = {name: name for name in (FUSED, *self.fused)}
        plans = {
            "ensemble": ensemble,
            "fused": {ENTRY if name == FUSED else name: name for name in fused},
            "both": {**ensemble, **fused},
        }
        return {**plans[plan], **{name: name for name in self.stream if stream}}

    def signature(self, model: str) -> Signature:
        """Inputs and outputs of a model of the target's authored repository."""
        if model not in self.models:
            return _ENTRY_SIGNATURE
        signature = signature_of(self.models[model])
        if model not in self.graphs:
            return signature
        # A graph cannot look up who has seen what.
        inputs = (EXCLUDED_ITEMS if tensor == USER_ROW else tensor for tensor in signature.inputs)
        return Signature(tuple(inputs), signature.outputs)


#: By target. On a CPU, a hop between two Triton models costs more than most stages, so neighbours share one where nothing is
#: lost: retrieval stays alone, the others go with what they prepare or finish. A plan of TensorRT holds a graph and nothing
#: else, so there the tower and the ranker stand alone; or they are one graph with the search between them.
LAYOUTS: Mapping[str, Layout] = {
    "cpu": Layout(
        ensemble={
            "features": ("feature_transform", "user_tower"),
            "retrieval": ("retrieval",),
            "ranking": ("ranking", "reranking"),
        },
        fused={FUSED: tuple(STAGES)},
        stream={STREAM: tuple(STAGES)},
    ),
    "gpu": Layout(
        ensemble={stage: (stage,) for stage in STAGES},
        fused={
            "features": ("feature_transform", "exclusion"),
            "funnel": ("user_tower", "retrieval", "ranking"),
            "reranking": ("reranking",),
        },
        graphs=frozenset({"user_tower", "ranking", "funnel"}),
    ),
}


def batch_profile(max_batch_size: int) -> tuple[int, int, int]:
    """Returns the least, the usual and the largest batch of a graph: TensorRT chooses its kernels for the second.

    Under load, Triton's batches fill up, and without load they are small; a kernel chosen for the middle is never far from right.
    """
    return 1, max(1, max_batch_size // 2), max_batch_size


def signature_of(stages: tuple[str, ...]) -> Signature:
    """Returns what ``stages`` in a row need, and what they make for others; all of them together answer a ledger, too."""
    inside = [tensor for name in stages for tensor in SIGNATURES[name].outputs]
    read = [tensor for name in stages for tensor in SIGNATURES[name].inputs]
    others = [tensor for name in STAGES if name not in stages for tensor in STAGES[name].inputs]
    wanted = {*others, *_ENTRY_SIGNATURE.outputs, EXCLUDED_ITEMS}
    outputs = [*(tensor for tensor in inside if tensor in wanted), *([LEDGER] if stages == tuple(STAGES) else [])]
    return Signature(tuple(dict.fromkeys(tensor for tensor in read if tensor not in inside)), tuple(outputs))


def stages_of(runs: str) -> tuple[str, ...]:
    """Returns the stages that a model runs, from the parameter ``RUNS`` of its config; all of them where it has none."""
    return tuple(runs.split(",")) if runs else tuple(STAGES)
