"""Equality of answers, ratios, and the report, from made-up turns."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.toy_repository import write_toy_repository
from trireme_cli.perf.goodput import like_for_like_table
from trireme_perf.errors import PerfError
from trireme_perf.goodput.answers import DifferenceError, check_answer, check_rung
from trireme_perf.goodput.contestants import Contestant, baseline_plans, own_plans
from trireme_perf.goodput.document import to_document
from trireme_perf.goodput.peers import _command, find_peers
from trireme_perf.goodput.probe import Probe
from trireme_perf.goodput.ratios import Figure, best_own, contestant_figures, goodput_ratios, limit_figures
from trireme_perf.goodput.recheck import Try, verdict
from trireme_perf.goodput.report import write_report
from trireme_perf.goodput.run import Measured, Settings
from trireme_perf.goodput.selection import select
from trireme_perf.goodput.turn import Turn
from trireme_perf.host.place import Place
from trireme_perf.load.connections import Answer
from trireme_perf.stats.bootstrap import estimate_median

PLACE = Place(0, Path("logs"))
EXPECTED = Answer(np.array([10, 20, 30, 40, -1]), np.float32([3, 2, 2, 1, 0]), 0)


def answered(items: list[int], scores: list[float], rung: int = 0) -> Answer:
    return Answer(np.array(items), np.float32(scores), rung)


@pytest.mark.parametrize(
    "answer",
    [
        answered([10, 20, 30, 40, -1], [3, 2, 2, 1, 0]),
        answered([10, 20, 30, 40], [3.00005, 2, 2, 1]),
        answered([10, 30, 20, 40], [3, 2, 2, 1]),
    ],
    ids=["same", "rounded, without padding", "ties swapped"],
)
def test_equal_answers(answer: Answer) -> None:
    check_answer("x", 1, answer, EXPECTED)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (answered([10, 20, 30, 40], [3, 2, 2, 1.01]), "score 1.01 at rank 4; the funnel in this process with 1$"),
        (answered([10, 20, 30, 40], [3, 2, np.nan, 1]), "score nan at rank 3"),
        (answered([20, 10, 30, 40], [3, 2, 2, 1]), "item 20 at rank 1; the funnel in this process with 10$"),
        (answered([10, 20, 31, 40], [3, 2, 2, 1]), "item 31 at rank 3"),
        (answered([10, 20, 20, 40], [3, 2, 2, 1]), "item 20"),
        (answered([10, 20, 30], [3, 2, 2]), "3 items; the funnel in this process with 4$"),
        (answered([10, 20, 30, 40], [3, 2, 2, 1], rung=1), "rung 1; the funnel in this process with 0$"),
    ],
)
def test_a_difference_is_named(answer: Answer, words: str) -> None:
    with pytest.raises(DifferenceError, match=f"^litserve answers user 77 with .*{words}"):
        check_answer("litserve", 77, answer, EXPECTED)


def test_a_baseline_may_answer_differently_but_not_less_completely() -> None:
    check_rung("baseline_fused", 1, answered([1], [9]), EXPECTED)
    with pytest.raises(DifferenceError, match="rung 3"):
        check_rung("baseline_fused", 1, answered([1], [9], rung=3), EXPECTED)


def probe(offered: float, **changes: Any) -> Probe:
    made = Probe(
        offered=offered, achieved=offered, requests=300, answered=300, errors=0, first_error="", p50_ms=2.0, p95_ms=5.0,
        p99_ms=8.0, aborted=False, meets_slo=True, server_cpu_us_per_user=400.0, load_cpu_us_per_user=125.0,
        server_core_share=0.5, load_core_share=0.2, steal_share=0.01, others_share=0.02, lag_p99_ms=0.3,
        generator_late=False, rungs={0: 300},
    )  # fmt: skip
    return replace(made, **changes)


def turn(goodput: float, **changes: Any) -> Turn:
    """A turn with that goodput; with 0, one whose only probe was aborted."""
    if not goodput:
        return Turn(
            0, False, False, None, None, 30.0, 40.0, 30.0, 512 << 20, (probe(20, aborted=True, meets_slo=False),)
        )
    met, quoted = probe(goodput), probe(0.8 * goodput, server_cpu_us_per_user=500.0)
    probes = (
        probe(goodput),
        probe(goodput * 1.05, meets_slo=False, p99_ms=25.0),
        probe(goodput * 2, aborted=True),
        met,
        quoted,
    )
    return replace(Turn(goodput, False, False, met, quoted, 1.0, 2.0, goodput * 1.2, 512 << 20, probes), **changes)


def limit(us: float) -> dict[str, Any]:
    return {
        "bundle_id": "b-1",
        "users_per_s": 1e6 / us,
        "us_per_user": us,
        "stages": {"retrieval": us * 0.75, "ranking": us * 0.25},
        "batches": [{"batch": 1, "us_per_user": 2 * us}, {"batch": 32, "us_per_user": us}],
    }


def test_figures_by_hand() -> None:
    figures = contestant_figures([turn(1000), turn(2000)], [limit(200), limit(250)])
    assert figures["goodput"] == Figure(1500, (1000, 2000), 1000 / 1500, (1000, 2000))
    assert figures["eta"].interval == pytest.approx((0.2, 0.5))
    assert figures["cpu_tax"].median == pytest.approx((400 / 200 + 400 / 250) / 2)
    assert figures["stretch"].median == pytest.approx((1000 / 400 + 1000 / 500) / 2)
    assert figures["p99_over_p50"].median == 4
    assert figures["client_users_per_cpu_s"].median == pytest.approx(8000)
    assert figures["pss_mib"].median == 512


def test_intervals_are_those_of_the_bootstrap_over_rounds() -> None:
    rounds = [float(goodput) for goodput in range(1000, 2000, 100)]
    interval = Figure.of([None, *rounds]).interval
    estimate = estimate_median(np.array(rounds))
    assert interval == (estimate.low, estimate.high)
    assert 1000 < estimate.low < 1450 < estimate.high < 1900
    assert Figure.of([1000.0, None]) == Figure(1000, None, 0, (1000, 1000))


def test_a_contestant_without_goodput_has_no_figures_at_80_percent() -> None:
    figures = contestant_figures([turn(0)], [limit(200)])
    assert figures["goodput"].median == 0
    assert figures["p99_ms"] == figures["cpu_tax"] == Figure()


def test_a_server_that_is_not_ours_has_no_figures_of_cpu_and_memory() -> None:
    unknown = probe(1000, server_cpu_us_per_user=None, server_core_share=None, others_share=None)
    figures = contestant_figures([turn(1000, at_goodput=unknown, quoted=unknown, pss_bytes=None)], [])
    assert {name for name, figure in figures.items() if figure == Figure()} == {
        "cpu_us_per_user", "pss_mib", "eta", "cpu_tax", "stretch",
    }  # fmt: skip
    assert figures["goodput"].median == 1000


def test_ratios_are_taken_round_by_round() -> None:
    turns = {"fused": [turn(900), turn(1000)], "ensemble": [turn(300), turn(500)], "fastapi": [turn(100), turn(0)]}
    ratios = goodput_ratios(turns, "fused", ["fastapi"])
    assert ratios == {
        "fused_over_fastapi": Figure(9, None, 0, (9, 9)),
        "fused_over_ensemble": Figure(2.5, (2, 3), 0.4, (2, 3)),
        "best_over_fastapi": Figure(9, None, 0, (9, 9)),
    }
    assert best_own(turns, ["ensemble", "fused", "fused_coalescing"]) == "fused"
    assert best_own({}, ["fused"]) is None


def test_limit_is_the_median_of_the_rounds() -> None:
    figures = limit_figures([limit(200), limit(300), limit(210)])
    assert (figures["us_per_user"], figures["alone_us"]) == (210, 420)
    assert figures["stages"] == {"retrieval": 157.5, "ranking": 52.5}


def contestants() -> list[Contestant]:
    own = own_plans(Path("r"), "both", PLACE)
    return [*own, replace(own[0], name="fastapi", kind="peer", about="one <call> per request")]


def test_report_is_complete(tmp_path: Path) -> None:
    turns = {
        "ensemble": [turn(300), turn(310)],
        "fused": [turn(900, limited_by_load_generator=True, under_steal=True), turn(1000)],
        "fastapi": [turn(0)] * 2,
    }
    limits = {name: [limit(200), limit(205)] for name in turns}
    measured = Measured(2, turns, limits, {"fused_coalescing": "round 2: gone"}, 64)
    document = to_document(measured, contestants(), Settings(rounds=2), {"bentoml": "no environment"})
    document["versions"] = {"numpy": "1"}
    document["tuning"] = {
        "fastapi": [{"settings": {"workers": 2}, "users_per_s": 100, "eta": 0.1, "failed": "", "chosen": True}]
    }
    write_report(document, measured, tmp_path)
    for name in ("goodput", "latency"):
        assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    page = (tmp_path / "goodput.html").read_text()
    assert page.count("data:image/png;base64,") == 2
    assert "one &lt;call&gt; per request" in page
    assert "no environment" in page
    assert "workers 2" in page
    assert "round 2: gone" in page
    stored = json.loads((tmp_path / "goodput.json").read_text())
    assert {key: stored[key] for key in document} == json.loads(json.dumps(document))
    assert len(stored["turns"]["fused"]) == len(stored["limits"]["fused"]) == 2
    assert stored["best"] == "fused"
    assert stored["lag_p99_ms"] == {"median": 0.3, "largest": 0.3}
    assert stored["contestants"]["fused"]["rungs"] == {"0": 10 * 300}
    assert stored["contestants"]["fused"]["limited_by_load_generator"]
    assert [stored["contestants"][name]["under_steal"] for name in ("ensemble", "fused")] == [False, True]
    assert "Measured under steal: fused" in page
    assert {"goodput", "p50_ms", "p99_ms", "cpu_us_per_user", "spread"} <= stored["contestants"]["fused"].keys()
    assert stored["contestants"]["fused"]["interval"]["goodput"] == [900, 1000]
    assert stored["ratio_intervals"]["fused_over_ensemble"] == pytest.approx([3, 1000 / 310])
    assert stored["contestants"]["fastapi"]["interval"]["p99_ms"] is None
    assert {"users_per_s", "us_per_user", "stages"} <= stored["limit"].keys()
    assert {"eta", "cpu_tax", "stretch", "p99_over_p50", "fused_over_ensemble"} <= stored["ratios"].keys()
    assert stored["left_out"] == {"bentoml": "no environment", "fused_coalescing": "round 2: gone"}


def test_peers_without_their_environment_are_left_out_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trireme_perf.goodput.peers.PEERS", tmp_path)
    monkeypatch.setattr("trireme_perf.goodput.peers.PYTHON", tmp_path / "python")
    found, left_out = find_peers(tmp_path, PLACE)
    assert not found
    assert set(left_out) == {"fastapi", "fastapi_coalescing", "litserve", "bentoml", "ray"}
    assert "python is missing; `make bench` sets it up" in left_out["fastapi"]
    peer = {"file": "f.py", "ready_s": 9, "tuning": "t"}
    (tmp_path / "peers.json").write_text(json.dumps({"fastapi": peer}))
    (tmp_path / "python").touch()
    found, left_out = find_peers(tmp_path, PLACE)
    assert [(one.name, one.kind, one.about) for one in found] == [("fastapi", "peer", "t")]
    command = _command(peer, tmp_path, 8123, {})
    assert command.arguments[-4:] == ("--funnel", str(tmp_path), "--port", "8123")
    assert command.ready_s == 9


def test_selection_names_what_is_allowed(tmp_path: Path) -> None:
    repository = write_toy_repository(tmp_path / "toy")  # its manifest says: plan fused
    selection = select(repository, PLACE, ["fused"])
    assert [one.name for one in selection.contestants] == ["fused"]
    assert selection.left_out["fused_coalescing"] == "not named by --only"
    assert "only the fused plan" in select(repository, PLACE).left_out["ensemble"]
    with pytest.raises(PerfError, match="--only names 'nosuch'; allowed: fused, fused_coalescing"):
        select(repository, PLACE, ["nosuch"])
    with pytest.raises(PerfError, match="--only names 'ensemble', which cannot run"):
        select(repository, PLACE, ["ensemble"])


def test_a_baseline_needs_an_environment_and_both_plans(tmp_path: Path) -> None:
    with pytest.raises(PerfError, match=r"has no \.venv/bin/trireme"):
        baseline_plans(tmp_path, tmp_path, PLACE)
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "trireme").touch()
    with pytest.raises(PerfError, match="has no recommend; export it with --plan both"):
        baseline_plans(tmp_path, tmp_path, PLACE)


def test_contestants_that_are_asked_in_the_same_way_come_first_with_the_range_of_their_ratio() -> None:
    names = ["ensemble", "fused", "fused_coalescing", "fastapi", "fastapi_coalescing", "ray"]
    own = own_plans(Path("r"), "both", PLACE)
    taking_part = [
        replace(own[0], name=name, kind="own" if number < 3 else "peer") for number, name in enumerate(names)
    ]
    goodputs = {
        "fused": (900, 1000),
        "fastapi": (300, 500),
        "fused_coalescing": (4000, 3000),
        "fastapi_coalescing": (2000,) * 2,
    }
    turns = {name: [turn(rate) for rate in goodputs.get(name, (100, 100))] for name in names}
    measured = Measured(2, turns, {name: [limit(100)] * 2 for name in names})
    document = to_document(measured, taking_part, Settings(rounds=2), {})
    assert list(document["contestants"]) == [
        "fused", "fastapi", "fused_coalescing", "fastapi_coalescing", "ensemble", "ray",
    ]  # fmt: skip
    assert document["like_for_like"] == [
        {"own": "fused", "peer": "fastapi", "ratio": 2.5, "range": (2, 3)},
        {"own": "fused_coalescing", "peer": "fastapi_coalescing", "ratio": 1.75, "range": (1.5, 2)},
    ]
    title, first, second = (list(column.cells) for column in like_for_like_table(document).columns[:3])
    assert title == ["fused ÷ fastapi", "fused_coalescing ÷ fastapi_coalescing"]
    assert (first, second) == (["950", "3,500"], ["400", "2,000"])


def test_a_recheck_counts_only_tries_at_the_speed_of_the_search_that_nothing_disturbed() -> None:
    missed = probe(95, meets_slo=False)
    tries = [
        Try(1.0, probe(95)),
        Try(0.91, missed),
        Try(0.5, missed),
        Try(1.0, probe(95, steal_share=0.5)),
        Try(1.0, probe(95, generator_late=True)),
    ]
    assert verdict(tries) == "1 of 2 met the SLO; 3 of 5 do not count"
