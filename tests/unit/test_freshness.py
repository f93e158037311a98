"""How soon an event is in an answer, with stand-ins for all that it takes; `e2e/test_ingest_answers.py` has the real ones."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from trireme_perf import freshness
from trireme_perf.errors import PerfError
from trireme_perf.freshness import MADE_UP, measure_freshness


@dataclass
class Shop:
    """Client and tracker in one: an event is in the answers from the ``after``th on."""

    after: int
    dropped: int = 0
    events: list[tuple[int, int]] = field(default_factory=list)
    asked: dict[int, int] = field(default_factory=lambda: defaultdict(int))

    def track(self, user: int, item: int) -> None:
        self.events.append((user, item))

    def recommend(self, user: int, k: int) -> Any:
        self.asked[user] += 1
        knows = (user, 0) in self.events and self.asked[user] > self.after
        return type("Answer", (), {"item_ids": np.arange(1, k + 1) if knows else np.arange(k)})


def measure(shop: Shop, **options: float) -> freshness.Freshness:
    return measure_freshness(shop, shop, **options)  # type: ignore[arg-type]


def test_one_user_after_the_other_is_asked_for_until_the_answer_knows_the_event() -> None:
    shop = Shop(after=3)
    result = measure(shop, rate=200, seconds=0.5)
    waited = [user for user, item in shop.events if item == 0 and shop.asked[user]]
    assert (result.rate, result.events, result.probes) == (200, 100, len(waited))
    assert len(shop.events) == 100 + len(waited)
    assert min(user for user, _ in shop.events) > MADE_UP
    assert all(shop.asked[user] == 4 for user in waited[1:])  # the first was asked for once before
    assert 0 < result.p50_ms <= result.max_ms
    assert (result.p99_ms is None) == (result.probes < 100)


def test_an_event_that_no_answer_knows_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(freshness, "LOST_S", 0.01)
    with pytest.raises(PerfError, match=r"an event was in no answer for 0\.01 s; it takes a server with --features"):
        measure(Shop(after=10**9), rate=10, seconds=0.1)


def test_events_that_were_dropped_are_an_error() -> None:
    with pytest.raises(PerfError, match="7 events were dropped: Redis does not take 100 events per second"):
        measure(Shop(after=0, dropped=7), rate=100, seconds=0.1)
