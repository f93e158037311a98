"""The ledger's arithmetic on statistics as Triton counts them."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timezone
from math import inf
from pathlib import Path
from typing import Any

import pytest

from trireme_perf.errors import PerfError
from trireme_perf.ledger import LedgerReader, Reading, ledger_between
from trireme_perf.ledger.histograms import Histogram
from trireme_perf.ledger.report import _difference, _with_budget
from trireme_runtime.schema import LAYOUTS, STAGES


def figures(requests: int, success_us: float, output_us: float = 10.0) -> dict[str, int]:
    """``requests`` that each spent 20 µs in the queue, 5 on inputs, 65 computing, in batches of 2."""
    spent = {"success": success_us, "queue": 20, "input": 5, "compute": 65, "output": output_us}
    counts = {"requests": requests, "users": requests, "executions": requests // 2}
    return counts | {name: int(us * 1000 * requests) for name, us in spent.items()}


def test_shares_and_the_rest_add_up() -> None:
    ledger = _difference("m", ["a", "b"], {}, {"m": figures(10, 250), "a": figures(10, 100), "b": figures(10, 100)})
    assert [stage.total_us for stage in ledger.stages] == [100, 100]
    assert [stage.share for stage in ledger.stages] == [0.4, 0.4]
    assert [stage.batch for stage in ledger.stages] == [2, 2]
    assert (ledger.end_to_end_us, ledger.unaccounted_us, ledger.overlap_us, ledger.requests) == (250, 50, 0, 10)


def test_output_beside_the_next_stage_is_not_counted_twice() -> None:
    ledger = _difference("m", ["a", "b"], {}, {"m": figures(10, 194), "a": figures(10, 100), "b": figures(10, 100)})
    assert [stage.output_us for stage in ledger.stages] == pytest.approx([4, 10])
    assert (ledger.overlap_us, ledger.unaccounted_us) == pytest.approx((6, 0))
    assert sum(stage.share for stage in ledger.stages) == pytest.approx(1)


def test_no_more_than_the_outputs_can_overlap() -> None:
    ledger = _difference("m", ["a", "b"], {}, {"m": figures(10, 180), "a": figures(10, 100), "b": figures(10, 100)})
    assert (ledger.overlap_us, ledger.unaccounted_us) == pytest.approx((10, -10))


def test_only_the_time_watched_counts_and_warm_ups_are_told() -> None:
    before = {"m": figures(0, 0), "a": figures(34, 900)}
    after = {"m": figures(10, 100), "a": figures(44, 900)}
    watched = _difference("m", ["a"], before, after)
    assert (watched.requests, watched.warmup_requests) == (10, 0)
    assert _difference("m", ["a"], {}, after).warmup_requests == 34


def test_nothing_answered_is_said() -> None:
    with pytest.raises(PerfError, match="'m' answered no request"):
        _difference("m", ["a"], {"m": figures(5, 9), "a": {}}, {"m": figures(5, 9), "a": {}})


def test_a_model_has_the_budget_of_its_stages() -> None:
    budget = {
        "p50_ms": 1.0,
        "p99_ms": 4.0,
        "shares": {
            "feature_transform": 0.02, "user_tower": 0.04, "retrieval": 0.1, "ranking": 0.1, "reranking": 0.1,
            "transport": 0.64,
        },
    }  # fmt: skip
    after = {"recommend": figures(10, 250), "features": figures(10, 100), "retrieval": figures(10, 100)}
    models = LAYOUTS["cpu"].ensemble
    ledger = _with_budget(_difference("recommend", ["features", "retrieval"], {}, after), models, budget)
    assert [stage.budget_us for stage in ledger.stages] == pytest.approx([60, 100])
    assert [stage.within_budget for stage in ledger.stages] == [False, True]
    assert ledger.slo == {"p50_ms": 1.0, "p99_ms": 4.0}
    fused = _with_budget(_difference("recommend", ["recommend"], {}, after), {"recommend": tuple(STAGES)}, budget)
    assert fused.stages[0].budget_us == pytest.approx(360)


def test_without_a_budget_there_is_no_verdict() -> None:
    ledger = _with_budget(_difference("m", ["a"], {}, {"m": figures(10, 250), "a": figures(10, 100)}), {}, {})
    assert ledger.to_dict()["stages"][0]["within_budget"] is None
    assert ledger.slo == {}


def test_a_stage_has_its_share_of_the_whole() -> None:
    spent = {("features", "user_tower"): Histogram((1e-4, inf), (4.0, 4.0), 200e-6)}
    after = {"recommend": figures(10, 250), "features": figures(10, 100)}
    (stage,) = ledger_between("recommend", {"features": ("user_tower",)}, {}, {}, after, spent).percentiles
    assert (stage.batches, stage.share) == (4, pytest.approx(50 / 250))


def test_stand_ins_are_said() -> None:
    after = {"recommend": figures(10, 250), "user_tower": figures(10, 100), "ranking": figures(10, 100)}
    ledger = ledger_between("recommend", {name: (name,) for name in ("user_tower", "ranking")}, {}, {}, after)
    assert (ledger.notes, ledger.to_dict()["stand_ins"]) == ([], [])
    told = replace(ledger, stand_ins={"user_tower": "tensorrt", "ranking": "onnxruntime"})
    assert told.notes == [
        "user_tower: a stand-in, ONNX Runtime on the CPU in place of TensorRT",
        "ranking: a stand-in, ONNX Runtime on the CPU in place of Triton's backend for ONNX Runtime",
    ]
    assert told.to_dict()["stand_ins"] == ["user_tower", "ranking"]


READING = Reading(
    "here:8001",
    "m",
    datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc),
    {"m": figures(10, 250), "a": figures(10, 100)},
    {("a", "retrieval"): Histogram((0.001, inf), (3.0, 4.0), 0.006)},
)


def test_a_reading_comes_back_as_it_was_written(tmp_path: Path) -> None:
    READING.save(tmp_path / "reading.json")
    assert Reading.load(tmp_path / "reading.json") == READING


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"url": "u", "model": "m", "taken": "noon", "statistics": {}, "histograms": []}']
)
def test_what_is_no_reading_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "reading.json").write_text(text)
    with pytest.raises(PerfError, match=r"reading\.json is not a reading of a ledger; `trireme ledger --save FILE`"):
        Reading.load(tmp_path / "reading.json")


def test_a_reading_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(PerfError, match=r"reading\.json cannot be read: No such file"):
        Reading.load(tmp_path / "reading.json")
    with pytest.raises(PerfError, match="cannot be written"):
        READING.save(tmp_path / "nowhere" / "reading.json")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"statistics": {"m": figures(3, 250), "a": figures(10, 100)}},
         "restarted after 2026-01-02 03:04:05 UTC: requests of 'm' is 3, 10 then"),
        # As many requests, which took less: others.
        ({"statistics": {"m": figures(30, 50), "a": figures(30, 20)}}, "success of 'm' is 1500000, 2500000 then"),
        ({"statistics": {"m": figures(30, 250)}}, "requests of 'a' is 0, 10 then"),
        ({"model": "other"}, "of model 'm' at here:8001, this one of 'other' at here:8001"),
        ({"url": "there:8001"}, "of model 'm' at here:8001, this one of 'm' at there:8001"),
    ],
)  # fmt: skip
def test_only_readings_of_one_run_and_model_are_compared(changes: dict[str, Any], message: str) -> None:
    reader = LedgerReader.__new__(LedgerReader)  # it compares without asking the server
    with pytest.raises(PerfError, match=message):
        reader.ledger(READING, replace(READING, **changes))


def test_percentiles_since_a_reading_without_any_are_refused() -> None:
    reader = LedgerReader.__new__(LedgerReader)
    with pytest.raises(PerfError, match="was taken without --metrics-url"):
        reader.ledger(replace(READING, histograms={}), READING)
