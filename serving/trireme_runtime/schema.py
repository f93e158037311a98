"""The tensors of the pipeline: the one place where names, dtypes and shapes are written down.

Every stage, every ``config.pbtxt`` and the exporter agree with this module (a contract test holds it).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np

__all__ = [
    "AUTO",
    "BUDGET",
    "CHAINS",
    "ENTRY",
    "EXCLUDE",
    "FUSED",
    "INSTANCES",
    "LEDGER",
    "MODELS",
    "ORIGIN",
    "OTLP_ENDPOINT",
    "STAGES",
    "STEPS",
    "STORED",
    "TRANSPORT",
    "Dims",
    "K",
    "Signature",
    "Tensor",
]

#: The time of a request outside of all stages: client, network, queues and the hops between models.
TRANSPORT = "transport"
#: Parameter of an entry model's config: the SLO and the share of every stage, as JSON.
BUDGET = "budget"
#: Parameter of an entry model's config: what the bundle was exported from, as JSON.
ORIGIN = "origin"
#: Parameter of a model's config, and its value where the server decides how many instances it runs.
INSTANCES, AUTO = "instances", "auto"
#: Environment variable of OpenTelemetry: where spans go. The stages send some only if it is set.
OTLP_ENDPOINT = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"

#: The first value of a row of `history` that says: use the stored history. The rest of the row is ignored.
STORED = -2

#: Parameter of a request: items that its lists must not hold, as "12,15;;7" for three users.
EXCLUDE = "exclude"
#: Parameter of a request: how many items of each list it wants. The answer has no more of them, and all of them without it.
K = "k"

ENTRY = "recommend"
FUSED = "recommend_fused"

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

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if value < 1:
                raise ValueError(f"dims.{name} is {value}, must be at least 1")
        if self.list_length > self.candidates:
            raise ValueError(
                f"dims.list_length is {self.list_length}, must be at most dims.candidates {self.candidates}"
            )


@dataclass(frozen=True)
class Tensor:
    """One tensor: ``dim`` names the field of ``Dims`` that is its length, or is a plain number."""

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
USER_ROW = Tensor("user_row", "int32", 1)
HISTORY_INDEX = Tensor("history_index", "int32", "history")
USER_CATEGORY = Tensor("user_category", "int32", "category")
USER_NUMBER = Tensor("user_number", "float32", "number")
QUERY = Tensor("query", "float32", "query")
CANDIDATE_INDEX = Tensor("candidate_index", "int32", "candidates")
RETRIEVAL_SCORE = Tensor("retrieval_score", "float32", "candidates")
RANKING_SCORE = Tensor("ranking_score", "float32", "candidates")
ITEM_ID = Tensor("item_id", "int64", "list_length")
SCORE = Tensor("score", "float32", "list_length")
RUNG = Tensor("rung", "uint8", 1)
REASON = Tensor("reason", "uint8", 1)
FEATURE_AGE = Tensor("feature_age_s", "float32", 1)

_ENTRY_SIGNATURE = Signature((USER_ID, HISTORY), (ITEM_ID, SCORE, RUNG, REASON, FEATURE_AGE))

#: The stages in the order of a request.
STAGES: Mapping[str, Signature] = {
    "feature_transform": Signature((USER_ID, HISTORY), (USER_ROW, HISTORY_INDEX, USER_CATEGORY, USER_NUMBER)),
    "user_tower": Signature((HISTORY_INDEX, USER_CATEGORY, USER_NUMBER), (QUERY,)),
    "retrieval": Signature((QUERY, USER_ROW, HISTORY_INDEX), (CANDIDATE_INDEX, RETRIEVAL_SCORE)),
    "ranking": Signature(
        (QUERY, HISTORY_INDEX, USER_CATEGORY, USER_NUMBER, CANDIDATE_INDEX, RETRIEVAL_SCORE),
        (RANKING_SCORE,),
    ),
    "reranking": Signature(
        (USER_ROW, HISTORY_INDEX, USER_CATEGORY, CANDIDATE_INDEX, RETRIEVAL_SCORE, RANKING_SCORE),
        (ITEM_ID, SCORE, RUNG, REASON, FEATURE_AGE),
    ),
}

#: Answered only to requests with the parameter of this name: for each user the number of users in their batch, the number of
#: requests in it, and the ns that each stage computed, in the order of the stages.
LEDGER = Tensor("ledger", "int64", 2 + len(STAGES), optional=True)

#: The steps of the ensemble, and the stages that each runs. A hop between two Triton models costs more than most stages, so
#: neighbours share one where nothing is lost: retrieval stays alone, the others go with what they prepare or finish.
STEPS: Mapping[str, tuple[str, ...]] = {
    "features": ("feature_transform", "user_tower"),
    "retrieval": ("retrieval",),
    "ranking": ("ranking", "reranking"),
}

#: The stages that each Python model runs.
CHAINS: Mapping[str, tuple[str, ...]] = {**STEPS, FUSED: tuple(STAGES)}


def _chain_signature(stages: tuple[str, ...]) -> Signature:
    """The inputs are what the stages do not make themselves, the outputs what other stages read."""
    inside = [tensor for name in stages for tensor in STAGES[name].outputs]
    read = [tensor for name in stages for tensor in STAGES[name].inputs]
    others = [tensor for name in STAGES if name not in stages for tensor in STAGES[name].inputs]
    outputs = [tensor for tensor in inside if tensor in others or tensor in _ENTRY_SIGNATURE.outputs]
    return Signature(tuple(dict.fromkeys(tensor for tensor in read if tensor not in inside)), tuple(outputs))


_FUSED_SIGNATURE = _chain_signature(CHAINS[FUSED])

#: Every model of the authored repository.
MODELS: Mapping[str, Signature] = {
    ENTRY: _ENTRY_SIGNATURE,
    **{name: _chain_signature(stages) for name, stages in STEPS.items()},
    FUSED: Signature(_FUSED_SIGNATURE.inputs, (*_FUSED_SIGNATURE.outputs, LEDGER)),
}
