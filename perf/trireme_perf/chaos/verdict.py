"""Whether a run reached the floors of its scenario."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from trireme_perf.chaos.scenario import Floors

__all__ = ["LAG", "Check", "check_floors", "verdict"]

#: The share of the deadline by which the load may be late, at p99: beyond that, a run says nothing about the server.
LAG = 0.1
#: Figures that must not be lower than their floor; the others must not be higher.
AT_LEAST = ("available", "full_calm", "full_fault", "full_after", "reached")


#: Figures that a late load does not excuse.
STRICT = ("wrong", "failed", "deaths")


@dataclass(frozen=True)
class Check:
    """A figure against its floor; found None: there is none, as of a server that has not recovered."""

    name: str
    found: float | None
    allowed: float
    ok: bool

    def __str__(self) -> str:
        sign = "≥" if self.name in AT_LEAST else "≤"
        found = "none" if self.found is None else f"{self.found:.6g}"
        return f"{self.name} {found}, allowed {sign} {self.allowed:g}"


def check_floors(floors: Floors, figures: Mapping[str, Any]) -> list[Check]:
    """Compares the figures, by the names of the floors, with those floors that are set."""
    wanted = {name: value for name, value in floors.model_dump().items() if value is not None}
    return [
        Check(name, figures.get(name), value, _holds(name, figures.get(name), value)) for name, value in wanted.items()
    ]


def verdict(checks: list[Check], lag_s: float, deadline_s: float, ended: str | None) -> str:
    """Returns ``failed``, ``invalid`` (nothing is known of the other floors: the load was late), or ``passed``.

    Args:
        lag_s: p99 of how late the load was.
        ended: how ``trireme serve`` ended, None if it did not.
    """
    if ended or not all(check.ok for check in checks if check.name in STRICT):
        return "failed"
    if lag_s > LAG * deadline_s:
        return "invalid"
    return "passed" if all(check.ok for check in checks) else "failed"


def _holds(name: str, found: float | None, allowed: float) -> bool:
    if found is None:
        return False
    return found >= allowed if name in AT_LEAST else found <= allowed
