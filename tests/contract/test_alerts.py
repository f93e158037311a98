"""The rules for Prometheus: every alert fires when it should, and only then, by promtool on made-up metrics."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.support.promtool import (
    CALLER,
    INGEST,
    INSTANCE,
    RULES,
    SUPERVISOR,
    alert,
    answers,
    caches,
    callers,
    check_alerts,
    counter,
    healthy,
    ingest,
    name,
    server,
    stage,
    supervisor,
)
from trireme_runtime.schema import ENTRY, FUSED, LAYOUTS, STAGES

ROOT = RULES.parents[2]
ALERTS = {
    rule["alert"]: rule
    for file in sorted(RULES.glob("*.yml"))
    for group in yaml.safe_load(file.read_text())["groups"]
    for rule in group["rules"]
    if "alert" in rule
}

#: Minutes of a scenario; what is unusual begins when there is a usual: an hour of it, half an hour ago.
BEFORE, AFTER = 120, 30
END = BEFORE + AFTER
LAST = END - 1


def then(usual: float, unusual: float, minutes: int = AFTER) -> list[float]:
    """The usual, and at the end for so many minutes something else."""
    return [usual] * (END - minutes) + [unusual] * minutes


def of_stage(alertname: str, slow: str, model: str = FUSED, instance: str = INSTANCE) -> str:
    entry = FUSED if model == FUSED else ENTRY
    return alert(alertname, instance=instance, model=model, stage=slow, entry=entry)


def unusual(slow: str, model: str = FUSED, instance: str = INSTANCE) -> list[str]:
    """What fires where one stage got slow."""
    return [of_stage(kind, slow, model, instance) for kind in ("TriremeStageP99Unusual", "TriremeStageShareUnusual")]


def test_prometheus_takes_the_configuration_and_the_rules() -> None:
    subprocess.run(["promtool", "check", "config", str(RULES.parent / "prometheus.yml")], check=True)


@pytest.mark.parametrize("alertname", ALERTS)
def test_an_alert_says_what_happened_how_urgent_it_is_and_what_to_do(alertname: str) -> None:
    rule = ALERTS[alertname]
    assert rule["labels"] == {"severity": rule["labels"]["severity"]}
    assert rule["labels"]["severity"] in ("page", "ticket")
    notes = rule["annotations"]
    assert set(notes) == {"summary", "description", "runbook"}
    file, _, anchor = notes["runbook"].partition("#")
    headings = re.findall(r"^## (\w+)$", (ROOT / file).read_text(), flags=re.MULTILINE)
    assert anchor == alertname.lower()
    assert alertname in headings


def test_the_runbook_has_no_alert_that_is_gone() -> None:
    assert set(
        re.findall(r"^## (Trireme\w+)$", (ROOT / "docs/observe/alerts.md").read_text(), flags=re.MULTILINE)
    ) == set(ALERTS)


def test_all_is_quiet_while_all_is_well(tmp_path: Path) -> None:
    check_alerts(tmp_path, healthy(END), {minute: [] for minute in (5, 30, 60, 95, BEFORE, LAST)})


def test_a_slow_stage_is_named_and_the_others_are_quiet(tmp_path: Path) -> None:
    series = healthy(END)
    for slow in STAGES:  # on a server of its own
        for each in STAGES:
            series |= stage(each, then(0.001, 0.003 if each == slow else 0.001), instance=f"{slow}:8002")
    named = [alert for slow in STAGES for alert in unusual(slow, instance=f"{slow}:8002")]
    check_alerts(tmp_path, series, {BEFORE: [], BEFORE + 5: [], LAST: named})


def test_stages_of_the_ensemble_are_compared_with_each_other_over_the_models(tmp_path: Path) -> None:
    series = healthy(END)
    for model, names in LAYOUTS["cpu"].ensemble.items():
        for each in names:
            series |= stage(each, then(0.001, 0.003 if each == "ranking" else 0.001), model=model)
    check_alerts(tmp_path, series, {BEFORE: [], LAST: unusual("ranking", "ranking")})


def test_a_wobble_within_the_floor_is_no_anomaly(tmp_path: Path) -> None:
    check_alerts(tmp_path, healthy(END) | stage("ranking", then(0.001, 0.0013)), {LAST: []})


def test_a_stage_that_always_varied_may_vary(tmp_path: Path) -> None:
    usual = [0.0007 if minute % 40 < 20 else 0.0027 for minute in range(BEFORE)]
    check_alerts(tmp_path, healthy(END) | stage("ranking", usual + [0.0027] * AFTER), {LAST: []})


def test_when_all_stages_slow_down_alike_their_shares_stay(tmp_path: Path) -> None:
    series = healthy(END)
    for each in STAGES:
        series |= stage(each, then(0.001, 0.003))
    check_alerts(tmp_path, series, {LAST: [of_stage("TriremeStageP99Unusual", each) for each in STAGES]})


def test_what_a_slow_stage_drags_along_is_not_named(tmp_path: Path) -> None:
    series = healthy(END)
    for each in STAGES:
        series |= stage(each, then(0.001, 0.03 if each == "retrieval" else 0.003))
    over = of_stage("TriremeStageOverBudget", "retrieval")
    check_alerts(tmp_path, series, {BEFORE: [], LAST: [over, *unusual("retrieval")]})


def test_a_faster_stage_is_no_anomaly(tmp_path: Path) -> None:
    check_alerts(tmp_path, healthy(END) | stage("ranking", then(0.003, 0.001)), {BEFORE: [], LAST: []})


def test_a_few_batches_are_not_judged(tmp_path: Path) -> None:
    check_alerts(tmp_path, healthy(END) | stage("ranking", then(0.001, 0.006), batches=15), {LAST: []})


def test_without_an_hour_of_history_nothing_is_unusual(tmp_path: Path) -> None:
    series = healthy(END) | stage("ranking", [0.001] * 50 + [0.003] * (END - 50))
    check_alerts(tmp_path, series, {75: [], 85: []})


def test_a_new_level_becomes_the_usual(tmp_path: Path) -> None:
    series = healthy(240) | stage("ranking", [0.001] * 120 + [0.003] * 120)
    check_alerts(tmp_path, series, {145: unusual("ranking"), 235: []})


def test_a_stage_over_its_budget(tmp_path: Path) -> None:
    over = of_stage("TriremeStageOverBudget", "retrieval")
    check_alerts(tmp_path, healthy(60) | stage("retrieval", [0.005] * 60), {9: [], 30: [over]})


def test_a_server_that_is_down(tmp_path: Path) -> None:
    series = healthy(END) | {name("up", job="trireme", instance=INSTANCE): then(1, 0, 5)}
    check_alerts(tmp_path, series, {BEFORE: [], LAST: [alert("TriremeDown", instance=INSTANCE)]})


def test_a_server_that_is_not_ready(tmp_path: Path) -> None:
    series = healthy(END) | supervisor(then(1, 0, 5), [0] * END)
    check_alerts(tmp_path, series, {BEFORE: [], LAST: [alert("TriremeNotReady", instance=SUPERVISOR)]})


def test_a_replica_that_is_down(tmp_path: Path) -> None:
    series = healthy(END) | supervisor(then(2, 1, 10), [0] * END, replicas=2)
    check_alerts(tmp_path, series, {END - 7: [], LAST: [alert("TriremeReplicaDown", instance=SUPERVISOR)]})


@pytest.mark.parametrize(("restarts", "fires"), [(2, False), (3, True)])
def test_processes_that_end_again_and_again(tmp_path: Path, restarts: int, fires: bool) -> None:
    restarted = [0] * (END - 12) + [1, 0, 0] * restarts + [0] * (12 - 3 * restarts)
    series = healthy(END) | supervisor([1] * END, restarted)
    fired = [alert("TriremeRestarts", instance=SUPERVISOR)] if fires else []
    check_alerts(tmp_path, series, {BEFORE: [], LAST: fired})


def test_no_server_is_watched(tmp_path: Path) -> None:
    check_alerts(tmp_path, {name("up", job="other"): [1.0] * 20}, {9: [], 11: [alert("TriremeNoData")]})


@pytest.mark.parametrize(("failures", "fires"), [(5, False), (30, True)])
def test_errors(tmp_path: Path, failures: int, fires: bool) -> None:
    series = healthy(END) | server(nv_inference_request_failure=then(0, failures))
    check_alerts(tmp_path, series, {LAST: [alert("TriremeErrors", instance=INSTANCE, model=FUSED)] if fires else []})


@pytest.mark.parametrize("rung", ["rung1", "rung2_fault"])
@pytest.mark.parametrize(("users", "fires"), [(3, False), (10, True)])
def test_answers_without_a_model(tmp_path: Path, users: float, fires: bool, rung: str) -> None:
    fault = alert("TriremeModelFault", instance=INSTANCE, entry=FUSED)
    check_alerts(tmp_path, healthy(60) | answers(**{rung: [users] * 60}), {9: [], 30: [fault] if fires else []})


@pytest.mark.parametrize("outcome", ["rung1_deadline", "rung3_deadline", "rung3_overload"])
@pytest.mark.parametrize(("users", "fires"), [(3, False), (10, True)])
def test_answers_that_are_cut_short(tmp_path: Path, users: float, fires: bool, outcome: str) -> None:
    short = alert("TriremeCutShort", instance=INSTANCE, entry=FUSED)
    check_alerts(tmp_path, healthy(60) | answers(**{outcome: [users] * 60}), {4: [], 30: [short] if fires else []})


def test_an_overloaded_server_is_not_said_to_know_its_users_less(tmp_path: Path) -> None:
    short = alert("TriremeCutShort", instance=INSTANCE, entry=FUSED)
    check_alerts(tmp_path, healthy(END) | answers(rung3_overload=then(0, 300)), {BEFORE: [], LAST: [short]})


@pytest.mark.parametrize("state", ["unreachable", "corrupt"])
@pytest.mark.parametrize(("users", "fires"), [(3, False), (10, True)])
def test_a_feature_store_that_says_nothing(tmp_path: Path, users: float, fires: bool, state: str) -> None:
    stale = alert("TriremeFeaturesStale", instance=INSTANCE, model=FUSED)
    of_state = {"fresh": 300.0, "absent": 300.0, state: users}
    series = {
        name("trireme_features_total", instance=INSTANCE, model=FUSED, state=each): counter([count] * 60)
        for each, count in of_state.items()
    }
    check_alerts(tmp_path, healthy(60) | series, {4: [], 30: [stale] if fires else []})


@pytest.mark.parametrize(("minutes", "fires"), [(4, False), (10, True)])
def test_clients_that_cannot_hear_redis(tmp_path: Path, minutes: int, fires: bool) -> None:
    series = healthy(END) | caches(then(0, 3, minutes))
    deaf = alert("TriremeCacheDeaf", instance=CALLER, trireme_model=FUSED)
    check_alerts(tmp_path, series, {BEFORE: [], LAST: [deaf] if fires else []})


def test_events_that_nobody_applies(tmp_path: Path) -> None:
    series = healthy(END) | ingest(then(1, 0, 10), [0] * END)
    check_alerts(tmp_path, series, {END - 7: [], LAST: [alert("TriremeIngestDown")]})


def test_a_consumer_that_was_taken_away_is_missed_and_one_that_never_was_is_not(tmp_path: Path) -> None:
    up, answering = name("up", job="ingest", instance=INGEST), [1.0] * (END - 20)
    check_alerts(tmp_path, healthy(END) | {up: answering}, {LAST: [alert("TriremeIngestDown")]})
    check_alerts(tmp_path, healthy(END) | {up: [0.0] * END}, {LAST: []})


def test_one_consumer_of_two_is_enough(tmp_path: Path) -> None:
    other = {name("up", job="ingest", instance="there:8004"): then(1, 0, 10)}
    check_alerts(tmp_path, healthy(END) | other, {LAST: []})


@pytest.mark.parametrize(("seconds", "fires"), [(50, False), (70, True)])
def test_a_consumer_that_is_too_slow(tmp_path: Path, seconds: float, fires: bool) -> None:
    series = healthy(END) | ingest([1] * END, then(1, seconds, 10))
    fired = [alert("TriremeIngestLag", instance=INGEST)] if fires else []
    check_alerts(tmp_path, series, {END - 7: [], LAST: fired})


@pytest.mark.parametrize("outcome", ["dead", "trimmed"])
@pytest.mark.parametrize(("events", "fires"), [(3, False), (10, True)])
def test_events_that_are_none_or_are_gone(tmp_path: Path, events: float, fires: bool, outcome: str) -> None:
    series = healthy(END) | ingest([1] * END, [0] * END, **{outcome: then(0, events)})
    fired = [alert("TriremeIngestLost", instance=INGEST)] if fires else []
    check_alerts(tmp_path, series, {BEFORE: [], LAST: fired})


@pytest.mark.parametrize(("users", "fires"), [({"rung3": 90}, False), ({"rung3": 200}, True), ({"rung2": 200}, True)])
def test_more_popular_items_than_usual(tmp_path: Path, users: dict[str, float], fires: bool) -> None:
    unusual = alert("TriremePopularUnusual", instance=INSTANCE, entry=FUSED)
    series = healthy(END) | answers(**{rung: then(60, count) for rung, count in users.items()})
    check_alerts(tmp_path, series, {BEFORE: [], LAST: [unusual] if fires else []})


#: Of 600 requests a minute, how many miss the SLO; and what fires at the end.
BURNS = {
    "all of a minute": (then(0, 600, 1), []),
    "all of 8 minutes": (then(0, 600, 8), ["Slow"]),
    "all of 12 minutes": (then(0, 600, 12), ["Fast", "Slow"]),
    "all of 12 minutes, an hour ago": ([0] * 78 + [600] * 12 + [0] * 60, ["Slow"]),
    "most of 10 minutes, 6 minutes ago": ([0] * 134 + [528] * 10 + [0] * 6, ["Slow"]),
    "a tenth of 12 minutes": (then(0, 60, 12), []),
    "always .5 %": ([3] * END, []),
    "always 2 %": ([12] * END, ["Slow"]),
    "always 4 %": ([24] * END, ["Slow"]),
    "always 10 %": ([60] * END, ["Fast", "Slow"]),
}


def test_the_error_budget(tmp_path: Path) -> None:
    series = healthy(END)
    for case, (missed, _) in BURNS.items():
        series |= callers([600] * END, missed, model=case)
    series |= callers([0.5] * END, [0.5] * END, model="all of a few requests")
    burning = [
        alert(f"TriremeSLOBurn{speed}", trireme_model=case) for case, (_, fires) in BURNS.items() for speed in fires
    ]
    check_alerts(tmp_path, series, {LAST: burning})


def test_an_alert_ends_soon_after_its_cause(tmp_path: Path) -> None:
    minutes = 500
    series = {name("up", job="trireme", instance=INSTANCE): [1.0] * minutes}
    series |= callers([600] * minutes, [0] * 100 + [600] * 20 + [0] * 380)
    fast, slow = (alert(f"TriremeSLOBurn{speed}", trireme_model=FUSED) for speed in ("Fast", "Slow"))
    check_alerts(tmp_path, series, {99: [], 119: [fast, slow], 155: [slow], 495: []})


def test_without_a_budget_there_is_no_slo(tmp_path: Path) -> None:
    series = {key: values for key, values in healthy(END).items() if "trireme_slo" not in key}
    plain = name("trireme_client_request_duration_seconds_count", job="callers", trireme_model=FUSED)
    check_alerts(tmp_path, series | {plain: counter([600] * END)}, {LAST: []})


def test_callers_that_tell_nothing(tmp_path: Path) -> None:
    series = {key: values for key, values in healthy(END).items() if "trireme_client" not in key}
    check_alerts(tmp_path, series, {14: [], 30: [alert("TriremeCallersSilent", model=FUSED)]})
