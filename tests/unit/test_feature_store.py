"""The address of a feature store, and the breaker in front of it."""

from __future__ import annotations

import builtins
import threading
from typing import Any

import pytest

from tests.support.callers import until
from trireme_runtime.errors import FeatureStoreError
from trireme_runtime.features.address import StoreAddress
from trireme_runtime.features.breaker import FAILURES, LONGEST_S, PAUSE_S, Breaker
from trireme_runtime.features.opening import open_store
from trireme_runtime.features.record import RecordLayout


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("redis://localhost:6379", ("redis://localhost:6379", False, "default", 5.0)),
        ("redis://me:pass@host:1/2?namespace=shop", ("redis://me:pass@host:1/2", False, "shop", 5.0)),
        (
            "rediss://host:1?timeout_ms=2.5&ssl_cert_reqs=none",
            ("rediss://host:1?ssl_cert_reqs=none", False, "default", 2.5),
        ),
        ("redis://[::1]:7000?namespace=a.b-c_9", ("redis://[::1]:7000", False, "a.b-c_9", 5.0)),
        ("redis-cluster://[::1]:7000", ("redis://[::1]:7000", True, "default", 5.0)),
        ("rediss-cluster://host?namespace=x", ("rediss://host", True, "x", 5.0)),
        ("unix:///run/redis.sock?namespace=x", ("unix:///run/redis.sock", False, "x", 5.0)),
    ],
)
def test_an_address_is_an_url(text: str, expected: tuple[str, bool, str, float]) -> None:
    assert StoreAddress.parse(text) == StoreAddress(*expected)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("http://host:1", "the address of the feature store is http://host:1; allowed is redis://HOST:PORT"),
        ("localhost:6379", "the address of the feature store is localhost://; allowed is redis://HOST:PORT"),
        ("redis://:secret@:1", "the address of the feature store is redis://:1; allowed is"),
        ("redis://host:port", "the address of the feature store cannot be read"),
        ("unix://", "the address of the feature store is unix://; allowed is"),
        ("redis://host?namespace=", "namespace of the feature store is '', allowed are 1 to 64"),
        ("redis://host?namespace=a:b", "namespace of the feature store is 'a:b', allowed are 1 to 64"),
        ("redis://host?timeout_ms=0", "timeout_ms of the feature store is '0', allowed is a number from 0.1 to 1000"),
        ("redis://host?timeout_ms=soon", "timeout_ms of the feature store is 'soon', allowed is"),
        ("redis://host?timeout_ms=nan", "timeout_ms of the feature store is 'nan', allowed is"),
    ],
)
def test_an_address_that_is_none_is_refused(text: str, message: str) -> None:
    with pytest.raises(FeatureStoreError) as raised:
        StoreAddress.parse(text)
    assert str(raised.value).startswith(message)
    assert "secret" not in str(raised.value)


def test_an_address_is_shown_without_its_password() -> None:
    address = StoreAddress.parse("rediss://me:secret@host:7000?namespace=shop")
    assert str(address) == "host:7000, namespace shop"
    assert "secret" not in repr(address)
    assert str(StoreAddress.parse("redis-cluster://:secret@host")) == "cluster of host, namespace default"
    assert str(StoreAddress.parse("unix://:secret@/run/redis.sock")) == "/run/redis.sock, namespace default"


def test_a_store_without_its_client_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    imported = builtins.__import__

    def without_redis(name: str, *arguments: Any, **options: Any) -> Any:
        if name.endswith(("redis_store", "redis_cluster")):
            raise ModuleNotFoundError(name="redis")
        return imported(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", without_redis)
    with pytest.raises(FeatureStoreError, match=r"redis is not installed; install trireme-recsys\[redis\]"):
        open_store(StoreAddress.parse("redis://host"), RecordLayout(5, 1, 1))


def test_an_option_that_the_client_does_not_know_is_refused() -> None:
    with pytest.raises(FeatureStoreError, match=r"the address of the feature store is not allowed .*colour"):
        open_store(StoreAddress.parse("redis://host?colour=blue"), RecordLayout(5, 1, 1))


class Breaking:
    """A breaker whose tries go as it is said, the last one well, after pauses that are noted and take no time."""

    def __init__(self, *tries: bool, jitter: float = 0.5) -> None:
        self._tries = iter(tries)
        self._allowed = threading.Semaphore(0)
        self.pauses: list[float] = []
        self.breaker = Breaker(lambda: next(self._tries), self._wait, lambda: jitter)

    def _wait(self, seconds: float) -> None:
        self._allowed.acquire()
        self.pauses.append(seconds)

    def fail(self, times: int = 1) -> None:
        for _ in range(times):
            assert self.breaker.is_closed
            self.breaker.failed()

    def let_pass(self, times: int = 1) -> None:
        self._allowed.release(times)

    def let_try(self, times: int) -> None:
        self.let_pass(times)
        until(lambda: self.breaker.is_closed)


def test_a_breaker_opens_after_failures_in_a_row() -> None:
    case = Breaking()
    case.fail(FAILURES - 1)
    case.breaker.succeeded()
    case.fail(FAILURES - 1)
    assert case.breaker.is_closed
    case.breaker.failed()
    assert not case.breaker.is_closed


def test_an_open_breaker_is_closed_by_a_try_that_goes_well() -> None:
    case = Breaking(False, False, True)
    case.fail(FAILURES)
    case.let_try(3)
    assert case.pauses == [PAUSE_S, 2 * PAUSE_S, min(4 * PAUSE_S, LONGEST_S)]


def test_the_next_failure_after_a_try_opens_it_at_once_and_pauses_go_on_growing() -> None:
    case = Breaking(True, True)
    case.fail(FAILURES)
    case.let_try(1)
    case.fail()
    assert not case.breaker.is_closed
    case.let_try(1)
    assert case.pauses == [PAUSE_S, 2 * PAUSE_S]


def test_a_success_after_a_try_forgets_what_was() -> None:
    case = Breaking(True, True)
    case.fail(FAILURES)
    case.let_try(1)
    case.breaker.succeeded()
    case.fail(FAILURES)
    case.let_try(1)
    assert case.pauses == [PAUSE_S, PAUSE_S]


def test_a_breaker_that_was_ended_does_not_try_any_more() -> None:
    case = Breaking()  # a try would raise
    before = set(threading.enumerate())
    case.fail(FAILURES)
    (trying,) = set(threading.enumerate()) - before
    case.breaker.end()
    case.let_pass()
    trying.join(30)
    assert (trying.is_alive(), case.breaker.is_closed, len(case.pauses)) == (False, False, 1)


@pytest.mark.parametrize(("jitter", "share"), [(0.0, 0.5), (1.0, 1.5)])
def test_pauses_grow_up_to_the_longest_and_differ_by_half_of_their_length(jitter: float, share: float) -> None:
    case = Breaking(*[False] * 9, True, jitter=jitter)
    case.fail(FAILURES)
    case.let_try(10)
    assert (case.pauses[0], case.pauses[-1]) == (share * PAUSE_S, share * LONGEST_S)
