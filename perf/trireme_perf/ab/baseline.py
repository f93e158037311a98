"""A baseline file: the findings of an experiment, and how much worse a later one of the same kind may be.

Milliseconds of another machine, or of another hour, say nothing; so the file holds only what carries over: the latency of the
candidate (B) *relative to a pinned reference* (A) that runs beside it each time, and what the answers are worth::

    {
      "format": "trireme-ab-baseline", "format_version": 1,
      "reference": {"model": "recommend", "coalescing": false, "plan": "both", "bundle_id": "4945…", "list_length": 200},
      "candidate": {"model": "recommend_fused", "coalescing": false, "plan": "both", "list_length": 200},
      "settings": {"rate": null, "k": 10, "data": "online-retail-ii", "labelled_users": 1367},
      "metrics": {
        "p50_ratio": {"expected": 0.45, "tolerance": 0.05},
        "p99_ratio": {"expected": 0.52, "tolerance": 0.2},
        "overlap":   {"expected": 1.0,  "tolerance": 0.01},
        "ndcg@10":   {"expected": 0.127, "tolerance": 0.005}
      }
    }

Tolerances are shares of what is expected, meant to be edited; a metric that is taken out is not checked. A ratio of latencies
regresses when its whole interval lies above ``expected * (1 + tolerance)``: noise alone does not fail a run. The others are not
noisy and regress below ``expected * (1 - tolerance)``. Reference, candidate and settings must be those of the run; the
candidate's bundle may change, as it is what is being watched. ``rate`` null: derived from the capacity.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trireme_perf.ab.run import CPU_METRICS, Settings
from trireme_perf.ab.variants import Variant
from trireme_perf.errors import PerfError

__all__ = ["check_baseline", "check_same", "planned", "read_baseline", "save_baseline"]

FORMAT = {"format": "trireme-ab-baseline", "format_version": 1}
SECTIONS = ("reference", "candidate", "settings")
#: Metrics and the tolerances that a new file gets.
TOLERANCES = {
    "p50_ratio": 0.05,
    "p99_ratio": 0.2,
    "server_cpu_ratio": 0.05,
    "client_cpu_ratio": 0.05,
    "overlap": 0.01,
    "ndcg@10": 0.005,
}
REFERENCE = ("model", "coalescing", "options", "plan", "bundle_id", "list_length")
CANDIDATE = ("model", "coalescing", "options", "plan", "list_length")


def save_baseline(document: Mapping[str, Any], file: Path) -> None:
    """Writes what an experiment (``document.to_document``) found. Raises: PerfError: the file cannot be written."""
    found = _found(document)
    metrics = {
        name: {"expected": found[name]["value"], "tolerance": tolerance}
        for name, tolerance in TOLERANCES.items()
        if name in found
    }
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps({**FORMAT, **_kind(document), "metrics": metrics}, indent=2) + "\n")
    except OSError as error:
        raise PerfError(f"{file}: cannot be written ({error.strerror})") from None


def read_baseline(file: Path) -> dict[str, Any]:
    """Raises: PerfError: it cannot be read, is not a baseline file, or holds a metric or number that is not allowed."""
    try:
        baseline = json.loads(file.read_text())
        found = {key: baseline[key] for key in FORMAT}
        sections = [dict(baseline[section]) for section in (*SECTIONS, "metrics")]
    except OSError as error:
        raise PerfError(f"{file}: cannot be read ({error.strerror}); --save writes a baseline") from None
    except (ValueError, KeyError, TypeError) as error:
        raise PerfError(f"{file}: is not a baseline file ({type(error).__name__}: {error})") from None
    if found != FORMAT:
        raise PerfError(f"{file}: is {found}, must be {FORMAT}")
    for name, metric in sections[-1].items():
        _check_metric(file, name, metric)
    return dict(baseline)


def check_same(baseline: Mapping[str, Any], kind: Mapping[str, Mapping[str, Any]]) -> None:
    """Compares what is known of an experiment, by section and field, with what a baseline is of.

    Raises: PerfError: it is of another experiment; names the first field that differs.
    """
    for section, fields in kind.items():
        for field, value in fields.items():
            if value != (expected := baseline[section].get(field)):
                raise PerfError(
                    f"the baseline is of another experiment: its {section}.{field} is {expected!r}, now {value!r}"
                )


def planned(a: Variant, b: Variant, settings: Settings, data: str | None) -> dict[str, dict[str, Any]]:
    """What is known of an experiment before it is made, for ``check_same``; ``data``: name of the labels."""
    reference, candidate = a.describe(), b.describe()
    del candidate["bundle_id"]
    return {
        "reference": reference,
        "candidate": candidate,
        "settings": {"rate": settings.rate, "concurrency": settings.concurrency, "k": settings.k, "data": data},
    }


def check_baseline(baseline: Mapping[str, Any], document: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Each metric of a baseline in a later experiment: ``{"metric", "value", "low", "high", "expected", "tolerance",
    "allowed", "state"}``. ``state``: ``kept``; ``regressed``; or ``unclear``, a ratio that is too high but whose interval is not.

    Raises:
        PerfError: the experiment had other variants or settings, or did not measure a metric.
    """
    check_same(baseline, _kind(document))
    found = _found(document)
    if missing := [name for name in baseline["metrics"] if name not in found]:
        raise PerfError(
            f"the experiment did not measure {', '.join(missing)}: the metric that decides is {document['metric']!r}"
        )
    return [_check(name, metric, found[name]) for name, metric in baseline["metrics"].items()]


def _check(name: str, metric: Mapping[str, float], found: Mapping[str, float]) -> dict[str, Any]:
    expected, tolerance = metric["expected"], metric["tolerance"]
    if name.endswith("_ratio"):
        allowed = expected * (1 + tolerance)
        state = "regressed" if found["low"] > allowed else "unclear" if found["value"] > allowed else "kept"
    else:
        allowed = expected * (1 - tolerance)
        state = "kept" if found["value"] >= allowed else "regressed"
    return {"metric": name, **found, **metric, "allowed": allowed, "state": state}


def _kind(document: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """What two experiments must have in common to be compared."""
    a, b, ndcg = document["variants"]["a"], document["variants"]["b"], document["ndcg"] or {}
    return {
        "reference": {field: a.get(field) for field in REFERENCE},
        "candidate": {field: b.get(field) for field in CANDIDATE},
        "settings": {
            "rate": document["rate"] if document["rate_given"] else None,
            "concurrency": document.get("concurrency"),
            "k": document["answers"]["k"],
            "data": ndcg.get("data"),
            "labelled_users": ndcg.get("users"),
        },
    }


def _found(document: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """The ratios of the latency, or of the CPU time if that decides, and what the answers are worth."""
    ratios = {"p50": document["latency_ms"]["p50"], "p99": document["latency_ms"]["p99"]}
    if document["metric"] in CPU_METRICS:
        side = document["metric"].removesuffix("_cpu")
        ratios = {document["metric"]: document[f"{side}_us_per_user"]}
    found = {f"{name}_ratio": contrast["ratio"] for name, contrast in ratios.items() if contrast}
    found["overlap"] = _exact(document["answers"]["overlap"])
    if ndcg := document["ndcg"]:
        found["ndcg@10"] = _exact(ndcg["b"]["value"])
    return found


def _exact(value: float) -> dict[str, float]:
    return {"value": value, "low": value, "high": value}


def _check_metric(file: Path, name: str, metric: Any) -> None:
    if name not in TOLERANCES:
        raise PerfError(f"{file}: has the metric {name!r}; allowed: {', '.join(TOLERANCES)}")
    for field, most in (("expected", float("inf")), ("tolerance", 1)):
        value = metric.get(field) if isinstance(metric, dict) else None
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= most:
            raise PerfError(f"{file}: metrics.{name}.{field} is {value!r}, must be a number from 0 to {most:g}")
