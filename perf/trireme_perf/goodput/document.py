"""The outcome of a goodput measurement as one JSON document."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from importlib.metadata import distributions
from typing import Any

from trireme_perf.goodput.contestants import Contestant
from trireme_perf.goodput.ratios import (
    LIKE_FOR_LIKE,
    Figure,
    best_own,
    contestant_figures,
    goodput_ratios,
    limit_figures,
)
from trireme_perf.goodput.run import Measured, Settings
from trireme_perf.goodput.turn import Turn
from trireme_perf.host.machine import machine
from trireme_perf.stats.bootstrap import CONFIDENCE

__all__ = ["to_document", "versions_of"]

OF_BEST = ("eta", "cpu_tax", "stretch", "p99_over_p50")


def to_document(
    measured: Measured, contestants: Sequence[Contestant], settings: Settings, left_out: Mapping[str, str]
) -> dict[str, Any]:
    """Returns the figures: rates in users/s, each a median over rounds.

    Those that ``like_for_like`` sets side by side come first; it holds ``{"own", "peer", "ratio", "range"}``, the ratio of
    their goodput with the least and the most of all rounds. ``interval`` and ``ratio_intervals`` hold [low, high] of the
    medians at ``confidence``, None of fewer than two rounds. ``ratios`` holds eta, cpu_tax, stretch and p99_over_p50 of
    the plan of this checkout that has the highest goodput (``best``), and goodput ratios between contestants. Without a
    limit, all of these but ``interval`` are None.
    """
    taking_part = sorted((one for one in contestants if one.name in measured.turns), key=_place)
    figures = {
        one.name: contestant_figures(measured.turns[one.name], measured.limits.get(one.name, [])) for one in taking_part
    }
    probes = [probe for turns in measured.turns.values() for turn in turns for probe in turn.probes]
    return {
        "slo_ms": settings.slo_ms,
        "rounds": measured.rounds,
        "ended_early": measured.ended_early,
        "seconds": settings.seconds,
        "confidence": CONFIDENCE,
        "machine": machine(),
        "checked_users": measured.checked_users,
        "steal_share": _median_and_largest(probe.steal_share for probe in probes),
        "others_share": _median_and_largest(probe.others_share for probe in probes),
        "lag_p99_ms": _median_and_largest(probe.lag_p99_ms for probe in probes),
        "contestants": {one.name: _contestant(one, figures[one.name], measured) for one in taking_part},
        **_against_limit(measured, taking_part, figures),
        "left_out": {**left_out, **measured.failed},
    }


def versions_of(names: Collection[str]) -> dict[str, str]:
    """Returns the versions of those distributions that are installed, by name."""
    return {one.name: one.version for one in distributions() if one.name in names}


def _contestant(one: Contestant, figures: Mapping[str, Figure], measured: Measured) -> dict[str, Any]:
    return {
        "kind": one.kind,
        "about": one.about,
        **{name: figure.median for name, figure in figures.items()},
        "spread": figures["goodput"].spread,
        "interval": {name: figure.interval for name, figure in figures.items()},
        "limited_by_load_generator": any(turn.limited_by_load_generator for turn in measured.turns[one.name]),
        "rungs": _rungs(measured.turns[one.name]),
        "under_steal": any(turn.under_steal for turn in measured.turns[one.name]),
    }


def _against_limit(
    measured: Measured, taking_part: Sequence[Contestant], figures: Mapping[str, Mapping[str, Figure]]
) -> dict[str, Any]:
    limits = [limit for each in measured.limits.values() for limit in each]
    if not limits:
        return dict.fromkeys(("bundle_id", "limit", "best", "like_for_like", "ratios", "ratio_intervals"))
    best = best_own(measured.turns, [one.name for one in taking_part if one.kind == "own"])
    ratios = {name: figures[best][name] for name in OF_BEST} if best else {}
    ratios |= goodput_ratios(measured.turns, best or "", [one.name for one in taking_part if one.kind == "peer"])
    return {
        "bundle_id": limits[0].get("bundle_id"),
        "limit": limit_figures(limits),
        "best": best,
        "like_for_like": [
            {"own": own, "peer": peer, "ratio": ratios[name].median, "range": ratios[name].range}
            for name, (own, peer) in LIKE_FOR_LIKE.items()
            if name in ratios
        ],
        "ratios": {name: figure.median for name, figure in ratios.items()},
        "ratio_intervals": {name: figure.interval for name, figure in ratios.items()},
    }


def _place(one: Contestant) -> int:
    """Orders those first that are asked in the same way; all others stay as they are."""
    first = [name for pair in LIKE_FOR_LIKE.values() for name in pair]
    return first.index(one.name) if one.name in first else len(first)


def _rungs(turns: Sequence[Turn]) -> dict[str, int]:
    """Answers of all probes by their rung."""
    counts: Counter[int] = Counter()
    for turn in turns:
        for probe in turn.probes:
            counts.update(probe.rungs)
    return {str(rung): count for rung, count in sorted(counts.items())}


def _median_and_largest(shares: Iterable[float | None]) -> dict[str, float] | None:
    known = [share for share in shares if share is not None]
    return {"median": statistics.median(known), "largest": max(known)} if known else None
