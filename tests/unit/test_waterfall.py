"""The waterfall of one call, from figures that are known."""

from __future__ import annotations

import pytest

from trireme_cli.waterfall import waterfall_table
from trireme_client import CallLedger
from trireme_perf.ledger import Ledger, StageTime
from trireme_perf.waterfall import Bar, waterfall

PARTS = {"validate": 5.0, "connect": 0.0, "serialise": 15.0, "rpc": 1000.0, "parse": 30.0}
STAGES = {"feature_transform": 20.0, "user_tower": 80.0, "retrieval": 150.0, "ranking": 100.0, "reranking": 50.0}
CALL = CallLedger(1060.0, PARTS, STAGES, 3, 2)


def server(*stages: StageTime, requests: int = 1, end_to_end_us: float = 700.0) -> Ledger:
    rest = end_to_end_us - sum(stage.total_us for stage in stages)
    return Ledger("recommend_fused", requests, end_to_end_us, list(stages), rest, 0.0, 0)


def stage(name: str, compute: float) -> StageTime:
    return StageTime(name, queue_us=40.0, input_us=10.0, compute_us=compute, output_us=20.0, batch=3.0, share=0.0)


def test_the_parts_of_the_fused_plan_add_up() -> None:
    result = waterfall(CALL, server(stage("recommend_fused", 600.0)))
    by_depth = [[bar for bar in result.bars if bar.depth == depth] for depth in range(3)]
    assert sum(bar.us for bar in by_depth[0]) == pytest.approx(1060.0)
    assert sum(bar.us for bar in by_depth[1]) == pytest.approx(PARTS["rpc"])
    assert sum(bar.us for bar in by_depth[2]) == pytest.approx(600.0)
    assert [bar.part for bar in by_depth[2]] == ["hand-over", *STAGES]
    assert by_depth[1][0] == Bar("network, gRPC", 1, 20.0, 300.0)
    assert result.unaccounted_us == pytest.approx(10.0 + 30.0)
    assert (result.exact, result.batch_users, result.batch_requests) == (True, 3, 2)
    assert min(bar.us for bar in result.bars) >= 0
    starts = [bar.start_us for bar in result.bars if bar.depth == 0]
    assert starts == sorted(starts)


def test_an_ensemble_is_told_by_its_models() -> None:
    call = CallLedger(1060.0, PARTS, {}, 0, 0)
    stages = [stage("features", 100.0), stage("retrieval", 200.0), stage("ranking", 150.0)]
    result = waterfall(call, server(*stages, end_to_end_us=680.0))
    inside = [bar for bar in result.bars if bar.depth == 1]
    assert sum(bar.us for bar in inside) == pytest.approx(PARTS["rpc"])
    assert not [bar for bar in result.bars if bar.depth == 2]
    assert result.batch_users == 3


def test_output_after_the_answer_has_come_is_not_of_the_call() -> None:
    result = waterfall(CALL, server(stage("recommend_fused", 600.0), end_to_end_us=1012.0))
    inside = {bar.part: bar.us for bar in result.bars if bar.depth == 1}
    assert (inside["network, gRPC"], inside["recommend_fused output"]) == pytest.approx((0.0, 8.0))
    assert sum(inside.values()) == pytest.approx(PARTS["rpc"])


def test_requests_of_others_make_it_inexact_and_nothing_negative() -> None:
    result = waterfall(CALL, server(stage("recommend_fused", 2600.0), requests=4, end_to_end_us=2700.0))
    assert not result.exact
    assert min(bar.us for bar in result.bars) >= 0
    assert result.to_dict()["unaccounted_us"] == result.unaccounted_us


def test_it_is_drawn_with_a_row_per_part() -> None:
    table = waterfall_table(waterfall(CALL, server(stage("recommend_fused", 600.0))))
    assert table.row_count == 5 + 6 + 6 + 1
