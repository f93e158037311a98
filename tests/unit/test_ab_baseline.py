"""Baseline files: what they keep, what they allow, what they refuse."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.toy_repository import write_toy_repository
from trireme_perf.ab import Settings
from trireme_perf.ab.baseline import check_baseline, check_same, planned, read_baseline, save_baseline
from trireme_perf.ab.variants import parse_variant
from trireme_perf.errors import PerfError


def interval(value: float, half: float = 0.02) -> dict[str, float]:
    return {"value": value, "low": value - half, "high": value + half}


@pytest.fixture
def document() -> dict[str, Any]:
    variant = {"coalescing": False, "plan": "both", "list_length": 40}
    return {
        "variants": {
            "a": {"text": "build/a", "model": "recommend", "bundle_id": "a1", **variant},
            "b": {"text": "build/b", "model": "recommend_fused", "bundle_id": "b1", **variant},
        },
        "metric": "p50",
        "rate": 312.5,
        "rate_given": False,
        "latency_ms": {"p50": {"ratio": interval(0.5)}, "p99": {"ratio": interval(0.6)}},
        "answers": {"k": 10, "overlap": 0.98},
        "ndcg": {"data": "shop", "users": 300, "b": interval(0.2)},
    }


@pytest.fixture
def baseline(document: dict[str, Any], tmp_path: Path) -> dict[str, Any]:
    save_baseline(document, tmp_path / "made" / "baseline.json")
    return read_baseline(tmp_path / "made" / "baseline.json")


def states(baseline: dict[str, Any], document: dict[str, Any]) -> dict[str, str]:
    return {check["metric"]: check["state"] for check in check_baseline(baseline, document)}


KEPT = dict.fromkeys(("p50_ratio", "p99_ratio", "overlap", "ndcg@10"), "kept")


def test_what_was_saved_is_kept(baseline: dict[str, Any], document: dict[str, Any]) -> None:
    assert states(baseline, document) == KEPT
    document["variants"]["b"]["bundle_id"] = "b2"  # the candidate is what changes
    document["variants"]["a"]["text"] = "elsewhere/a"
    document["rate"] = 200.0
    assert states(baseline, document) == KEPT


@pytest.mark.parametrize(
    ("path", "value", "metric", "state"),
    [
        (
            ("latency_ms", "p50", "ratio"),
            interval(0.55),
            "p50_ratio",
            "regressed",
        ),  # allowed: .525, the interval from .53
        (("latency_ms", "p50", "ratio"), interval(0.54), "p50_ratio", "unclear"),
        (("latency_ms", "p50", "ratio"), interval(0.4), "p50_ratio", "kept"),
        (("latency_ms", "p99", "ratio"), interval(0.7), "p99_ratio", "kept"),
        (("latency_ms", "p99", "ratio"), interval(0.75), "p99_ratio", "regressed"),
        (("answers", "overlap"), 0.97, "overlap", "regressed"),
        (("answers", "overlap"), 0.975, "overlap", "kept"),
        (("ndcg", "b", "value"), 0.1989, "ndcg@10", "regressed"),
        (("ndcg", "b", "value"), 0.1995, "ndcg@10", "kept"),
    ],
)
def test_each_metric(
    baseline: dict[str, Any], document: dict[str, Any], path: tuple[str, ...], value: Any, metric: str, state: str
) -> None:
    place = document
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    assert states(baseline, document) == {**KEPT, metric: state}


def test_the_file_says_what_is_tolerated(baseline: dict[str, Any], document: dict[str, Any]) -> None:
    document["latency_ms"]["p50"]["ratio"] = interval(0.6)
    baseline["metrics"]["p50_ratio"]["tolerance"] = 0.3
    assert states(baseline, document) == KEPT
    del baseline["metrics"]["p50_ratio"]
    assert "p50_ratio" not in states(baseline, document)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("variants", "a", "bundle_id"), "a2", "reference.bundle_id is 'a1', now 'a2'"),
        (("variants", "b", "coalescing"), True, "candidate.coalescing is False, now True"),
        (("answers", "k"), 20, "settings.k is 10, now 20"),
        (("rate_given",), True, "settings.rate is None, now 312.5"),
        (("ndcg",), None, "settings.data is 'shop', now None"),
    ],
)
def test_another_experiment_is_refused(
    baseline: dict[str, Any], document: dict[str, Any], path: tuple[str, ...], value: Any, message: str
) -> None:
    other = copy.deepcopy(document)
    place = other
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    with pytest.raises(PerfError, match="another experiment") as raised:
        check_baseline(baseline, other)
    assert message in str(raised.value)


def test_cpu_time_is_kept_where_it_decides(document: dict[str, Any], tmp_path: Path) -> None:
    document |= {"metric": "server_cpu", "server_us_per_user": {"ratio": interval(1.1)}, "concurrency": 1}
    save_baseline(document, tmp_path / "baseline.json")
    baseline = read_baseline(tmp_path / "baseline.json")
    assert states(baseline, document) == dict.fromkeys(("server_cpu_ratio", "overlap", "ndcg@10"), "kept")
    document["server_us_per_user"]["ratio"] = interval(1.2)
    assert states(baseline, document)["server_cpu_ratio"] == "regressed"
    document["metric"] = "p50"
    with pytest.raises(PerfError, match="did not measure server_cpu_ratio: the metric that decides is 'p50'"):
        check_baseline(baseline, document)


def test_another_experiment_is_refused_before_it_is_made(tmp_path: Path) -> None:
    repository = write_toy_repository(tmp_path / "repository", models=("recommend", "recommend_fused"))
    a, b = (parse_variant(f"{repository}:{model}") for model in ("recommend", "recommend_fused"))
    same = planned(a, b, Settings(), None)
    assert same["reference"]["bundle_id"] == "toy-1"
    assert "bundle_id" not in same["candidate"]
    baseline = {**same, "metrics": {}}
    check_same(baseline, same)
    for other, field in [
        (planned(b, b, Settings(), None), "reference.model"),
        (planned(a, a, Settings(), None), "candidate.model"),
        (planned(a, b, Settings(rate=10.0), None), "settings.rate"),
        (planned(a, b, Settings(), "shop"), "settings.data"),
    ]:
        with pytest.raises(PerfError, match=f"its {field} is"):
            check_same(baseline, other)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format_version": 2}, "must be {'format': 'trireme-ab-baseline', 'format_version': 1}"),
        (
            {"metrics": {"p95_ratio": {"expected": 1, "tolerance": 0.1}}},
            "has the metric 'p95_ratio'; allowed: p50_ratio",
        ),
        (
            {"metrics": {"overlap": {"expected": 1, "tolerance": 2}}},
            "overlap.tolerance is 2, must be a number from 0 to 1",
        ),
        ({"metrics": {"overlap": {"expected": "1"}}}, "overlap.expected is '1', must be a number from 0 to inf"),
        ({"metrics": {"overlap": 1}}, "overlap.expected is None"),
        ({"metrics": 1}, "is not a baseline file"),
    ],
)
def test_a_file_that_is_wrong(baseline: dict[str, Any], tmp_path: Path, change: dict[str, Any], message: str) -> None:
    file = tmp_path / "wrong.json"
    file.write_text(json.dumps({**baseline, **change}))
    with pytest.raises(PerfError) as raised:
        read_baseline(file)
    assert message in str(raised.value)


@pytest.mark.parametrize("text", ["", "[]", "{}", "{"])
def test_what_is_no_baseline_file(tmp_path: Path, text: str) -> None:
    (tmp_path / "file").write_text(text)
    with pytest.raises(PerfError, match="is not a baseline file"):
        read_baseline(tmp_path / "file")


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(PerfError, match=r"cannot be read \(No such file or directory\); --save writes a baseline"):
        read_baseline(tmp_path / "file")
