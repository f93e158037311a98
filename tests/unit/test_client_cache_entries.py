"""What a cache keeps and for how long, against a plain model, on a clock of the test; its options; its values in Redis."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trireme_client import Cache, Reason, Recommendations, Rung, ValidationError
from trireme_client.cache import Entries, Key
from trireme_client.cache.address import read_address
from trireme_client.cache.values import Value, digest_of, read_value, stamp_of, write_value

OPTIONS = Cache(ttl_s=10, stale_s=5, jitter=0, negative_ttl_s=2, max_entries=1000)


class Ticks:
    """A clock that a test sets."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def entries(options: Cache = OPTIONS) -> tuple[Entries, Ticks]:
    ticks = Ticks()
    return Entries(options, ticks, random.Random(1)), ticks


def key(user: int, k: int = 10) -> Key:
    return Key("recommend/1/", user, k)


class TestTimes:
    def test_an_answer_is_fresh_then_stale_then_gone(self) -> None:
        kept, ticks = entries()
        assert kept.put(key(1), "answer", kept.generation)
        states = []
        for passed in (0, 9.9, 10, 14.9, 15):
            ticks.now = 100 + passed
            hit = kept.get(key(1))
            states.append(hit and (hit.answer, round(hit.age_s, 1), hit.stale))
        assert states == [
            ("answer", 0, False),
            ("answer", 9.9, False),
            ("answer", 10, True),
            ("answer", 14.9, True),
            None,
        ]
        assert kept.counts[:3] == (2, 2, 1)
        assert len(kept) == 0

    def test_a_negative_answer_has_a_time_of_its_own(self) -> None:
        kept, ticks = entries()
        kept.put(key(1), "nothing", kept.generation, negative=True)
        ticks.now += 2
        hit = kept.get(key(1))
        assert hit is not None
        assert hit.stale
        assert kept.get(key(1), stale=False) is None

    def test_a_negative_time_is_never_the_longer_one(self) -> None:
        assert Cache(ttl_s=5, negative_ttl_s=60).life_s(negative=True) == 5

    def test_the_age_of_an_answer_counts(self) -> None:
        kept, ticks = entries()
        kept.put(key(1), "answer", kept.generation, age_s=4)
        ticks.now += 5
        hit = kept.get(key(1))
        assert hit == ("answer", 9, False)
        ticks.now += 1
        assert kept.get(key(1), stale=False) is None

    def test_jitter_shortens_by_its_share_at_most(self) -> None:
        kept, ticks = entries(Cache(ttl_s=10, jitter=0.5))
        for user in range(200):
            kept.put(key(user), user, kept.generation)
        left = []
        for passed in (4.99, 7.5, 10):
            ticks.now = 100 + passed
            left.append(sum(kept.get(key(user)) is not None for user in range(200)))
        assert left[0] == 200
        assert 60 < left[1] < 140
        assert left[2] == 0


class TestForget:
    def test_ends_all_answers_to_a_user_and_no_others(self) -> None:
        kept, _ = entries()
        for one in (key(1), key(1, k=5), key(2)):
            kept.put(one, "answer", kept.generation)
        assert kept.forget(1) == 2
        assert [kept.get(one) is None for one in (key(1), key(1, k=5), key(2))] == [True, True, False]
        assert kept.counts.invalidated == 2

    def test_an_answer_asked_for_before_is_not_kept(self) -> None:
        kept, _ = entries()
        before = kept.generation
        kept.forget(1)
        assert not kept.put(key(1), "old", before)
        assert kept.put(key(2), "another user's", before)
        assert kept.put(key(1), "new", kept.generation)

    def test_holds_for_users_that_are_known_no_more(self) -> None:
        kept, _ = entries()
        before = kept.generation
        for user in range(20_000):
            kept.forget(user)
        assert not kept.put(key(0), "old", before)
        assert kept.put(key(0), "new", kept.generation)

    def test_clear_ends_everything(self) -> None:
        kept, _ = entries()
        before = kept.generation
        kept.put(key(1), "answer", before)
        kept.clear()
        assert kept.get(key(1)) is None
        assert not kept.put(key(2), "old", before)


class TestSpace:
    def test_what_was_given_outlives_what_was_not(self) -> None:
        kept, _ = entries(Cache(max_entries=10))
        for user in range(10):
            kept.put(key(user), user, kept.generation)
        kept.get(key(0))
        for user in range(10, 15):
            kept.put(key(user), user, kept.generation)
        assert kept.get(key(0)) is not None
        assert kept.get(key(1)) is None
        assert (len(kept), kept.counts.evicted) == (10, 5)

    def test_an_eviction_spares_a_bounded_number(self) -> None:
        kept, _ = entries(Cache(max_entries=100))
        for user in range(100):
            kept.put(key(user), user, kept.generation)
            kept.get(key(user))
        kept.put(key(100), 100, kept.generation)
        assert len(kept) == 100
        assert kept.get(key(16)) is None


ACTIONS = st.lists(
    st.one_of(
        st.tuples(st.just("get"), st.integers(0, 3), st.integers(1, 2)),
        st.tuples(st.just("ask"), st.integers(0, 3), st.integers(1, 2)),
        st.tuples(st.just("come"), st.integers(0, 5), st.booleans()),
        st.tuples(st.just("forget"), st.integers(0, 3), st.none()),
        st.tuples(st.just("wait"), st.integers(0, 8), st.none()),
        st.tuples(st.just("clear"), st.none(), st.none()),
    ),
    max_size=60,
)


@settings(max_examples=300, deadline=None)
@given(ACTIONS)
def test_agrees_with_a_plain_model(actions: list[tuple[str, Any, Any]]) -> None:
    """The model: every answer with the times of asking and of coming; every ``forget`` with its place among them."""
    kept, ticks = entries()
    model: dict[
        Key, tuple[int, float, bool, int]
    ] = {}  # the answer, when it came, whether it is negative, when it was asked for
    asked: list[tuple[Key, int, int, int]] = []  # the key, the answer, the generation, when
    ended = dict.fromkeys(range(4), -1)
    for moment, (action, first, second) in enumerate(actions):
        if action == "wait":
            ticks.now += first
        elif action == "ask":
            asked.append((key(first, second), moment, kept.generation, moment))
        elif action == "come" and asked:
            one, answer, generation, at = asked.pop(first % len(asked))
            current = ended[one.user_id] < at
            assert kept.put(one, answer, generation, negative=second) is current
            if current:
                model[one] = answer, ticks.now, second, at
        elif action in ("forget", "clear"):
            for user in range(4) if action == "clear" else [first]:
                ended[user] = moment
                model = {one: value for one, value in model.items() if one.user_id != user}
            kept.clear() if action == "clear" else kept.forget(first)
        elif action == "get":
            hit = kept.get(key(first, second))
            answer, came, negative, _ = model.get(key(first, second), (0, float("-inf"), False, 0))
            age, ttl = ticks.now - came, 2 if negative else 10
            assert hit == ((answer, age, age >= ttl) if age < ttl + 5 else None)


class TestOptions:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"ttl_s": 0}, "Cache.ttl_s is 0; allowed: a finite number of seconds > 0"),
            ({"ttl_s": float("inf")}, "Cache.ttl_s is inf; allowed: a finite number of seconds > 0"),
            ({"negative_ttl_s": None}, "Cache.negative_ttl_s is None; allowed: a finite number of seconds > 0"),
            ({"stale_s": -1}, "Cache.stale_s is -1; allowed: a finite number of seconds >= 0"),
            ({"stale_s": True}, "Cache.stale_s is True; allowed: a finite number of seconds >= 0"),
            ({"jitter": 1}, "Cache.jitter is 1; allowed: a number from 0 to below 1"),
            ({"max_entries": 0}, "Cache.max_entries is 0; allowed: an integer from 1 to 2**63 - 1"),
            ({"store": "localhost"}, "Cache.store begins with ''; allowed: such as 'redis://localhost:6379?namespace="),
            ({"features": 6379}, "Cache.features is a int; allowed: such as 'redis://localhost:6379?namespace=shop'"),
            ({"features": "redis-cluster://a"}, "Cache.features begins with 'redis-cluster'; allowed: such as"),
            ({"store": "redis://a?namespace=a b"}, "Cache.store has the namespace 'a b'; allowed: 1 to 64 of A-Z"),
            ({"store": "redis://a?timeout_ms=0"}, "Cache.store has the timeout_ms '0'; allowed: a number from 0.1"),
            ({"store": "redis://a", "features": "redis://a"}, "Cache.features is given beside Cache.store; allowed"),
        ],
    )
    def test_wrong_ones_are_refused(self, options: dict[str, Any], message: str) -> None:
        with pytest.raises(ValidationError) as error:
            Cache(**options)
        assert str(error.value).startswith(message)

    def test_an_address_is_read(self) -> None:
        address = read_address("store", "redis://:secret@host:1/2?namespace=shop&timeout_ms=2.5&socket_keepalive=1")
        assert address == ("redis://:secret@host:1/2?socket_keepalive=1", "shop", 0.0025)
        assert address.record_prefix() == "trireme:shop:user:"


class TestValues:
    KEY = Key('recommend/3/{"checkpoint": "a/b"}', 7, 4)
    ANSWER = Recommendations(
        7,
        np.array([2**62, 5], np.int64),
        np.array([0.5, 0.25], np.float32),
        Rung.FULL,
        Reason.NONE,
        1.5,
        "recommend",
        "3",
    )

    def test_come_back_as_they_were(self) -> None:
        value = read_value(write_value(Value(self.ANSWER, 60_000, b"s" * 16)), self.KEY)
        assert value is not None
        assert (value.life_ms, value.stamp) == (60_000, b"s" * 16)
        for name in ("user_id", "rung", "reason", "feature_age_s", "model_name", "model_version"):
            assert getattr(value.answer, name) == getattr(self.ANSWER, name)
        assert list(value.answer) == list(self.ANSWER)
        assert (value.answer.item_ids.dtype, value.answer.scores.dtype) == (np.int64, np.float32)
        assert not value.answer.item_ids.flags.writeable

    def test_every_damage_is_noticed(self) -> None:
        data = write_value(Value(self.ANSWER, 60_000, b"s" * 16))
        assert all(read_value(data[:end], self.KEY) is None for end in range(len(data)))
        for place in range(len(data)):
            damaged = bytearray(data)
            damaged[place] ^= 1
            assert read_value(bytes(damaged), self.KEY) is None
        assert read_value(data + b"\0", self.KEY) is None
        assert read_value(data, self.KEY._replace(k=1)) is None

    def test_other_keys_have_other_digests(self) -> None:
        keys = [
            self.KEY,
            self.KEY._replace(bundle="recommend/4/"),
            self.KEY._replace(user_id=8),
            self.KEY._replace(k=5),
            self.KEY._replace(history=b""),
            self.KEY._replace(history=b"x" * 8),
            self.KEY._replace(exclude="1"),
        ]
        assert len({digest_of(one) for one in keys}) == len(keys)

    def test_stamps_tell_their_parts_apart(self) -> None:
        assert len({stamp_of(*parts) for parts in ((), (b"",), (None,), (b"", b"a"), (b"a", b""), (b"a", None))}) == 6
