"""What the console says of readings, without a server and without a browser."""

from __future__ import annotations

from dataclasses import replace

import pytest
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import MeterProvider
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from trireme_client import ValidationError
from trireme_console.ask import parse_history, parse_user
from trireme_console.charts import CHARTS
from trireme_console.figures import Headline, Level, headline, milliseconds, processes, stage_rows, tiles
from trireme_console.history import SPAN_S, WINDOW_S, History, Snapshot
from trireme_console.readings import (
    CALLERS,
    Answers,
    Callers,
    Identity,
    Published,
    Reading,
    Supervised,
    published_in,
    supervised_in,
)
from trireme_perf.ledger.histograms import Histogram, histograms_in
from trireme_perf.ledger.statistics import PARTS
from trireme_runtime.schema import STAGES

SHARES = {"feature_transform": 0.1, "user_tower": 0.1, "retrieval": 0.25, "ranking": 0.2, "reranking": 0.1}
BUDGET = {"p50_ms": 10.0, "p99_ms": 20.0, "shares": SHARES}
IDENTITY = Identity("here:8001", "recommend", "fused", "3", "triton 2", {"recommend": tuple(STAGES)}, BUDGET)
BOUNDS = (0.001, 0.002, 0.004, 0.008, float("inf"))
START = 1_000_000.0
FULL, UNKNOWN = (0, "none"), (3, "nothing_known")


def reading(
    second: float,
    *,
    requests: int,
    slow: int = 0,
    failures: float = 0,
    answers: Answers | None = None,
    callers: Callers | None = None,
    identity: Identity = IDENTITY,
) -> Reading:
    """Counters after ``requests`` of 2 users and 3 ms each; ``slow`` batches of retrieval took 4 to 8 ms, all others 1 to 2."""
    figures = {"requests": requests, "success": requests * 3_000_000, "users": requests * 2, "executions": requests}
    figures |= dict.fromkeys(PARTS, requests * 500_000)
    fast = Histogram(BOUNDS, (0, requests, requests, requests, requests))
    stages = {("recommend", name): fast for name in STAGES}
    quick = requests - slow
    stages["recommend", "retrieval"] = Histogram(BOUNDS, (0, quick, quick, requests, requests))
    published = Published(stages, answers, failures, {})
    return Reading(START + second, identity, {"recommend": figures}, published, callers or {}, ())


def watched(*readings: Reading) -> Snapshot:
    history = History()
    for one in readings:
        history.add(one)
    return history.snapshot


def said_of(snapshot: Snapshot) -> Headline:
    return headline(snapshot, now=snapshot.at)


def test_figures_are_of_the_window_and_of_no_reading_before() -> None:
    every = [reading(second, requests=1000 + 10 * second) for second in range(60)]
    window = watched(*every).window
    assert window is not None
    assert (window.end - window.start, window.users_per_s) == (WINDOW_S, 20.0)
    assert window.ledger is not None
    assert (window.ledger.requests, window.ledger.end_to_end_us, window.queue_us) == (10 * WINDOW_S, 3000, 500)


def test_spans_follow_each_other_without_a_gap() -> None:
    spans = watched(*(reading(0.7 * step, requests=step) for step in range(60))).spans
    assert len(spans) > 5
    assert all(span.end - span.start >= SPAN_S for span in spans)
    assert [span.end for span in spans[:-1]] == [span.start for span in spans[1:]]


def test_a_quarter_of_an_hour_is_kept() -> None:
    spans = watched(*(reading(second, requests=second) for second in range(2000))).spans
    assert 800 < spans[-1].end - spans[0].start <= 900


def test_all_stages_within_their_budgets() -> None:
    said = said_of(watched(reading(0, requests=0), reading(1, requests=100)))
    assert (said.level, said.text) == (Level.GOOD, "All stages are within their budgets")


def test_a_slow_stage_is_named_with_its_budget_and_what_is_usual() -> None:
    calm = [reading(second, requests=10 * second) for second in range(50)]
    slow = [reading(50 + second, requests=500 + 10 * second, slow=5 * second) for second in range(10)]
    said = said_of(watched(*calm, *slow))
    assert said.level is Level.BAD
    assert said.text.startswith("retrieval is over its budget: p99 7.")
    assert said.text.endswith(" ms of 5.00 ms; usual 1.99 ms")


def test_the_worst_of_two_slow_stages_is_named_first() -> None:
    tight = replace(IDENTITY, budget={**BUDGET, "shares": {**SHARES, "ranking": 0.09}})  # 1.8 ms
    said = said_of(watched(reading(0, requests=0, identity=tight), reading(1, requests=100, slow=50, identity=tight)))
    assert said.text.startswith("retrieval is over its budget: p99 7.")
    assert said.detail == "also over: ranking 1.99 ms of 1.80 ms"


def test_few_batches_are_no_verdict() -> None:
    snapshot = watched(reading(0, requests=0), reading(1, requests=5, slow=5))
    assert {row.level for row in stage_rows(snapshot)} == {Level.IDLE}
    assert said_of(snapshot).word == "Quiet"


def test_without_a_budget_nothing_is_judged() -> None:
    bare = replace(IDENTITY, budget={})
    snapshot = watched(reading(0, requests=0, identity=bare), reading(1, requests=100, slow=50, identity=bare))
    assert said_of(snapshot).text.startswith("No budget in this bundle; the slowest stage is retrieval: p99 7.")
    assert {row.level for row in stage_rows(snapshot)} == {Level.IDLE}


def test_nobody_asks() -> None:
    said = said_of(watched(reading(0, requests=7), reading(1, requests=7)))
    assert (said.level, said.word) == (Level.IDLE, "Idle")


def test_a_console_that_hangs_says_so() -> None:
    snapshot = watched(reading(0, requests=0), reading(1, requests=100))
    assert headline(snapshot, now=START + 20).word == "All well"
    assert headline(snapshot, now=START + 60).text.startswith("Nothing has been read since ")


def test_failures_are_the_headline_where_no_stage_is_slow() -> None:
    said = said_of(watched(reading(0, requests=0, failures=4), reading(1, requests=100, failures=5)))
    assert (said.level, said.text) == (Level.BAD, "1 request failed in the last 20 s")


def test_a_server_that_is_gone_and_back() -> None:
    history = History()
    history.add(reading(0, requests=500))
    history.add(reading(1, requests=600))
    for second in (2, 3):
        history.add_failure(START + second, "refused")
    gone = history.snapshot
    assert (gone.up, gone.since, gone.window, gone.identity) == (False, START + 2, None, IDENTITY)
    assert said_of(gone).word == "Down"
    assert "refused" in said_of(gone).detail
    history.add(reading(4, requests=0))
    history.add(reading(5, requests=30))
    back = history.snapshot
    assert (back.up, back.since) == (True, START + 4)
    assert back.window is not None
    assert back.window.users_per_s == 60
    assert [span.up for span in back.spans] == [False]


@pytest.mark.parametrize(
    "after", [reading(2, requests=3), reading(2, requests=900, identity=replace(IDENTITY, version="4"))]
)
def test_counters_that_begin_anew_are_not_compared(after: Reading) -> None:
    snapshot = watched(reading(0, requests=500), reading(1, requests=600), after)
    assert snapshot.window is None


def test_rungs_are_shares_of_the_users() -> None:
    before, after = {FULL: 100.0, UNKNOWN: 5.0}, {FULL: 175.0, UNKNOWN: 30.0}
    snapshot = watched(reading(0, requests=0, answers=before), reading(6, requests=50, answers=after))
    assert snapshot.window is not None
    assert snapshot.window.rungs == {0: 75, 3: 25}
    assert [tile.value for tile in tiles(snapshot) if tile.title == "Full answers"] == ["75.0"]
    assert snapshot.spans[0].rungs == {0: 75, 3: 25}
    assert said_of(snapshot).word == "All well"  # nothing is known of users: no fault of the server's
    drawn = {series["name"]: series["data"][0][1] for series in CHARTS[3][2](snapshot)["series"]}
    assert drawn == {"full": 75, "retrieval order": 0, "segment popular": 0, "popular": 25}


def test_answers_that_were_cut_short_are_the_headline_and_say_why() -> None:
    late = {FULL: 90.0, (1, "deadline"): 4.0, (3, "deadline"): 4.0, (3, "overload"): 2.0}
    snapshot = watched(reading(0, requests=0, answers={}), reading(6, requests=50, answers=late))
    said = said_of(snapshot)
    assert (said.level, said.word) == (Level.BAD, "Cut short")
    assert said.text == "10.0% of the users got no full answer: deadline 8.0%, overload 2.0%"
    assert [tile.note for tile in tiles(snapshot) if tile.title == "Full answers"] == ["deadline 8.0% · overload 2.0%"]


SUPERVISED = """\
# TYPE trireme_restarts_total counter
trireme_restarts_total{what="tritonserver",model=""} 1
trireme_restarts_total{what="instance",model="recommend"} 2
# TYPE trireme_replicas gauge
trireme_replicas 2
# TYPE trireme_replicas_ready gauge
trireme_replicas_ready 1
# TYPE trireme_last_death_timestamp_seconds gauge
trireme_last_death_timestamp_seconds 1000003.0
"""


def test_what_happened_to_processes_is_read_of_their_supervisor_alone() -> None:
    found = supervised_in(text_string_to_metric_families(SUPERVISED))
    assert found == Supervised(replicas=2, ready=1, restarts=3, last_death=START + 3)
    assert supervised_in(text_string_to_metric_families("# TYPE up gauge\nup 1\n")) is None


@pytest.mark.parametrize(
    ("supervised", "word", "detail"),
    [
        (Supervised(1, 1, 0, None), "All well", ""),
        (Supervised(2, 2, 0, None), "All well", "2 of 2 replicas ready"),
        (Supervised(2, 1, 0, None), "Degraded", "1 of 2 replicas ready"),
        (Supervised(1, 1, 3, START + 3), "Healing", "1 of 1 replicas ready · 3 restarts, the last process ended at "),
        (Supervised(1, 1, 1, START - 60), "All well", "1 of 1 replicas ready · 1 restart, the last process ended at "),
    ],
)
def test_processes_that_ended_are_the_headline_while_it_is_recent(
    supervised: Supervised, word: str, detail: str
) -> None:
    now = replace(reading(6, requests=50), supervised=supervised)
    snapshot = watched(reading(0, requests=0), now)
    assert said_of(snapshot).word == word
    assert processes(snapshot).startswith(detail)
    assert bool(processes(snapshot)) == bool(detail)


def test_answers_without_what_users_did_lately_are_the_headline() -> None:
    stale = {FULL: 150.0, (0, "features_stale"): 50.0}
    snapshot = watched(reading(0, requests=0, answers={FULL: 0.0}), reading(1, requests=100, answers=stale))
    said = said_of(snapshot)
    assert (said.level, said.word) == (Level.BAD, "Stale features")
    assert said.text == "25.0% of the users got an answer without what they did lately"
    (tile,) = [tile for tile in tiles(snapshot) if tile.title == "Full answers"]
    assert (tile.value, tile.note) == ("100", "stale features 25.0%")


def test_a_single_answer_that_was_cut_short_is_no_headline() -> None:
    rare = {FULL: 999.0, (3, "deadline"): 1.0}
    snapshot = watched(reading(0, requests=0, answers={}), reading(6, requests=500, answers=rare))
    assert said_of(snapshot).word == "All well"


def test_what_is_not_published_is_said() -> None:
    notes = {tile.title: tile.note for tile in tiles(watched(reading(0, requests=0), reading(1, requests=9)))}
    assert notes["Full answers"] == "not published by this server"
    assert notes["Callers' p99"] == "no --callers-url given"
    nobody = reading(0, requests=0, callers={"a": {}}), reading(1, requests=9, callers={"a": {}})
    assert {tile.title: tile.note for tile in tiles(watched(*nobody))}["Callers' p99"] == "nobody asked"
    assert [tile.title for tile in tiles(Snapshot())] == [*notes]
    assert {tile.value for tile in tiles(Snapshot())} == {"–"}


def test_callers_are_added_up_and_judged_by_the_slo() -> None:
    def of(kept: int, missed: int) -> Callers:
        bounds = (0.01, 0.02, 0.04, float("inf"))
        kept_by_a = {("recommend", "kept", ""): Histogram(bounds, (kept, kept, kept, kept))}
        return {"a": kept_by_a, "b": {("recommend", "missed", ""): Histogram(bounds, (0, 0, missed, missed))}}

    snapshot = watched(reading(0, requests=0, callers=of(10, 2)), reading(1, requests=100, callers=of(85, 27)))
    assert snapshot.window is not None
    assert snapshot.window.callers is not None
    assert (snapshot.window.callers.requests, snapshot.window.callers.kept) == (100, 0.75)
    assert 20_000 < snapshot.window.callers.p99_us <= 40_000
    said = said_of(snapshot)
    assert (said.word, said.text.startswith("Callers wait too long: p99 39.")) == ("Over the SLO", True)


def test_what_needed_no_server_is_told_where_clients_keep_answers() -> None:
    def of(**found: int) -> Callers:
        asked = {
            ("recommend", "kept", cache): Histogram((0.01, float("inf")), (count, count))
            for cache, count in found.items()
        }
        return {"a": asked, "b": {("recommend", "kept", ""): Histogram((0.01, float("inf")), (50, 50))}}

    none = of(hit=0, stale=0, store=0, shared=0, miss=0)
    counts = of(hit=20, stale=5, store=5, shared=10, miss=60)
    snapshot = watched(reading(0, requests=0, callers=none), reading(1, requests=100, callers=counts))
    notes = {tile.title: tile.note for tile in tiles(snapshot)}
    assert notes["Callers' p99"].endswith("100.0% in the SLO · 30.0% kept answers")


def test_a_process_that_was_not_read_before_tells_nothing_yet() -> None:
    asked = {"a": {("recommend", "", ""): Histogram((0.1, float("inf")), (1000, 1000))}}
    for before, told in ({}, False), ({"a": {}}, True):
        snapshot = watched(reading(0, requests=0, callers=before), reading(1, requests=100, callers=asked))
        assert snapshot.window is not None
        assert (snapshot.window.callers is not None) == told


def test_callers_with_other_buckets_are_added_up_where_they_agree() -> None:
    def of(a: int, b: int) -> Callers:
        coarse = Histogram((0.01, 0.1, float("inf")), (a, a, a))
        fine = Histogram((0.01, 0.02, 0.1, float("inf")), (0, b, b, b))
        return {"a": {("recommend", "kept", ""): coarse}, "b": {("recommend", "kept", ""): fine}}

    snapshot = watched(reading(0, requests=0, callers=of(0, 0)), reading(1, requests=10, callers=of(50, 50)))
    assert snapshot.window is not None
    assert snapshot.window.callers is not None
    assert (snapshot.window.callers.requests, snapshot.window.callers.p50_us) == (100, 10_000)
    assert 10_000 < snapshot.window.callers.p99_us <= 100_000


def test_the_callers_histogram_is_found_under_the_name_that_opentelemetry_gives_it() -> None:
    registry = CollectorRegistry()
    exporter = PrometheusMetricReader(registry=registry)
    meters = MeterProvider([exporter])
    histogram = meters.get_meter("trireme").create_histogram("trireme.client.request.duration", unit="s")
    histogram.record(0.004, {"trireme_model": "recommend", "trireme_slo": "kept"})
    histogram.record(3.0, {"trireme_model": "recommend", "trireme_slo": "missed", "error_type": "TimeoutError"})
    histogram.record(0.0001, {"trireme_model": "recommend", "trireme_slo": "kept", "trireme_cache": "hit"})
    families = text_string_to_metric_families(generate_latest(registry).decode())
    found = histograms_in(families, CALLERS, ("trireme_model", "trireme_slo", "trireme_cache"))
    told = [("kept", ""), ("missed", ""), ("kept", "hit")]
    assert {key: value.count for key, value in found.items()} == {("recommend", *labels): 1 for labels in told}
    meters.shutdown()


METRICS = """
# TYPE nv_inference_request_failure counter
nv_inference_request_failure{model="recommend",reason="OTHER",version="3"} 2
nv_inference_request_failure{model="recommend",reason="REJECTED",version="3"} 1
nv_inference_request_failure{model="other",reason="OTHER",version="1"} 9
# TYPE trireme_answers_total counter
trireme_answers_total{model="recommend",rung="0",reason="none"} 40
trireme_answers_total{model="recommend",rung="3",reason="deadline"} 2
trireme_answers_total{model="other",rung="0",reason="none"} 9
# TYPE trireme_cache_hits_total counter
trireme_cache_hits_total{model="recommend"} 12
"""


def test_metrics_of_this_entry_model_only() -> None:
    found = published_in(text_string_to_metric_families(METRICS), IDENTITY)
    assert (found.answers, found.failures) == ({FULL: 40, (3, "deadline"): 2}, 3)
    assert found.caches == {"hits_total recommend": 12}
    assert published_in([], IDENTITY).answers is None


def test_every_chart_leaves_a_gap_where_the_server_was_gone() -> None:
    history = History()
    for second in range(12):
        history.add(reading(second, requests=10 * second, answers={FULL: 20.0 * second}))
    history.add_failure(START + 12, "refused")
    for _, _, options in CHARTS:
        for series in options(history.snapshot)["series"]:
            assert series["data"][-1] == [(START + 12) * 1000, None]
            assert series["data"][0][1] is not None


@pytest.mark.parametrize(
    ("us", "text"), [(4.9, "0.00"), (412, "0.41"), (9_996, "10.0"), (12_340, "12.3"), (123_456, "123")]
)
def test_milliseconds(us: float, text: str) -> None:
    assert milliseconds(us) == text


def test_users_and_histories_that_are_typed_in() -> None:
    assert [parse_user(text) for text in ("", " anonymous ", "Anonymous", " 13085 ")] == [None, None, None, 13085]
    assert [parse_history(text) for text in ("", " , ", "1, 2,3", "4 5")] == [None, None, [1, 2, 3], [4, 5]]
    with pytest.raises(ValidationError, match="user is '-1'; allowed: a user id ≥ 0, or anonymous"):
        parse_user("-1")
    with pytest.raises(ValidationError, match="history holds 'x'; allowed: item ids"):
        parse_history("1, x")
