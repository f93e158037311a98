"""Where the time of a request went, from the statistics that Triton keeps per composing model.

Triton adds up, per model, how long requests waited, how long their inputs were gathered, how long the model computed
and how long outputs were scattered, and for the entry how long requests took from end to end. The ledger is the
difference of two readings, divided by the number of requests: means, no percentiles.

In an ensemble the next stage begins when the one before has sent its outputs, while Triton still counts the end of that sending
as output. What is counted twice so is taken off the outputs of the stages before the last, and reported as ``overlap_us``.

A bundle's budget gives every model the sum of its stages' shares of the SLO on p50; what it computes, in the mean, is held
against that. Queues, inputs and outputs belong to the share of transport.

Since the start of the server, the stages have also answered the requests of their ``model_warmup``, which the entry
has not: ``warmup_requests`` says how many, and until they are few against ``requests``, watch for a while instead.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from trireme_perf.errors import PerfError
from trireme_perf.histograms import Histograms, between, read_histograms
from trireme_stages.schema import BUDGET, STAGES, STEPS

__all__ = [
    "Ledger",
    "StagePercentiles",
    "StageTime",
    "Statistics",
    "StatisticsReader",
    "Watched",
    "ledger_between",
    "read_ledger",
    "watch_ledger",
]

COUNTED_WITHIN_S = 0.2
TIMEOUT_S = 5.0
PARTS = {"queue": "queue", "input": "compute_input", "compute": "compute_infer", "output": "compute_output"}

#: {model: {figure: value}}, counted since the server started
Statistics = Mapping[str, Mapping[str, int]]


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
    """What one stage computed per batch, µs, and what the budget gives it of the SLO on p99; None without a budget."""

    model: str
    stage: str
    batches: int
    p50_us: float
    p95_us: float
    p99_us: float
    budget_us: float | None

    @property
    def within_budget(self) -> bool | None:
        return None if self.budget_us is None else self.p99_us <= self.budget_us


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

    def to_dict(self) -> dict[str, Any]:
        stages = [{**asdict(stage), "within_budget": stage.within_budget} for stage in self.stages]
        percentiles = [{**asdict(stage), "within_budget": stage.within_budget} for stage in self.percentiles]
        return {**asdict(self), "stages": stages, "percentiles": percentiles}


@dataclass
class Watched:
    """Filled when the block of ``watch_ledger`` ends."""

    _ledger: Ledger | None = field(default=None)

    @property
    def result(self) -> Ledger:
        if self._ledger is None:
            raise PerfError("the ledger is there when the block has ended")
        return self._ledger


@contextmanager
def watch_ledger(url: str, model: str) -> Iterator[Watched]:
    """The ledger of what the server answered during the block.

    Raises:
        PerfError: no server, no such model, or no request was answered.
    """
    watched = Watched()
    with StatisticsReader(url, model) as reader:
        before = reader.read()
        yield watched
        after = reader.read_after(before)
        watched._ledger = ledger_between(model, reader.stages, reader.budget, before, after)


def read_ledger(url: str, model: str, seconds: float = 0.0, metrics_url: str = "") -> Ledger:
    """The ledger of ``seconds`` from now, or, for 0, of all that was answered since the server started.

    With the URL of the server's metrics it has the percentiles of every stage, too.

    Raises:
        PerfError: as ``watch_ledger``.
    """
    with StatisticsReader(url, model) as reader:
        before = reader.read() if seconds else {}
        earlier = read_histograms(metrics_url) if metrics_url and seconds else {}
        time.sleep(seconds)
        after = reader.read()
        spent = between(earlier, read_histograms(metrics_url)) if metrics_url else {}
        return ledger_between(model, reader.stages, reader.budget, before, after, spent)


def ledger_between(
    model: str,
    stages: list[str],
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
    ledger = _with_budget(_difference(model, stages, before, after), budget)
    return replace(ledger, percentiles=_percentiles(spent, stages, budget)) if spent else ledger


class StatisticsReader:
    """Reads the statistics of an entry model and its stages.

    Raises:
        PerfError: no server, or no such model.
    """

    def __init__(self, url: str, model: str) -> None:
        self._url = url
        self._client = triton.InferenceServerClient(url)
        self._model = model
        try:
            config = self._client.get_model_config(model, client_timeout=TIMEOUT_S).config
        except InferenceServerException as error:
            self._client.close()
            raise PerfError(f"no model {model!r} at {url}: {error.message()}") from None
        steps = [step.model_name for step in config.ensemble_scheduling.step]
        #: The fused plan is one stage: itself.
        self.stages = steps or [model]
        #: The ``budget:`` section of the bundle; empty if its export wrote none.
        self.budget: dict[str, Any] = json.loads(config.parameters[BUDGET].string_value or "{}")

    def __enter__(self) -> StatisticsReader:
        return self

    def __exit__(self, *error: object) -> None:
        self._client.close()

    def read(self) -> dict[str, dict[str, int]]:
        """Raises: PerfError when the server is gone."""
        return {name: self._read_model(name) for name in {self._model, *self.stages}}

    def read_after(self, before: dict[str, dict[str, int]]) -> dict[str, dict[str, int]]:
        """A later reading. Triton counts a request a moment after its answer has left, so it is waited for."""
        figures = self.read()
        deadline = time.monotonic() + COUNTED_WITHIN_S
        while not self._all_counted(before, figures) and time.monotonic() < deadline:
            time.sleep(0.002)
            figures = self.read()
        return figures

    def _all_counted(self, before: dict[str, dict[str, int]], after: dict[str, dict[str, int]]) -> bool:
        """Whether a request was answered, and by every stage."""
        counted = [after[name].get("requests", 0) - before[name].get("requests", 0) for name in after]
        return min(counted) > 0

    def _read_model(self, name: str) -> dict[str, int]:
        figures: dict[str, int] = {}
        try:
            statistics = self._client.get_inference_statistics(name, client_timeout=TIMEOUT_S)
        except InferenceServerException as error:
            raise PerfError(f"no statistics of {name!r} at {self._url}: {error.message()}") from None
        for entry in statistics.model_stats:
            stats = entry.inference_stats
            found = {
                "requests": stats.success.count,
                "success": stats.success.ns,
                "users": entry.inference_count,
                "executions": entry.execution_count,
                **{part: getattr(stats, triton_name).ns for part, triton_name in PARTS.items()},
            }
            for key, value in found.items():
                figures[key] = figures.get(key, 0) + value
        return figures


def _difference(model: str, stages: list[str], before: Statistics, after: Statistics) -> Ledger:
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


def _percentiles(spent: Histograms, models: list[str], budget: Mapping[str, Any]) -> list[StagePercentiles]:
    rows = []
    for model in models:
        for stage in _stages_of(model):
            if (histogram := spent.get((model, stage))) is not None:
                p50, p95, p99 = (histogram.percentile_us(percent) for percent in (50, 95, 99))
                allowed = 1000 * budget["p99_ms"] * budget["shares"][stage] if budget else None
                rows.append(StagePercentiles(model, stage, int(histogram.count), p50, p95, p99, allowed))
    return rows


def _with_budget(ledger: Ledger, budget: Mapping[str, Any]) -> Ledger:
    """A model may take of the SLO on p50 what its stages may."""
    if not budget:
        return ledger
    rows = [
        replace(row, budget_us=1000 * budget["p50_ms"] * sum(budget["shares"][name] for name in _stages_of(row.stage)))
        for row in ledger.stages
    ]
    return replace(ledger, stages=rows, slo={key: budget[key] for key in ("p50_ms", "p99_ms")})


def _stages_of(model: str) -> tuple[str, ...]:
    """An entry that is no ensemble runs all of them."""
    return STEPS.get(model, tuple(STAGES))


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
