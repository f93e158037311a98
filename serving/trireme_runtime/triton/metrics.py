"""What the models publish to Triton's metrics: how long each stage computes, what rungs answers have, and the budget.

Triton's Python backend hands every single observation to the server and waits (some 17 µs here; for the five stages of a batch
of one user a tenth of what the batch costs). So a batch is only noted down, and a thread publishes the sums
every two seconds. Triton's own kind HISTOGRAM only takes single observations, so the buckets are counters, named and
labelled as those of a histogram, and ``histogram_quantile`` reads them as such.
"""

from __future__ import annotations

import logging
import math
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from trireme_runtime.features.record import STATES
from trireme_runtime.schema import ENTRY, REASON, RUNG, STAGES
from trireme_runtime.stages.reranking import OUTCOMES, REASONS

__all__ = [
    "ANSWERS",
    "BUCKETS_S",
    "COLD_START",
    "COMPUTE",
    "EXPIRED",
    "FEATURES",
    "FEATURES_AGE",
    "FEATURES_READ",
    "STAND_IN",
    "Publisher",
    "StageMetrics",
]

log = logging.getLogger(__name__)

COMPUTE = "trireme_stage_compute_seconds"
ANSWERS = "trireme_answers_total"
EXPIRED = "trireme_expired_total"
FEATURES = "trireme_features_total"
FEATURES_READ = "trireme_features_read_seconds"
FEATURES_AGE = "trireme_features_age_seconds"
SLO = "trireme_slo_seconds"
COLD_START = "trireme_cold_start_seconds"
STAGE_BUDGET = "trireme_stage_budget_seconds"
STAND_IN = "trireme_stand_in"

#: Upper bounds, seconds: from 50 µs, √2 apart, to about 1 s; a percentile between two of them is off by 20 % at most.
BUCKETS_S = (*(float(f"{50e-6 * 2 ** (step / 2):.3g}") for step in range(29)), math.inf)
#: Publishing takes milliseconds of CPU: each second, it was 2 to 4 % of what a server needs that is asked one user at a time.
PERIOD_S = 2.0
QUANTILES = {"p50_ms": "0.5", "p99_ms": "0.99"}


class StageMetrics:
    """The metrics of one model.

    Every batch counts once in the histogram of every stage, every user once in the rung of their answer and its reason.

    Args:
        backend: the module ``triton_python_backend_utils``.
        model: name under which the model is served.
        stages: in the order in which they run.
        answered: names of the arrays that ``note`` is given as ``outputs``.
        budget: the ``budget:`` section of the bundle, or empty.
    """

    def __init__(
        self,
        backend: Any,
        model: str,
        stages: Sequence[str],
        answered: Sequence[str] = (),
        budget: Mapping[str, Any] = {},
    ) -> None:
        self._family = backend.MetricFamily
        # Triton drops a family that is no longer referenced.
        self._families: list[Any] = []
        self._model = model
        self._has_run = False
        self._noted: deque[tuple[Sequence[int], int, tuple[np.ndarray, np.ndarray] | None]] = deque()
        self._outcome_at = (answered.index(RUNG.name), answered.index(REASON.name)) if RUNG.name in answered else None
        each = [{"model": model, "stage": stage} for stage in stages]
        bounds = ["+Inf" if math.isinf(bound) else f"{bound:g}" for bound in BUCKETS_S]
        made = self._counters(
            f"{COMPUTE}_bucket",
            "Batches by the time that a stage computed",
            [{**labels, "le": bound} for labels in each for bound in bounds],
        )
        self._buckets = [made[at : at + len(bounds)] for at in range(0, len(made), len(bounds))]
        self._sums = self._counters(f"{COMPUTE}_sum", "Time that a stage computed", each)
        self._counts = self._counters(f"{COMPUTE}_count", "Batches that a stage computed", each)
        outcomes = [{"model": model, "rung": str(rung), "reason": REASONS[reason]} for rung, reason in OUTCOMES]
        described = "Users answered, by the rung of the answer and its reason"
        self._answers = self._counters(ANSWERS, described, outcomes if self._outcome_at else [])
        self._expired = self._counters(
            EXPIRED, "Users who had no time for all stages of the model, or gave way", [{"model": model}]
        )
        self._reads: deque[tuple[np.ndarray, int, np.ndarray]] = deque()
        self._states: list[Any] = []
        self._read: list[Any] = []
        self._age: list[Any] = []
        if budget:
            self._publish_budget(model, stages, budget)

    def publish_load_time(self, seconds: float) -> None:
        """Publishes how long the model took to load, from the start of its process."""
        self._gauge(COLD_START, "Time before a model is of use", {"model": self._model, "part": "load"}, seconds)

    def note(self, times: Sequence[int], outputs: Sequence[np.ndarray]) -> None:
        """Notes a batch: the ns of every stage, none if some were left out, and what the model answered."""
        outcome = None if self._outcome_at is None else (outputs[self._outcome_at[0]], outputs[self._outcome_at[1]])
        self._noted.append((times, 0 if times else len(outputs[0]), outcome))

    def count_features(self) -> Callable[[np.ndarray, int, np.ndarray], None]:
        """Begins to count what a feature store knows of users.

        Returns:
            What is to be given the state of the users of each read, see ``record.STATES``, the ns that it took, and the ages of
            the values that were used, in seconds.
        """
        model = {"model": self._model}
        self._states = self._counters(
            FEATURES, "Users by what the feature store knows of them", [{**model, "state": state} for state in STATES]
        )
        self._read = self._counters(f"{FEATURES_READ}_sum", "Time that reads of the feature store took", [model])
        self._read += self._counters(f"{FEATURES_READ}_count", "Reads of the feature store", [model])
        self._age = self._counters(f"{FEATURES_AGE}_sum", "Age of the values that were used", [model])
        self._age += self._counters(f"{FEATURES_AGE}_count", "Values of users that were used", [model])
        return lambda state, ns, age_s: self._reads.append((state, ns, age_s))

    def publish(self) -> None:
        """Hands what was noted since the last time to Triton."""
        if reads := [self._reads.popleft() for _ in range(len(self._reads))]:
            states, ns, ages_s = zip(*reads, strict=True)
            _add(self._states, np.bincount(np.concatenate(states), minlength=len(STATES)))
            _add(self._read, [sum(ns) / 1e9, len(reads)])
            age_s = np.concatenate(ages_s)
            _add(self._age, [max(0.0, age_s.sum()), age_s.size])  # below 0 where the clock of the writer is ahead
        batches = [self._noted.popleft() for _ in range(len(self._noted))]
        if not batches:
            return
        complete = [times for times, _, _ in batches if times]
        if complete:
            self._publish_times(complete)
        _add(self._expired, [sum(expired for _, expired, _ in batches)])
        if self._outcome_at is not None:
            rung, reason = (np.concatenate(parts) for parts in zip(*(got for *_, got in batches if got), strict=True))
            _add(self._answers, [np.count_nonzero((rung == one) & (reason == why)) for one, why in OUTCOMES])

    def _publish_times(self, batches: Sequence[Sequence[int]]) -> None:
        if not self._has_run:
            self._has_run = True
            labels = {"model": self._model, "part": "first_batch"}
            self._gauge(COLD_START, "Time before a model is of use", labels, sum(batches[0]) / 1e9)
        seconds = np.array(batches).T / 1e9
        for stage, values in enumerate(seconds):
            up_to = np.searchsorted(np.sort(values), BUCKETS_S, side="right")
            _add(self._buckets[stage], up_to)
            _add(self._sums[stage : stage + 1], [values.sum()])
            _add(self._counts[stage : stage + 1], [len(values)])

    def _publish_budget(self, model: str, stages: Sequence[str], budget: Mapping[str, Any]) -> None:
        entry = model if tuple(stages) == tuple(STAGES) else ENTRY
        for key, quantile in QUANTILES.items():
            seconds = budget[key] / 1000
            if self._outcome_at is not None:  # by the model that answers: the ensemble runs no code
                self._gauge(SLO, "Objective of a request", {"model": entry, "quantile": quantile}, seconds)
            for stage in stages:
                if stage not in budget["shares"]:  # exclusion, which the budget counts as retrieval
                    continue
                labels = {"model": model, "stage": stage, "quantile": quantile}
                self._gauge(STAGE_BUDGET, "What a stage may take of it", labels, seconds * budget["shares"][stage])

    def _counters(self, name: str, description: str, labels: Sequence[dict[str, str]]) -> list[Any]:
        if not labels:
            return []
        family = self._family(name=name, description=description, kind=self._family.COUNTER)
        self._families.append(family)
        return [family.Metric(labels=each) for each in labels]

    def _gauge(self, name: str, description: str, labels: dict[str, str], value: float) -> None:
        family = self._family(name=name, description=description, kind=self._family.GAUGE)
        gauge = family.Metric(labels=labels)
        gauge.set(value)
        self._families += [family, gauge]


def _add(counters: Sequence[Any], counted: Sequence[float] | np.ndarray) -> None:
    for counter, count in zip(counters, counted, strict=True):
        if count:
            counter.increment(float(count))


class Publisher:
    """Publishes every ``period_s`` from a thread of its own, until it is closed."""

    def __init__(self, metrics: StageMetrics, period_s: float = PERIOD_S) -> None:
        self._metrics = metrics
        self._period_s = period_s
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="metrics", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Publishes what is left, and then stops."""
        self._closing.set()
        self._thread.join()

    def _run(self) -> None:
        closing = False
        while not closing:
            closing = self._closing.wait(self._period_s)
            try:
                self._metrics.publish()
            except Exception:  # answers matter more than figures
                log.exception("the metrics were not published")
