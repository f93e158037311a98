"""The context of a request on its way from names to indices, and into the keys of the cache."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from enum import Enum
from typing import Any

import numpy as np
import pytest

from tests.support.fake_triton import FakeTriton, running
from tests.support.one_call import call_async, call_sync
from tests.support.serving import eventually
from trireme_cli.output import CommandError
from trireme_cli.recommend import parse_context
from trireme_client import Cache, Client, Coalescing, ProtocolError, Request, ValidationError
from trireme_client.cache.rules import key_of
from trireme_client.cache.values import digest_of
from trireme_client.codec import Codec
from trireme_client.model import VOCABULARY, read_model_info
from trireme_client.requests import check_arguments
from trireme_runtime.triton.parameters import vocabulary_of


class Device(str, Enum):
    """As it was written before there was StrEnum: ``str`` of a member is its name."""

    TV = "tv"


class Hour(int, Enum):
    TEN = 10


CONTEXT = {"hour": ["9", "10"], "device": ["mobile", "tv"]}
Call = Callable[..., Any]


@pytest.fixture(params=[call_sync, call_async], ids=["sync", "async"])
def call(request: pytest.FixtureRequest) -> Call:
    return request.param


@pytest.fixture
def fake() -> FakeTriton:
    """A server whose model takes a context."""
    made = FakeTriton()
    made.take_context(CONTEXT)
    return made


@pytest.fixture
def url(fake: FakeTriton) -> Iterator[str]:
    with running(fake) as address:
        yield address


def sent(request: Any) -> list[list[int]]:
    tensor, raw = request.inputs[2], request.raw_input_contents[2]
    assert (tensor.name, tensor.datatype) == ("context", "INT32")
    return np.frombuffer(raw, "<i4").reshape(tuple(tensor.shape)).tolist()


@pytest.mark.parametrize("client", [{}, {"coalescing": Coalescing()}], ids=["alone", "coalescing"])
@pytest.mark.parametrize(
    ("context", "indices"),
    [
        (None, [0, 0]),
        ({}, [0, 0]),
        ({"device": "tv"}, [0, 2]),
        ({"device": "mobile", "hour": 10}, [2, 1]),
        ({"device": None, "hour": np.int64(9)}, [1, 0]),
        ({"device": "fridge", "hour": True}, [0, 0]),
        ({"device": Device.TV, "hour": Hour.TEN}, [2, 2]),
    ],
)
def test_names_become_indices(
    fake: FakeTriton, url: str, call: Call, client: dict[str, Any], context: Any, indices: list[int]
) -> None:
    call(url, "recommend", 7, context=context, client=client)
    assert sent(fake.requests[0]) == [indices]


def test_each_of_many_users_has_their_own(fake: FakeTriton, url: str, call: Call) -> None:
    call(url, "recommend_many", [Request(1, context={"device": "tv"}), Request(2), Request(3, context={"hour": "9"})])
    assert sent(fake.requests[0]) == [[0, 2], [0, 0], [1, 0]]


def test_a_context_says_which_values_its_indices_are_of(fake: FakeTriton, url: str, call: Call) -> None:
    call(url, "recommend", 7, context={"device": "tv"})
    call(url, "recommend", 7)
    told, untold = fake.requests
    config = {"parameters": {"context": {"string_value": json.dumps(CONTEXT)}}}
    assert told.parameters[VOCABULARY].int64_param == vocabulary_of(config)
    assert VOCABULARY not in untold.parameters
    fake.config.parameters["context"].string_value = json.dumps({**CONTEXT, "device": ["möbile", "tv"]})
    assert Codec(read_model_info(fake.config, ["3"], "")).vocabulary != vocabulary_of(config)


def test_a_name_that_a_new_bundle_knows_is_sent_soon(url: str, fake: FakeTriton) -> None:
    def knows() -> bool:
        try:
            return bool(client.recommend(7, context={"page": "home"}))
        except ValidationError:
            return False

    with Client(url) as client:
        assert not knows()
        fake.config.parameters["context"].string_value = json.dumps({"hour": ["9"], "page": ["home"]})
        assert eventually(knows)
    assert sent(fake.requests[-1]) == [[0, 1]]


def test_the_model_tells_its_names_and_values(url: str, call: Call) -> None:
    assert call(url, "model_info").context == {"hour": ("9", "10"), "device": ("mobile", "tv")}


@pytest.mark.parametrize("client", [{}, {"coalescing": Coalescing()}, {"cache": Cache()}, {"fallback": True}])
def test_a_name_that_the_model_does_not_know_is_an_error(
    fake: FakeTriton, url: str, call: Call, client: dict[str, Any]
) -> None:
    with pytest.raises(ValidationError, match=r"^context has 'divice': 'tv'; allowed names: hour, device$"):
        call(url, "recommend", 7, context={"hour": 9, "divice": "tv"}, client=client)
    assert all(list(np.frombuffer(each.raw_input_contents[0], np.int64)) == [-1] for each in fake.requests)


def test_a_wrong_name_among_many_is_told_by_its_place(fake: FakeTriton, url: str, call: Call) -> None:
    requests = [Request(1, context={"device": "tv"}), Request(2, context={"x": 1})]
    message = r"^requests\[1\]\.context has 'x': '1'; allowed names: hour, device$"
    with pytest.raises(ValidationError, match=message):
        call(url, "recommend_many", requests)
    assert not fake.requests
    answer, error = call(url, "recommend_many", requests, return_errors=True)
    assert answer.user_id == 1
    assert isinstance(error, ValidationError)


def test_a_model_without_a_context_takes_none(call: Call) -> None:
    fake = FakeTriton()
    with running(fake) as url:
        call(url, "recommend", 7)
        assert [tensor.name for tensor in fake.requests[0].inputs] == ["user_id", "history"]
        with pytest.raises(ValidationError, match="allowed names: none, the model takes no context"):
            call(url, "recommend", 7, context={"device": "tv"})


@pytest.mark.parametrize(
    ("context", "message"),
    [
        ("tv", r"context is 'tv' \(str\); allowed: a dict such as \{'device': 'mobile'\}"),
        ({1: "tv"}, "context has the name 1; allowed: a str"),
        ({"hour": 9.5}, r"context\['hour'\] is 9.5 \(float\); allowed: a str, an integer, a bool or None"),
    ],
)
def test_what_is_no_context_is_refused(context: Any, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        check_arguments(7, 10, None, context=context)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"device": ["tv"]}', '{"device": 1, "hour": 2}'])
def test_a_model_that_does_not_tell_its_names_is_none_of_ours(fake: FakeTriton, url: str, text: str) -> None:
    fake.config.parameters["context"].string_value = text
    with pytest.raises(ProtocolError, match=r"has the parameter 'context' .* allowed: JSON with the values of 2 names"):
        call_sync(url, "recommend", 7)


def test_the_command_reads_names_and_values() -> None:
    assert parse_context(["device=tv", "note=a=b", "empty="]) == {"device": "tv", "note": "a=b", "empty": ""}
    with pytest.raises(CommandError, match="--context is 'tv'; allowed: NAME=VALUE, such as device=mobile"):
        parse_context(["tv"])


def test_a_cache_keeps_contexts_apart(fake: FakeTriton, url: str) -> None:
    with Client(url, cache=Cache()) as client:
        for context in ({"device": "tv"}, {"device": "mobile"}, None):
            for _ in range(2):
                client.recommend(7, context=context)  # type: ignore[arg-type]
        assert client.cache is not None
        assert client.cache.counts.hits == 3
        client.cache.forget(7)
        client.recommend(7, context={"device": "tv"})
    assert [sent(each) for each in fake.requests] == [[[0, 2]], [[0, 1]], [[0, 0]], [[0, 2]]]


def test_a_context_that_was_written_for_another_bundle_is_not_kept(fake: FakeTriton, url: str) -> None:
    with Client(url, cache=Cache(), timeout=20) as client, ThreadPoolExecutor(2) as pool:
        client.recommend(7, context={"device": "tv"})
        fake.hold(8, 9)
        one = pool.submit(client.recommend, 8, context={"device": "tv"})
        many = pool.submit(client.recommend_many, [Request(9, context={"device": "tv"})])
        fake.wait_for(3)
        fake.version = "4"
        fake.config.parameters["context"].string_value = json.dumps({**CONTEXT, "device": ["console", "tv"]})
        client.recommend(7)
        assert eventually(lambda: client.model_info().version == "4")
        fake.release()
        assert {one.result().model_version, many.result()[0].model_version} == {"4"}
        asked = len(fake.requests)
        for user in (8, 9):
            for _ in range(2):
                client.recommend(user, context={"device": "tv"})
        assert len(fake.requests) == asked + 2, "asked anew, and then kept"


def test_the_order_of_names_does_not_count_in_a_key_and_unknown_values_are_left_out() -> None:
    def key(context: Any) -> Any:
        return key_of(check_arguments(7, 10, None, context=context), "recommend/1/")

    assert key({"a": 1, "b": "x"}) == key({"b": "x", "a": "1", "c": None}) != key({"a": 1})
    assert key({}) == key(None)
    digests = [digest_of(key(one)) for one in (None, {"a": 1}, {"a": 2}, {"b": 1}, {"a": 1, "b": 1})]
    assert len(set(digests)) == 5
