"""What a sweep measures: a row per load and model."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from trireme_perf.sweep.perf_analyzer import Load, Measurement, Mode, Status

__all__ = ["Row"]


@dataclass(frozen=True)
class Row:
    """One load on one model: ``load`` is in requests for mode concurrency, in requests/s for poisson; times in µs.

    ``errors`` is empty or says what failed; see ``Measurement`` for ``status``.
    """

    model: str
    mode: Mode
    load: float
    throughput_users_per_s: float
    p50_us: float | None
    p90_us: float | None
    p95_us: float | None
    p99_us: float | None
    server_queue_us: float | None
    server_compute_us: float | None
    status: Status
    errors: str

    @classmethod
    def of(cls, model: str, load: Load, measured: Measurement) -> Row:
        """Joins a measurement with what was measured."""
        figures = asdict(measured)
        return cls(model=model, mode=load.mode, load=load.value, errors=figures.pop("error"), **figures)
