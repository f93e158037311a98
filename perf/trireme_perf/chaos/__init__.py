"""``trireme chaos``: whether a served bundle keeps its promises while something goes wrong."""

from __future__ import annotations

from trireme_perf.chaos.run import Outcome, run_scenarios
from trireme_perf.chaos.scenario import Scenario, load_scenario, shipped_scenarios

__all__ = ["Outcome", "Scenario", "load_scenario", "run_scenarios", "shipped_scenarios"]
