"""Runs scenarios: serves a copy of the repository, asks it all the time, and does to it what the scenario says."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from trireme_perf.chaos.actions import ACTIONS
from trireme_perf.chaos.callers import Task, calling, measure_capacity
from trireme_perf.chaos.expected import Judge
from trireme_perf.chaos.scenario import Scenario
from trireme_perf.chaos.scene import Scene
from trireme_perf.chaos.served import Line
from trireme_perf.chaos.staging import check_programs, stage
from trireme_perf.chaos.timeline import Timeline, merged, shares
from trireme_perf.chaos.verdict import check_floors, verdict
from trireme_perf.host.machine import machine
from trireme_perf.host.place import own_place
from trireme_perf.host.server import StartError
from trireme_perf.stats.percentiles import percentile
from trireme_runtime.bundle import read_manifest

__all__ = ["Outcome", "run_scenario", "run_scenarios"]

LEAD_S = 0.5
#: Before the fault, for a look at the memory.
LOOK_S = 0.2
KEPT_LINES = 20


@dataclass(frozen=True)
class Outcome:
    """A scenario that was run. document: everything but the single requests, for JSON."""

    scenario: Scenario
    timeline: Timeline
    document: dict[str, Any]


def run_scenarios(
    repository: Path, scenarios: Sequence[Scenario], tell: Callable[[str], None] = lambda line: None
) -> tuple[list[Outcome], dict[str, Any]]:
    """Runs scenarios one after the other, each on a server of its own.

    Returns:
        The outcomes, and the document of them all.

    Raises:
        PerfError: fewer than two cores, a server that does not start, or a program is not there that a scenario needs.
        trireme_runtime.errors.BundleError, trireme_export.errors.ExportError: no repository, or no users in it.
    """
    manifest = read_manifest(repository)
    check_programs(scenarios)
    outcomes = []
    for scenario in scenarios:
        tell(f"{scenario.name}: {scenario.description}")
        outcome = run_scenario(repository, scenario)
        tell(f"{scenario.name}: {outcome.document['verdict']}")
        outcomes.append(outcome)
    document = {
        "machine": machine(),
        "bundle_id": manifest.bundle_id,
        "scenarios": [outcome.document for outcome in outcomes],
    }
    return outcomes, document


def run_scenario(repository: Path, scenario: Scenario, seed: int = 0) -> Outcome:
    """Runs one scenario; raises as ``run_scenarios``."""
    with own_place() as place, stage(repository, scenario, place, seed) as (scene, judge):
        return _Run(scenario, scene, judge).run()


class _Run:
    """One run on servers that are ready."""

    def __init__(self, scenario: Scenario, scene: Scene, judge: Judge) -> None:
        self._scenario, self._scene, self._judge = scenario, scene, judge
        self._urls = [served.grpc for served in scene.servers]
        self._capacity: float | None = None
        self._ended: str | None = None

    def run(self) -> Outcome:
        scenario = self._scenario
        rate = self._scene.rate = self._rate()
        with calling(self._tasks(rate)) as callers:
            start = time.monotonic() + LEAD_S
            callers.start(start)
            _sleep_until(start + scenario.at_s - LOOK_S)
            before = self._memory()  # by now, good requests have let it grow
            _sleep_until(start + scenario.at_s)
            with ACTIONS[scenario.fault.action](self._scene, **scenario.fault.arguments):
                # It lasts as long as it should, also if it took a while to begin, but not longer than the load.
                end = max(start + scenario.lifted_at_s, time.monotonic() + scenario.lifted_at_s - scenario.at_s)
                _sleep_until(min(end, start + scenario.seconds))
            timeline = merged(callers.timelines(start + scenario.seconds + 60.0 - time.monotonic()))
        growth = self._memory() / before - 1
        try:
            for served in self._scene.servers:
                served.server.check()
        except StartError as error:
            self._ended = str(error)
        return self._outcome(timeline, rate, start, growth)

    def _memory(self) -> int:
        return sum(served.server.unmapped_bytes() for served in self._scene.servers)

    def _rate(self) -> float:
        load = self._scenario.load
        if load.users_per_s is not None:
            return load.users_per_s
        scene = self._scene
        self._capacity = measure_capacity(self._urls, scene.model, load, scene.users, scene.seed)
        return load.of_capacity * self._capacity

    def _tasks(self, rate: float) -> list[Task]:
        scenario, scene, load = self._scenario, self._scene, self._scenario.load
        own = rate / load.clients
        rates = [
            (own, scenario.at_s),
            (own * load.during_fault, scenario.lifted_at_s - scenario.at_s),
            (own, scenario.seconds - scenario.lifted_at_s),
        ]
        return [
            Task(self._urls, scene.model, load, rates, scene.seed + number, self._judge)
            for number in range(load.clients)
        ]

    def _outcome(self, timeline: Timeline, rate: float, start: float, growth: float) -> Outcome:
        scenario = self._scenario
        deadline_s = scenario.load.deadline_ms / 1e3
        said = sorted(
            line
            for served in self._scene.servers
            for line in served.said.between(start + scenario.at_s, start + scenario.seconds)
        )
        spans = {
            "calm": (0.0, scenario.at_s),
            "fault": (scenario.at_s, scenario.lifted_at_s),
            "after": (scenario.lifted_at_s, scenario.seconds),
            "all": (0.0, scenario.seconds),
        }
        phases = {name: shares(timeline, *span, deadline_s) for name, span in spans.items()}
        figures = self._figures(timeline, said, start, growth, phases)
        checks = check_floors(scenario.floors, figures)
        lag_s = percentile(timeline.lag_s, 99)
        document = {
            "name": scenario.name,
            "verdict": verdict(checks, lag_s, deadline_s, self._ended),
            "scenario": scenario.model_dump(),
            "model": self._scene.model,
            "rate": rate,
            "capacity": self._capacity,
            "lag_p99_ms": lag_s * 1e3,
            "phases": phases,
            "figures": figures,
            "checks": [asdict(check) | {"text": str(check)} for check in checks],
            "counts": timeline.counts(),
            "problems": dict(timeline.problems),
            "errors": dict(timeline.errors),
            "said": [{"after_s": line.at - start - scenario.at_s, "text": line.text} for line in said[:KEPT_LINES]],
            "notes": self._scene.notes,
            "ended": self._ended,
        }
        return Outcome(scenario, timeline, document)

    def _figures(
        self, timeline: Timeline, said: list[Line], start: float, growth: float, phases: dict[str, Any]
    ) -> dict[str, Any]:
        """By the names of the floors."""
        scenario = self._scenario
        times = (scenario.at_s, scenario.lifted_at_s, scenario.seconds, scenario.load.deadline_ms / 1e3)
        return {
            "available": phases["all"]["available"],
            **{f"full_{phase}": phases[phase]["full"] for phase in ("calm", "fault", "after")},
            "wrong": int(timeline.wrong.sum()),
            "failed": int(timeline.failed.sum()),
            "stale": int(timeline.stale.sum()),
            "deaths": sum(line.is_death for line in said),
            "notice_s": said[0].at - start - scenario.at_s if said else None,
            "recover_s": timeline.recovered_s(*times),
            "fresh_s": timeline.recovered_s(*times, stale_is_bad=True),
            "p99_ratio": _ratio(phases["fault"]["p99_ms"], phases["calm"]["p99_ms"]),
            "memory_growth": growth,
            "reached": self._scene.notes.get("reached"),
            "hedged": timeline.hedged / len(timeline.due_s) if len(timeline.due_s) else None,
        }


def _ratio(one: float | None, other: float | None) -> float | None:
    return one / other if one is not None and other else None


def _sleep_until(moment: float) -> None:
    time.sleep(max(0.0, moment - time.monotonic()))
