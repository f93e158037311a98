"""The comparison as one JSON document, and as files: compare.json, three plots, one page."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from trireme_perf.goodput.contestants import Contestant
from trireme_perf.goodput.peers import peer_versions
from trireme_perf.goodput.ratios import Figure, best_own, contestant_figures, goodput_ratios, limit_figures
from trireme_perf.goodput.run import Measured, Settings
from trireme_perf.sweep.run import machine

__all__ = ["to_document", "write_report"]

DISTRIBUTIONS = (
    "trireme-recsys", "nvidia-pytriton", "tritonclient", "grpcio", "aiohttp", "numpy", "onnxruntime", "faiss-cpu",
)  # fmt: skip
OF_BEST = ("eta", "cpu_tax", "stretch", "p99_over_p50")


def to_document(
    measured: Measured, contestants: Sequence[Contestant], settings: Settings, left_out: Mapping[str, str]
) -> dict[str, Any]:
    """What was found. Rates in users/s; every figure is a median over rounds, with [smallest, largest] beside it.

    ``ratios`` holds eta, cpu_tax, stretch and p99_over_p50 of the plan of this checkout that has the highest goodput
    (``best``), and goodput ratios between contestants.
    """
    taking_part = [contestant for contestant in contestants if contestant.name in measured.turns]
    figures = {one.name: contestant_figures(measured.turns[one.name], measured.limits) for one in taking_part}
    best = best_own(measured.turns, [one.name for one in taking_part if one.kind == "own"])
    peers = [one.name for one in taking_part if one.kind == "peer"]
    ratios = {name: figures[best][name] for name in OF_BEST} if best else {}
    ratios |= goodput_ratios(measured.turns, best or "", peers)
    probes = [probe for turns in measured.turns.values() for turn in turns for probe in turn.probes]
    return {
        "slo_ms": settings.slo_ms,
        "rounds": len(measured.limits),
        "ended_early": measured.ended_early,
        "seconds": settings.seconds,
        "machine": machine(),
        "bundle_id": measured.limits[0].get("bundle_id"),
        "checked_users": measured.checked_users,
        "steal_share": _median_and_largest([probe.steal_share for probe in probes]),
        "others_share": _median_and_largest([probe.others_share for probe in probes]),
        "contestants": {one.name: _contestant(one, figures[one.name], measured) for one in taking_part},
        "limit": limit_figures(measured.limits),
        "best": best,
        "ratios": {name: figure.median for name, figure in ratios.items()},
        "ratio_ranges": {name: [figure.smallest, figure.largest] for name, figure in ratios.items()},
        "left_out": {**left_out, **measured.failed},
        "versions": _versions(),
    }


def write_report(document: Mapping[str, Any], measured: Measured, out: Path) -> None:
    """Writes compare.json (the document with every turn and probe), the plots and compare.html into ``out``."""
    from trireme_perf.goodput.page import write_page
    from trireme_perf.goodput.plots import write_plots  # matplotlib takes a second to import

    out.mkdir(parents=True, exist_ok=True)
    turns = {name: [asdict(turn) for turn in turns] for name, turns in measured.turns.items()}
    everything = {**document, "turns": turns, "limits": measured.limits}
    (out / "compare.json").write_text(json.dumps(everything, indent=2) + "\n")
    write_page(document, write_plots(everything, out), out / "compare.html")


def _contestant(one: Contestant, figures: Mapping[str, Figure], measured: Measured) -> dict[str, Any]:
    return {
        "kind": one.kind,
        "about": one.about,
        **{name: figure.median for name, figure in figures.items()},
        "spread": figures["goodput"].spread,
        "range": {name: [figure.smallest, figure.largest] for name, figure in figures.items()},
        "limited_by_load_generator": any(turn.limited_by_load_generator for turn in measured.turns[one.name]),
    }


def _median_and_largest(values: Sequence[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "largest": max(values)}


def _versions() -> dict[str, str]:
    found = {}
    for name in DISTRIBUTIONS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found | peer_versions()
