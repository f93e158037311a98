"""What a cache would bring: traffic, the simulation by hand, NDCG of old lists, and the TTL that is proposed."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray
from rich.console import Console

from trireme_cli.perf.cache import cache_tables
from trireme_client import ANONYMOUS, Request
from trireme_client.cache.entries import CacheCounts
from trireme_client.cache.options import Cache
from trireme_export.perf_input import write_perf_input
from trireme_perf.ab.blocks import Block
from trireme_perf.cache.document import describe_replay, describe_traffic
from trireme_perf.cache.events import Events, group_events, read_events
from trireme_perf.cache.plot import write_plot
from trireme_perf.cache.prediction import Forecast, Prediction, propose
from trireme_perf.cache.quality import Quality, histories_at, next_events
from trireme_perf.cache.replay import Replayed
from trireme_perf.cache.run import Source
from trireme_perf.cache.simulation import Costs, simulate
from trireme_perf.cache.traffic import Traffic, requests_before_events, sample_users, zipf_requests
from trireme_perf.errors import PerfError

RNG = np.random.default_rng(0)


def events(*rows: tuple[int, float, int]) -> Events:
    """From (user, time, item)."""
    user, time, item = zip(*rows, strict=True) if rows else ((), (), ())
    return group_events(np.array(user, np.int64), np.array(time, np.float64), np.array(item, np.int64))


def traffic(*asked: tuple[float, int], happened: Events | None = None) -> Traffic:
    """From (time, user)."""
    users = sorted({user for _, user in asked})
    time, user = zip(*asked, strict=True)
    kind = np.array([users.index(one) for one in user])
    return Traffic(np.array(time, np.float64), kind, [Request(one) for one in users], happened or events())


def run(
    given: Traffic, invalidates: bool = False, negative: bool = False, **options: Any
) -> tuple[int, int, int, list[int]]:
    cache = Cache(jitter=0.0, **options)
    found = simulate(given, cache, invalidates, np.full(len(given.requests), negative))
    return found.hits, found.stale, found.misses, found.made.tolist()


def test_what_a_user_takes_at_one_moment_is_one_event() -> None:
    found = events((2, 5.0, 30), (1, 9.0, 10), (2, 5.0, 20), (2, 5.0, 30), (2, 1.0, 40))
    assert found.user_id.tolist() == [1, 2, 2]
    assert found.time.tolist() == [9, 1, 5]
    assert found.offsets.tolist() == [0, 1, 2, 4]
    assert found.items.tolist() == [10, 40, 20, 30]
    assert found.first.tolist() == [True, True, False]
    assert found.since(5.0).items.tolist() == [10, 20, 30]
    assert found.until(5.0).items.tolist() == [40]


@pytest.mark.parametrize("kind", [pa.int64(), pa.timestamp("ms")])
def test_events_of_a_data_set_are_in_seconds(tmp_path: Path, kind: pa.DataType) -> None:
    times = np.array([0, 86_400, 172_800], dtype=np.int64) * (1 if kind == pa.int64() else 1000)
    table = {"user_id": [1, 1, 2], "item_id": [5, 6, 7], "timestamp": pa.array(times).cast(kind), "is_click": [1, 0, 1]}
    pq.write_table(pa.table(table), tmp_path / "interactions.parquet")
    assert read_events(tmp_path).time.tolist() == [0, 172_800]
    assert read_events(tmp_path, days=1.5).time.tolist() == [172_800]


def test_events_without_times_are_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"user_id": [1], "item_id": [5], "seq": [1]}), tmp_path / "interactions.parquet")
    with pytest.raises(PerfError, match="not their times"):
        read_events(tmp_path)


def test_requests_come_between_a_user_s_events_and_within_half_an_hour() -> None:
    rows = [(user, time, 1) for user in range(200) for time in (100_000.0, 100_060.0, 200_000.0)]
    found = requests_before_events(events(*rows), np.random.default_rng(1))
    assert 1600 < found.size < 2000  # 600 events × 3
    assert (np.diff(found.time) >= 0).all()
    before = [
        200_000 - found.time[found.time > 150_000],
        100_060 - found.time[(found.time > 100_000) & (found.time < 150_000)],
    ]
    assert 1700 < before[0].max() <= 1800
    assert 50 < before[1].max() <= 60
    assert before[0].min() >= 0


def test_zipf_users_ask_in_proportion_to_their_rank() -> None:
    found = zipf_requests(np.arange(100), 1.0, 50.0, 20_000, np.random.default_rng(2))
    counts = np.sort(np.bincount(found.kind))[::-1]
    assert 1.7 < counts[0] / counts[1] < 2.3
    assert 380 < found.time[-1] < 420


def test_halves_are_of_the_time_and_keep_their_events() -> None:
    happened = events((1, 4.0, 1), (1, 6.0, 2))
    first, second = traffic((0, 1), (1, 2), (2, 1), (9, 2), (10, 1), happened=happened).halves()
    assert (first.size, second.size) == (3, 2)
    assert (first.events.time.tolist(), second.events.time.tolist()) == ([4.0], [6.0])
    with pytest.raises(PerfError, match="1 requests are too few"):
        traffic((0, 1)).halves()


def test_users_are_drawn_with_all_their_requests() -> None:
    asked = [(float(number), number % 500) for number in range(5000)]
    happened = events(*((user, 1.0, 1) for user in range(500)))
    found = sample_users(traffic(*asked, happened=happened), 1000, np.random.default_rng(3))
    assert found.share == 0.2
    assert set(np.bincount(found.kind)[np.unique(found.kind)]) == {10}
    assert set(found.events.user_id.tolist()) == set(found.user_id.tolist())
    anonymous = Traffic(np.arange(4.0), np.arange(4), [Request(ANONYMOUS, 10, (item,)) for item in range(4)], events())
    assert sample_users(anonymous, 4, RNG).size == 4


def test_simulation_by_hand() -> None:
    asked = traffic((0, 1), (5, 1), (9, 2), (12, 1), (14, 2), (40, 1), happened=events((1, 3.0, 1)))
    assert run(asked, ttl_s=10) == (2, 0, 4, [0, 0, 2, 3, 2, 5])
    # The answer of user 1 ends with the event: asked for again at 5, which then serves 12.
    assert run(asked, True, ttl_s=10) == (2, 0, 4, [0, 1, 2, 1, 2, 5])
    # At 12 the answer of 0 is stale, and is asked for again.
    assert run(asked, ttl_s=10, stale_s=10) == (2, 1, 3, [0, 0, 2, 0, 2, 5])
    # Only one fits.
    assert run(asked, ttl_s=10, max_entries=1)[:3] == (1, 0, 5)
    assert run(asked, negative=True, ttl_s=10, negative_ttl_s=1)[:3] == (0, 0, 6)


def test_a_sample_of_users_gets_a_cache_that_is_smaller_by_its_share() -> None:
    asked = traffic((0, 1), (1, 2), (2, 1), (3, 2))
    assert run(asked, max_entries=2)[:3] == (2, 0, 2)
    assert run(replace(asked, share=0.5), max_entries=2)[:3] == (0, 0, 4)
    assert run(replace(asked, share=0.5), max_entries=4)[:3] == (2, 0, 2)


def test_savings_follow_from_the_costs() -> None:
    found = simulate(traffic((0, 1), (5, 1), (12, 1)), Cache(ttl_s=10, stale_s=10, jitter=0), False, np.zeros(1, bool))
    assert (found.hits, found.stale, found.misses, found.hit_rate) == (1, 1, 1, 2 / 3)
    assert Costs(plain=100, hit=10, miss=110).saved(found) == pytest.approx(1 - (10 + 120 + 110) / 300)


def test_the_next_event_of_a_request_is_its_user_s() -> None:
    happened = events((1, 3.0, 1), (1, 8.0, 2), (2, 5.0, 3))
    asked = traffic((0, 1), (3, 1), (4, 3), (4.5, 2), (5, 2), (9, 1), happened=happened)
    assert next_events(asked).tolist() == [0, 1, -1, 2, -1, -1]
    assert histories_at(happened, np.array([0, 1, 2]), 2).tolist() == [[-1, -1], [-1, 1], [-1, -1]]


def test_ndcg_of_old_lists_by_hand() -> None:
    # User 1 took item 1, then 2, then 3. The funnel lists what comes after the newest item.
    happened = events((1, 1.0, 1), (1, 10.0, 2), (1, 20.0, 3))
    asked = traffic((5, 1), (15, 1), (16, 1), happened=happened)

    def lists(histories: NDArray[np.int64]) -> NDArray[np.int64]:
        newest = histories[:, -1:]
        return np.where(newest < 0, newest, newest + np.arange(1, 12))

    quality = Quality(asked, lists, 4)
    assert quality.judges
    assert quality.lost(np.array([0, 1, 2])) == 0
    # The list of 5 holds 2, 3, 4, …: what is right at 15, item 3, is its second. In all, three lists are right at once.
    second = 1 / np.log2(3)
    assert quality.lost(np.array([0, 0, 2])) == pytest.approx((1 - second) / 3)
    assert quality.lost(np.array([0, 0, 0])) == pytest.approx(2 * (1 - second) / 3)
    assert not Quality(traffic((0, 1)), lists, 4).judges


def nothing_to_judge(asked: Traffic) -> Quality:
    return Quality(asked, lambda histories: np.full((len(histories), 10), 999), 4)


def prediction(ttl: float, saved: float, lost: float | None = 0.0) -> Prediction:
    return Prediction(ttl, 0.0, 100, False, saved, 0.0, saved, lost)


def test_the_shortest_ttl_with_nearly_all_savings_is_proposed() -> None:
    rows = [prediction(1, 0.1), prediction(10, 0.5), prediction(60, 0.58), prediction(600, 0.6)]
    assert propose(rows) is rows[2]
    assert propose([*rows, prediction(3600, 0.9, lost=0.006)]) is rows[2]
    assert propose([prediction(1, 0.1, lost=0.01)]) is None
    assert propose([prediction(1, -0.01), prediction(10, 0.0)]) is None
    assert propose([prediction(1, 0.2, None)]) == prediction(1, 0.2, None)


def test_a_forecast_has_both_policies_where_there_are_events() -> None:
    asked = traffic(*((float(number), number % 150) for number in range(600)), happened=events((1, 3.0, 1)))
    forecast = Forecast(asked, Costs(100, 10, 110), np.zeros(150, bool), nothing_to_judge(asked))
    rows = forecast.by_ttl((1.0, 400.0))
    assert [(row.invalidates, row.stale_s, row.ttl_s) for row in rows[:4]] == [
        (True, 0, 1),
        (True, 0, 400),
        (True, 1, 1),
        (True, 400, 400),
    ]
    assert len(rows) == 8
    assert rows[5].hit_rate == 0.5  # each user asks every 150 s: of four calls, the second and the third find an answer
    sizes = forecast.by_size(Cache(ttl_s=1000), True)
    assert [row.max_entries for row in sizes] == [10, 40, 160]
    assert sizes[0].hit_rate < sizes[2].hit_rate


def test_ttls_that_the_traffic_cannot_tell_apart_are_left_out() -> None:
    asked = traffic(*((float(number), number % 5) for number in range(31)))
    forecast = Forecast(asked, Costs(100, 10, 110), np.zeros(5, bool), nothing_to_judge(asked))
    for ttls, predicted in (((10.0, 30.0, 60.0), [10, 30]), ((10.0, 40.0, 60.0), [10, 40]), ((60.0,), [60])):
        assert [row.ttl_s for row in forecast.by_ttl(ttls) if not row.stale_s] == predicted


@pytest.mark.parametrize(("given", "named"), [({}, "nowhere"), ({"zipf": 1.0, "log": Path("x")}, "log and zipf")])
def test_exactly_one_source_of_traffic_is_allowed(given: dict[str, Any], named: str) -> None:
    with pytest.raises(PerfError, match=named):
        Source(**given)


def test_traffic_is_made_up_or_read(tmp_path: Path) -> None:
    write_perf_input(tmp_path, np.array([7, 8]))
    made_up = Source(zipf=1.0, rate=10.0).read(tmp_path, 100)
    assert (made_up.size, set(made_up.user_id.tolist())) == (100, {7, 8})
    file = tmp_path / "requests.jsonl"
    file.write_text('{"time": 1, "user": 9, "k": 5}\n')
    assert Source(log=file).read(tmp_path, 100).requests == [Request(9, 5)]


def document() -> dict[str, Any]:
    asked = traffic((0, 1), (5, 1), (9, 2), (12, 1), happened=events((1, 3.0, 1)))
    costs = Costs(plain=100, hit=10, miss=110)
    forecast = Forecast(asked, costs, np.zeros(2, bool), nothing_to_judge(asked))
    rows = forecast.by_ttl((1.0, 10.0))
    chosen = forecast.predict(Cache(ttl_s=10), True)
    plain = Block(np.full(20, 0.001), 80.0, 20.0, 0.0)
    cached = Block(np.full(20, 0.0005), 32.0, 18.0, 0.0)
    replayed = Replayed([(plain, cached)] * 10, np.full(10, 0.6), CacheCounts(hits=120, misses=80))
    return {
        "traffic": describe_traffic("by hand", asked),
        "machine": "a machine",
        "costs_us": {"plain": 100, "hit": 10, "miss": 110},
        "predictions": [vars(row) for row in rows],
        "sizes": [vars(row) for row in forecast.by_size(Cache(ttl_s=10), True)],
        "proposals": {"invalidated": vars(chosen), "not_invalidated": None},
        "measured": describe_replay(chosen, replayed),
    }


def test_what_was_measured_stands_beside_what_was_predicted() -> None:
    measured = document()["measured"]
    assert measured["hit_rate"]["measured"] == pytest.approx({"value": 0.6, "low": 0.6, "high": 0.6})
    assert measured["cpu_us"]["ratio"]["value"] == 0.5
    assert (measured["cpu_us"]["without"], measured["cpu_us"]["with"]) == (100, 50)
    assert measured["latency_ms"]["p50"]["ratio"]["value"] == 0.5
    assert (measured["requests"], measured["counts"]["hits"]) == (200, 120)


def test_without_events_there_is_one_proposal_and_no_panel_of_ndcg(tmp_path: Path) -> None:
    result = document()
    result |= {name: [row | {"invalidates": False} for row in result[name]] for name in ("predictions", "sizes")}
    lines = [part for part in cache_tables(result) if isinstance(part, str)]
    assert [line for line in lines if line.startswith("proposed")] == ["proposed: no cache; no TTL saves anything"]
    write_plot(result, tmp_path / "cache.png")


def test_tables_and_picture_show_all_of_it(tmp_path: Path) -> None:
    result = document()
    console = Console(file=io.StringIO(), width=120)
    for part in cache_tables(result):
        console.print(part)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    for shown in ("every event ends", "nothing but time", "TTL of 10 s", "no TTL saves", "hits, %", "60.0"):
        assert shown in text
    write_plot(result, tmp_path / "plots" / "cache.png")
    assert (tmp_path / "plots" / "cache.png").stat().st_size > 10_000
