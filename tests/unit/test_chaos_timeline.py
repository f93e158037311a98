"""The figures of a run, from what became of its requests; and its picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from trireme_client import Reason, Rung
from trireme_perf.chaos.plot import plot_outcomes
from trireme_perf.chaos.run import Outcome
from trireme_perf.chaos.scenario import Scenario
from trireme_perf.chaos.timeline import NO_ANSWER, Timeline, merged, shares

DEADLINE_S = 0.1


def timeline(due_s: np.ndarray, **changes: np.ndarray) -> Timeline:
    """Full answers after 10 ms, but for what is changed."""
    count = len(due_s)
    arrays = {
        "due_s": due_s,
        "latency_s": np.full(count, 0.01),
        "lag_s": np.zeros(count),
        "rung": np.zeros(count, dtype=np.int64),
        "reason": np.zeros(count, dtype=np.int64),
        "wrong": np.zeros(count, dtype=bool),
    }
    return Timeline(**(arrays | changes), problems={}, errors={}, hedged=0)


def every_10_ms(seconds: float) -> np.ndarray:
    return np.arange(0.0, seconds, 0.01)


def test_what_counts_is_right_and_in_time() -> None:
    found = timeline(
        np.arange(5.0),
        latency_s=np.array([0.01, 0.2, 0.01, 0.01, 0.01]),
        rung=np.array([0, 0, 3, NO_ANSWER, 0]),
        reason=np.array([0, 0, 1, NO_ANSWER, 0]),
        wrong=np.array([False, False, False, False, True]),
    )
    assert found.available(DEADLINE_S).tolist() == [True, False, True, False, False]
    assert found.full(DEADLINE_S).tolist() == [True, False, False, False, False]
    assert found.kinds() == ["full", "full", "popular, deadline", "failed", "wrong"]
    assert found.counts() == {"full": 3, "popular, deadline": 1, "failed": 1, "wrong": 1}
    figures = shares(found, 0.0, 3.0, DEADLINE_S)
    assert figures["requests"] == 3
    assert figures["available"] == pytest.approx(2 / 3)
    assert figures["full"] == pytest.approx(1 / 3)
    assert (figures["p50_ms"], figures["p99_ms"], figures["p999_ms"]) == (pytest.approx(10.0), None, None)
    assert shares(found, 7.0, 8.0, DEADLINE_S)["available"] is None


@pytest.mark.parametrize(
    ("bad_from", "bad_to", "expected"),
    [
        (9.0, 9.0, 0.0),  # nothing is bad
        (2.0, 2.04, 0.0),  # too little to make a second bad
        (2.0, 6.0, 3.0),  # the last bad second begins shortly before the sixth
        (2.0, 10.0, None),  # it does not recover
    ],
)
def test_it_has_recovered_when_the_last_bad_second_has_ended(
    bad_from: float, bad_to: float, expected: float | None
) -> None:
    due = every_10_ms(10.0)
    bad = (due >= bad_from) & (due < bad_to)
    found = timeline(due, rung=np.where(bad, 3, 0)).recovered_s(2.0, 4.0, 10.0, DEADLINE_S)
    assert found == (None if expected is None else pytest.approx(expected, abs=0.11))


def test_seconds_without_requests_are_no_failure() -> None:
    assert timeline(np.array([0.5, 9.5])).recovered_s(2.0, 4.0, 10.0, DEADLINE_S) == 0.0


def test_stale_answers_are_full_and_may_be_bad_all_the_same() -> None:
    due = every_10_ms(10.0)
    found = timeline(due, reason=np.where((due >= 2.0) & (due < 6.0), Reason.FEATURES_STALE, Reason.NONE))
    assert found.counts() == {"full": 600, "full, features stale": 400, "failed": 0, "wrong": 0}
    assert shares(found, 5.0, 7.0, DEADLINE_S)["stale"] == pytest.approx(0.5)
    assert found.recovered_s(2.0, 4.0, 10.0, DEADLINE_S) == 0.0
    assert found.recovered_s(2.0, 4.0, 10.0, DEADLINE_S, stale_is_bad=True) == pytest.approx(3.0, abs=0.11)


def test_the_timelines_of_several_processes_become_one() -> None:
    one, other = timeline(np.array([0.0, 2.0])), timeline(np.array([1.0]), rung=np.array([NO_ANSWER]))
    both = merged([one, other])
    assert both.due_s.tolist() == [0.0, 1.0, 2.0]
    assert both.failed.tolist() == [False, True, False]


def test_a_reason_of_a_newer_server_is_named_by_its_number() -> None:
    found = timeline(np.zeros(2), rung=np.array([Rung.POPULAR] * 2), reason=np.array([200, Reason.DEADLINE]))
    assert found.kinds() == ["popular, reason 200", "popular, deadline"]


def test_the_picture_has_a_panel_for_each_run(tmp_path: Path) -> None:
    due = every_10_ms(3.0)
    found = timeline(due, rung=np.where(due > 1, 3, 0), reason=np.where(due > 1, 1, 0), latency_s=due / 20)
    scenario = Scenario(name="mine", description="Mine.", seconds=3, at_s=1, lifted_at_s=2)
    outcome = Outcome(scenario, found, {"verdict": "passed"})
    sizes = []
    for count in (1, 2, 4):
        plot_outcomes([outcome] * count, tmp_path / "plot.png", machine="2 cores")
        content = (tmp_path / "plot.png").read_bytes()
        assert content.startswith(b"\x89PNG")
        sizes.append((int.from_bytes(content[16:20], "big"), int.from_bytes(content[20:24], "big")))  # width and height
    (wide, high), (wide_of_2, high_of_2), (_, high_of_4) = sizes
    assert wide_of_2 > 1.5 * wide
    assert high_of_2 == high
    assert high_of_4 > 1.5 * high
