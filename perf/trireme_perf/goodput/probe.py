"""What one open-loop load of a server came to."""

from __future__ import annotations

from dataclasses import dataclass

from trireme_perf.host.usage import Usage
from trireme_perf.load.probe import Latencies
from trireme_perf.stats.percentiles import percentile, reported_p99

__all__ = ["Probe", "milliseconds", "summary"]

KEEPS_UP = 0.98  # achieved over offered rate
SATURATED = 0.9  # share of its core from which on the load generator is the bottleneck
STOLEN = 0.02  # share of the machine's time that the host may take from a probe
LAG = 0.05  # share of the SLO by which the load generator may be late, at p99
OTHERS = 0.05  # the same of other processes here


@dataclass(frozen=True)
class Probe:
    """One open-loop load. Rates in users/s, shares of one core or (steal, others) of the machine's time; latencies from
    the scheduled arrival, those of an aborted probe are lower bounds. p99_ms is None of too few requests, and what the
    server and others use is None where the server's processes are unknown. lag_p99_ms: how late the load generator sent;
    generator_late: too late for the SLO. rungs: answers by their rung."""

    offered: float
    achieved: float
    requests: int
    answered: int
    errors: int
    first_error: str
    p50_ms: float
    p95_ms: float
    p99_ms: float | None
    aborted: bool
    meets_slo: bool
    server_cpu_us_per_user: float | None
    load_cpu_us_per_user: float
    server_core_share: float | None
    load_core_share: float
    steal_share: float
    others_share: float | None
    lag_p99_ms: float
    generator_late: bool
    rungs: dict[int, int]

    @property
    def passes(self) -> bool:
        """Whether the SLO was met, by a load that was on time."""
        return self.meets_slo and not self.generator_late

    @property
    def limited_by_load_generator(self) -> bool:
        return self.generator_late or self.load_core_share > SATURATED

    @property
    def disturbed(self) -> bool:
        """Whether others had so much of the machine that neither a pass nor a miss says anything about the server."""
        return self.steal_share > STOLEN or (self.others_share or 0.0) > OTHERS


def summary(rate: float, seconds: float, slo_s: float, latencies: Latencies, usage: Usage) -> Probe:
    p50 = percentile(latencies.seconds, 50)
    # The last to come are not answered before the usual latency has passed, which must not count as falling behind.
    achieved = latencies.answered / max(seconds, latencies.wall_s - p50)
    in_time = percentile(latencies.seconds, 99) <= slo_s
    complete = not latencies.aborted and latencies.answered == latencies.planned
    lag_s = percentile(latencies.lag_s, 99) if latencies.lag_s.size else 0.0
    per_user = 1e6 / max(1, latencies.answered)
    return Probe(
        offered=rate,
        achieved=achieved,
        requests=len(latencies.seconds),
        answered=latencies.answered,
        errors=latencies.errors,
        first_error=latencies.first_error,
        p50_ms=p50 * 1e3,
        p95_ms=percentile(latencies.seconds, 95) * 1e3,
        p99_ms=milliseconds(reported_p99(latencies.seconds)),
        aborted=latencies.aborted,
        meets_slo=complete and in_time and achieved >= KEEPS_UP * rate,
        server_cpu_us_per_user=usage.server_cpu_s * per_user,
        load_cpu_us_per_user=usage.load_cpu_s * per_user,
        server_core_share=usage.server_cpu_s / usage.wall_s,
        load_core_share=usage.load_cpu_s / usage.wall_s,
        steal_share=usage.steal_share,
        others_share=usage.others_share,
        lag_p99_ms=lag_s * 1e3,
        generator_late=lag_s > LAG * slo_s,
        rungs={},
    )


def milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else seconds * 1e3
