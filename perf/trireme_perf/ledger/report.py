"""The ledger as figures: the difference of two readings of Triton's statistics, divided by the number of requests."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from trireme_perf.errors import PerfError
from trireme_perf.ledger.histograms import Histograms
from trireme_perf.ledger.statistics import PARTS, Statistics
from trireme_perf.stats.percentiles import FEWEST_FOR_P99

__all__ = ["ColdStart", "Ledger", "StagePercentiles", "StageTime", "ledger_between"]

#: The stages that each model runs, in the order of a request.
Runs = Mapping[str, tuple[str, ...]]
ENGINE_NAMES = {"tensorrt": "TensorRT", "onnxruntime": "Triton's backend for ONNX Runtime"}


@dataclass(frozen=True)
class StageTime:
    """Mean µs per request in one stage, the mean batch that was computed, and the share of the end-to-end time."""

    stage: str
    queue_us: float
    input_us: float
    compute_us: float
    output_us: float
    batch: float
    share: float
    budget_us: float | None = None
    """What its stages may compute in the median request; None where the bundle has no budget."""

    @property
    def within_budget(self) -> bool | None:
        """Whether the mean compute time is; None without a budget."""
        return None if self.budget_us is None else self.compute_us <= self.budget_us

    @property
    def total_us(self) -> float:
        return self.queue_us + self.input_us + self.compute_us + self.output_us


@dataclass(frozen=True)
class StagePercentiles:
    """What one stage computed per batch, µs; the mean of that as a share of the mean request's time on the server; and what the
    budget gives the stage of the SLO on p99, None without a budget."""

    model: str
    stage: str
    batches: int
    p50_us: float
    p95_us: float
    p99_us: float
    share: float
    budget_us: float | None

    @property
    def within_budget(self) -> bool | None:
        return None if self.budget_us is None else self.p99_us <= self.budget_us


@dataclass(frozen=True)
class ColdStart:
    """What a model took before it was of use: to load, from the start of its process, and for its very first batch, which
    its ``model_warmup`` sends, so that no user waits for it. Of several instances, the one that came last."""

    model: str
    load_s: float
    first_batch_ms: float


@dataclass(frozen=True)
class Ledger:
    """``unaccounted_us`` is what no stage claims: the server's own work between the stages."""

    model: str
    requests: int
    end_to_end_us: float
    stages: list[StageTime]
    unaccounted_us: float
    overlap_us: float
    """Output time that ran beside the next stage; it is not in ``stages``."""
    warmup_requests: int
    """Requests that stages answered beyond those of the entry, per stage."""
    slo: Mapping[str, float] = field(default_factory=dict)
    """``p50_ms`` and ``p99_ms`` of the bundle's budget; empty where it has none."""
    percentiles: list[StagePercentiles] = field(default_factory=list)
    """Of every stage, in the order of a request; empty where the metrics were not read."""
    cold_start: list[ColdStart] = field(default_factory=list)
    """Of every model; empty where the metrics were not read."""
    stand_ins: Mapping[str, str] = field(default_factory=dict)
    """By model, the engine in whose place ONNX Runtime on the CPU serves it; empty where the metrics were not read."""

    @property
    def notes(self) -> list[str]:
        """What a reader must know of where the figures come from."""
        return [
            f"{model}: a stand-in, ONNX Runtime on the CPU in place of {ENGINE_NAMES.get(engine, engine)}"
            for model, engine in self.stand_ins.items()
        ]

    def to_dict(self) -> dict[str, Any]:
        """Returns it for JSON; a p99 of too few batches is None there, and so is its verdict. Of stand-ins, the models' names."""
        stages = [{**asdict(stage), "within_budget": stage.within_budget} for stage in self.stages]
        percentiles = [_percentiles_document(stage) for stage in self.percentiles]
        return {**asdict(self), "stages": stages, "percentiles": percentiles, "stand_ins": list(self.stand_ins)}


def _percentiles_document(stage: StagePercentiles) -> dict[str, Any]:
    document = {**asdict(stage), "within_budget": stage.within_budget}
    return document if stage.batches >= FEWEST_FOR_P99 else {**document, "p99_us": None, "within_budget": None}


def ledger_between(
    model: str,
    stages: Runs,
    budget: Mapping[str, Any],
    before: Statistics,
    after: Statistics,
    spent: Histograms | None = None,
) -> Ledger:
    """What the server answered between two readings of its statistics.

    Args:
        stages, budget: as a ``StatisticsReader`` has them.
        before: empty for all since the server started.
        spent: what its stages computed in that time; adds their percentiles.

    Raises:
        PerfError: no request was answered.
    """
    ledger = _with_budget(_difference(model, stages, before, after), stages, budget)
    return replace(ledger, percentiles=_percentiles(spent or {}, stages, budget, ledger.end_to_end_us))


def _difference(model: str, stages: Iterable[str], before: Statistics, after: Statistics) -> Ledger:
    spent = {
        name: {key: value - before.get(name, {}).get(key, 0) for key, value in figures.items()}
        for name, figures in after.items()
    }
    requests = spent[model].get("requests", 0)
    if not requests:
        raise PerfError(f"model {model!r} answered no request in the time watched: send some, or watch for longer")
    whole = spent[model]["success"] / requests / 1000
    rows, overlap = _without_overlap([_stage(name, spent[name], whole) for name in stages], whole)
    extra = max(spent[name].get("requests", 0) for name in stages) - requests
    return Ledger(model, requests, whole, rows, whole - sum(row.total_us for row in rows), overlap, max(extra, 0))


def _percentiles(spent: Histograms, models: Runs, budget: Mapping[str, Any], whole_us: float) -> list[StagePercentiles]:
    rows = []
    for model, stages in models.items():
        for stage in stages:
            if (histogram := spent.get((model, stage))) is not None:
                p50, p95, p99 = (histogram.percentile_us(percent) for percent in (50, 95, 99))
                part = budget.get("shares", {}).get(stage)  # exclusion has none: the budget counts it as retrieval
                allowed = 1000 * budget["p99_ms"] * part if part else None
                share = histogram.mean_us / whole_us
                rows.append(StagePercentiles(model, stage, int(histogram.count), p50, p95, p99, share, allowed))
    return rows


def _with_budget(ledger: Ledger, models: Runs, budget: Mapping[str, Any]) -> Ledger:
    """A model may take of the SLO on p50 what its stages may."""
    if not budget:
        return ledger
    shares = budget["shares"]
    rows = [
        replace(row, budget_us=1000 * budget["p50_ms"] * sum(shares.get(name, 0.0) for name in models[row.stage]))
        for row in ledger.stages
    ]
    return replace(ledger, stages=rows, slo={key: budget[key] for key in ("p50_ms", "p99_ms")})


def _without_overlap(rows: list[StageTime], whole: float) -> tuple[list[StageTime], float]:
    """Takes what exceeds ``whole`` off the outputs of all stages but the last, in proportion; also returns it, in µs."""
    outputs = sum(row.output_us for row in rows[:-1])
    overlap = min(max(sum(row.total_us for row in rows) - whole, 0.0), outputs)
    if not overlap:
        return rows, 0.0
    kept = 1 - overlap / outputs
    shorter = [replace(row, output_us=row.output_us * kept) for row in rows[:-1]] + rows[-1:]
    return [replace(row, share=row.total_us / whole) for row in shorter], overlap


def _stage(name: str, spent: Mapping[str, int], whole: float) -> StageTime:
    requests = max(spent.get("requests", 0), 1)
    parts = {f"{part}_us": spent.get(part, 0) / requests / 1000 for part in PARTS}
    batch = spent.get("users", 0) / max(spent.get("executions", 0), 1)
    return StageTime(stage=name, batch=batch, share=sum(parts.values()) / whole if whole else 0.0, **parts)
