"""``pipeline.yaml``: everything that can be set, with its default. Unknown keys are refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from trireme_export.data.options import DataConfig
from trireme_export.data.split import SplitBy
from trireme_export.section import ConfigError, Section, read_section
from trireme_export.training.options import TrainingConfig
from trireme_runtime.schema import STAGES, TRANSPORT

__all__ = ["BudgetConfig", "ConfigError", "DataConfig", "GateConfig", "PipelineConfig", "ServingConfig", "load_config"]


#: Sections that an export may take from another file: the models do not depend on them.
EXPORTED = {"serving", "gate", "budget"}


class ServingConfig(Section):
    """Sizes that a bundle fixes, and how Triton runs it."""

    candidates: int = Field(200, ge=1, le=10_000, description="C, items that retrieval hands to ranking")
    list_length: int = Field(200, ge=1, le=10_000, description="K, items in an answer, at most candidates")
    max_batch_size: int = Field(64, ge=1, le=4096, description="largest number of users in one batch")
    max_queue_delay_us: int = Field(
        0, ge=0, le=1_000_000, description="longest wait of each model for a batch to fill, µs; 0 = only what queues"
    )
    index: Literal["auto", "exact", "ivf"] = Field(
        "auto",
        description="how retrieval searches; auto = on a CPU, exact until an approximate index is clearly faster; for target "
        "gpu, exact, as the graph of its fused plan is in any case",
    )
    precision: Literal["auto", "float32", "float16", "int8"] = Field(
        "auto",
        description="of the models; auto = on a CPU, float32 in compiled form, or, for an own ranker, int8 where it is clearly "
        "faster and the gate accepts it; for TensorRT, float16. int8 is for target cpu, float16 for target gpu",
    )
    cuda_graphs: bool = Field(
        False,
        description="whether TensorRT replays its launches for batches of 1, half the largest and the largest; off because "
        "releases of Triton answered with earlier requests' results (triton-inference-server/server issue 8550)",
    )
    stream: bool = Field(
        False,
        description="whether there is a model `recommend_stream` as well, which answers each request twice: in the order of "
        "retrieval, then ranked; for target cpu. See [answers in two steps](streaming.md) for where it pays",
    )
    instances: int | None = Field(
        None,
        ge=1,
        le=256,
        description="number of instances of each model; default one per CPU of the machine that serves, or per GPU",
    )

    @model_validator(mode="after")
    def _sizes(self) -> ServingConfig:
        if self.list_length > self.candidates:
            raise ValueError(f"list_length {self.list_length} must not exceed candidates {self.candidates}")
        return self


class GateConfig(Section):
    """What an export may lose against the float32 models with exact search. One that loses more fails."""

    index_recall: float = Field(0.98, gt=0, le=1, description="share of the exact candidates that the index must find")
    score_difference: float = Field(
        0.03, ge=0, description="root mean square error of a quantised ranker's scores, over their standard deviation"
    )
    ndcg_loss: float = Field(0.005, ge=0, le=1, description="relative loss of NDCG@10 of the whole funnel")
    recall_loss: float = Field(0.005, ge=0, le=1, description="relative loss of Recall@200 of the whole funnel")
    users: int = Field(10_000, ge=1, description="largest number of test users who are asked")


class BudgetConfig(Section):
    """The end-to-end SLO of one request, seen by the client, and the part of it that each stage may take."""

    p50_ms: float = Field(10.0, gt=0, description="time within which half of the requests are answered, ms")
    p99_ms: float = Field(20.0, gt=0, description="time within which 99 of 100 requests are answered, ms")
    shares: dict[str, float] = Field(
        {
            "feature_transform": 0.05,
            "user_tower": 0.15,
            "retrieval": 0.25,
            "ranking": 0.2,
            "reranking": 0.1,
            "transport": 0.25,
        },
        description="share of both for each stage; transport = client, network, queues and hops; must add up to 1",
    )

    @model_validator(mode="after")
    def _adds_up(self) -> BudgetConfig:
        if self.p99_ms < self.p50_ms:
            raise ValueError(f"p99_ms {self.p99_ms:g} must not be below p50_ms {self.p50_ms:g}")
        wanted = [*STAGES, TRANSPORT]
        for name, share in self.shares.items():
            if name not in wanted:
                raise ValueError(f"shares names {name!r}; allowed: {', '.join(wanted)}")
            if not 0 < share < 1:
                raise ValueError(f"shares.{name} is {share:g}; allowed: above 0, below 1")
        if missing := [name for name in wanted if name not in self.shares]:
            raise ValueError(f"shares lacks {', '.join(missing)}")
        if abs((total := sum(self.shares.values())) - 1) > 1e-6:
            raise ValueError(f"shares add up to {total:g}; they must add up to 1")
        return self


class PipelineConfig(Section):
    """The whole of pipeline.yaml."""

    data: DataConfig = Field(DataConfig(), description="columns, split and features")
    training: TrainingConfig = Field(TrainingConfig(), description="models and their training")
    serving: ServingConfig = Field(ServingConfig(), description="sizes and batching of the bundle")
    gate: GateConfig = Field(GateConfig(), description="what approximation may cost")
    budget: BudgetConfig = Field(BudgetConfig(), description="the SLO, and what each stage may take of it")

    def with_holdout(self, share: float) -> PipelineConfig:
        """Returns a copy with ``data.holdout_users`` set to ``share``.

        Raises:
            ConfigError: ``share`` is not in [0, 1).
        """
        if not 0 <= share < 1:
            raise ConfigError(f"data.holdout_users: {share} is not allowed; a share from 0 to below 1")
        return self._with_data(holdout_users=share)

    def with_split(self, by: SplitBy) -> PipelineConfig:
        """Returns a copy with ``data.split_by`` set to ``by``."""
        return self._with_data(split_by=by)

    def with_validation(self) -> PipelineConfig:
        """Returns a copy with ``data.validation`` set."""
        return self._with_data(validation=True)

    def with_seed(self, seed: int) -> PipelineConfig:
        """Returns a copy in which ``seed`` decides the training and who is held out: ``training.seed``, ``data.holdout_seed``."""
        training = self.training.model_copy(update={"seed": seed})
        return self._with_data(holdout_seed=seed).model_copy(update={"training": training})

    def for_export(self, given: PipelineConfig) -> PipelineConfig:
        """Returns a copy with the sections ``serving``, ``gate`` and ``budget`` that ``given`` holds.

        Raises:
            ConfigError: ``given`` holds another section that differs from this one, which a checkpoint was trained with.
        """
        sections = {name: getattr(given, name) for name in given.model_fields_set}
        for name in sections.keys() - EXPORTED:
            for key, wanted, trained in _differences(name, sections[name], getattr(self, name)):
                raise ConfigError(
                    f"{key} is {wanted!r}, the checkpoint was trained with {trained!r}; allowed: the same, or train again"
                )
        return self.model_copy(update={name: sections[name] for name in EXPORTED & sections.keys()})

    def _with_data(self, **changes: Any) -> PipelineConfig:
        return self.model_copy(update={"data": self.data.model_copy(update=changes)})


def _differences(key: str, one: Any, other: Any) -> Iterator[tuple[str, Any, Any]]:
    """Yields the keys below ``key`` whose values differ, with both values."""
    if isinstance(one, Section):
        for name in type(one).model_fields:
            yield from _differences(f"{key}.{name}", getattr(one, name), getattr(other, name))
    elif one != other:
        yield key, one, other


def load_config(path: Path | str | None) -> PipelineConfig:
    """Reads a pipeline.yaml; without one, everything is inferred or has its default.

    Raises:
        ConfigError: the file is missing, is not YAML, or holds an unknown key or a value that is not allowed.
    """
    return PipelineConfig() if path is None else read_section(Path(path), PipelineConfig)
