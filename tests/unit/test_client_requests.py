"""Validation before the wire, and the messages themselves."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import trireme_client
from trireme_client import ANONYMOUS, TLS, Client, NotNowError, Reason, Request, Rung, Timeout, ValidationError
from trireme_client.codec import Codec, pad_histories
from trireme_client.errors import ServerError, TimeoutError
from trireme_client.model import ModelInfo
from trireme_client.requests import CheckedRequest, check_arguments, check_requests
from trireme_runtime.stages.reranking import OUTCOMES, REASONS

INFO = ModelInfo("recommend", "3", history_length=4, list_length=8, max_batch_size=3)
ids = st.integers(0, 2**63 - 1)


def checked(request: Request) -> CheckedRequest:
    return check_arguments(request.user_id, request.k, request.history, request.exclude)


def test_the_exported_names_are_pinned() -> None:
    assert sorted(trireme_client.__all__) == sorted(
        [
            "ANONYMOUS",
            "AsyncClient",
            "Cache",
            "CacheCounts",
            "CallLedger",
            "Client",
            "ClosedError",
            "Coalescing",
            "ConnectError",
            "Hedging",
            "InvalidRequestError",
            "ModelInfo",
            "ModelNotFoundError",
            "NotNowError",
            "OverloadedError",
            "ProtocolError",
            "Reason",
            "Recommendation",
            "Recommendations",
            "Request",
            "RequestLog",
            "Rung",
            "ServerError",
            "TargetState",
            "Telemetry",
            "TLS",
            "Timeout",
            "TimeoutError",
            "Tracker",
            "TriremeError",
            "UnavailableError",
            "ValidationError",
        ]
    )


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (Request("13"), "user_id is '13' (str)"),  # type: ignore[arg-type]
        (Request(1.0), "user_id is 1.0 (float)"),  # type: ignore[arg-type]
        (Request(True), "user_id is True (bool)"),
        (Request(-1), "user_id is -1; allowed: an integer from 0"),
        (Request(2**63), f"user_id is {2**63}"),
        (Request(1, 0), "k is 0; allowed: an integer from 1"),
        (Request(1, 2.0), "k is 2.0 (float)"),  # type: ignore[arg-type]
        (Request(1, history=5), "history is 5; allowed: a sequence"),  # type: ignore[arg-type]
        (Request(1, history="12"), "history is '12' (str)"),  # type: ignore[arg-type]
        (Request(1, history=[1, -2]), "history[1] is -2"),
        (Request(1, history=[1, "2"]), "history[1] is '2' (str)"),  # type: ignore[list-item]
        (Request(1, history=[1, 2.5]), "history[1] is 2.5 (float)"),  # type: ignore[list-item]
        (Request(1, history=[True]), "history[0] is True (bool)"),
        (Request(1, history=[[1]]), "history[0] is [1] (list)"),  # type: ignore[list-item]
        (Request(1, history=[2**63]), f"history[0] is {2**63}"),
        (Request(1, history=np.ones((2, 2), np.int64)), "history is an array of shape (2, 2)"),
        (Request(1, history=np.ones(2)), "an integer dtype, not float64"),
        (Request(1, history=np.array([3, -4])), "history[1] is -4"),
        (Request(1, history=np.array([2**63], np.uint64)), f"history[0] is {2**63}"),
        (Request(1, exclude=5), "exclude is 5; allowed: a sequence of item ids"),  # type: ignore[arg-type]
        (Request(1, exclude=[3, -4]), "exclude[1] is -4"),
        (Request(1, exclude=range(1001)), "exclude has 1001 item ids; allowed: at most 1000"),
    ],
)
def test_a_wrong_request_names_field_and_value(request_: Request, words: str) -> None:
    with pytest.raises(ValidationError) as raised:
        checked(request_)
    assert words in str(raised.value)


def test_a_wrong_request_among_many_names_its_position() -> None:
    with pytest.raises(ValidationError, match=r"requests\[1\]\.history\[0\] is -3"):
        check_requests([Request(1), Request(2, history=[-3])])
    with pytest.raises(ValidationError, match=r"requests\[0\] is 5; allowed: a Request"):
        check_requests([5])  # type: ignore[list-item]
    with pytest.raises(ValidationError, match="requests is a int"):
        check_requests(5)  # type: ignore[arg-type]


@pytest.mark.parametrize("history", [[], (), [1, 2], (1, 2), np.array([1, 2]), np.array([], float), [np.int32(1), 2]])
def test_every_sequence_of_ids_is_a_history(history: Any) -> None:
    request = check_arguments(np.int64(3), np.int8(4), history)
    assert request.history is not None
    assert request.history.dtype == np.int64
    assert request.history.tolist() == [int(item) for item in history]


@given(st.lists(st.none() | st.lists(ids, max_size=9), min_size=1, max_size=4))
def test_padding_keeps_the_newest_in_order_and_names_the_stored_history(histories: list[list[int] | None]) -> None:
    padded = pad_histories([None if h is None else np.array(h, np.int64) for h in histories], 4)
    for row, history in zip(padded.tolist(), histories, strict=True):
        newest = [] if history is None else history[-4:]
        assert row == ([-2, -1, -1, -1] if history is None else [-1] * (4 - len(newest)) + newest)


@given(st.lists(st.tuples(ids, st.booleans()), max_size=20))
def test_batches_keep_every_request_in_order_and_respect_the_batch_size(asked: list[tuple[int, bool]]) -> None:
    requests = check_requests([Request(user, 1, [1] if given else None) for user, given in asked])
    sent = []
    for batch in Codec(INFO).batches(requests):
        assert 1 <= len(batch.requests) <= INFO.max_batch_size
        users, histories = (np.frombuffer(raw, np.int64) for raw in batch.message.raw_input_contents)
        assert [list(tensor.shape) for tensor in batch.message.inputs] == [[len(users), 1], [len(users), 4]]
        sent += zip(users.tolist(), histories.reshape(-1, 4).tolist(), strict=True)
    assert sent == [(user, [-1, -1, -1, 1] if given else [-2, -1, -1, -1]) for user, given in asked]


def test_a_k_beyond_the_list_length_is_cut_and_said_once(caplog: pytest.LogCaptureFixture) -> None:
    codec = Codec(INFO)
    for _ in range(3):
        codec.batches(check_requests([Request(1, 8), Request(1, 9)]))
    assert [record.getMessage() for record in caplog.records] == [
        "k is cut to 8, the list length of model 'recommend' version 3"
    ]


@pytest.mark.parametrize(
    ("requests", "wanted"),
    [
        ([Request(1, 3), Request(2, 5)], 5),
        ([Request(1, 3), Request(2, 8)], None),
        # One item of the history is beyond the four that the server sees, and may have to be left out here.
        ([Request(1, 3), Request(2, 2, range(5))], 4),
        ([Request(1, 3), Request(2, 2, range(99))], None),
    ],
)
def test_the_server_is_told_how_many_items_are_needed(requests: list[Request], wanted: int | None) -> None:
    (batch,) = Codec(INFO).batches(check_requests(requests))
    sent = {name: value.int64_param for name, value in batch.message.parameters.items()}
    assert sent == ({} if wanted is None else {"k": wanted})


def test_exclusions_are_sent_with_their_users() -> None:
    requests = [Request(1, 8, exclude=np.array([12, 15])), Request(2, 8), Request(3, 8, exclude=[7])]
    requests += [Request(4, 8, exclude=range(1000)), Request(5, 8, exclude=[])]
    requests += [Request(6, 8)]
    sent = [batch.message.parameters for batch in Codec(INFO).batches(check_requests([*requests, requests[1]]))]
    thousand = ",".join(map(str, range(1000)))
    assert [dict(each.items()).keys() for each in sent] == [{"exclude"}, {"exclude"}, set()]
    assert [each["exclude"].string_param for each in sent[:2]] == ["12,15;;7", thousand]


def test_those_in_the_background_have_rpcs_of_their_own_after_all_others() -> None:
    requests = check_requests([Request(user, 8, background=user % 2 == 0) for user in range(8)])
    batches = Codec(INFO).batches(requests)
    assert [list(batch.places) for batch in batches] == [[1, 3, 5], [7], [0, 2, 4], [6]]
    assert [[request.user_id for request in batch.requests] for batch in batches] == [[1, 3, 5], [7], [0, 2, 4], [6]]
    sent = [{name: value.string_param for name, value in batch.message.parameters.items()} for batch in batches]
    assert sent == [{}, {}, {"class": "background"}, {"class": "background"}]


def test_the_background_is_checked() -> None:
    with pytest.raises(ValidationError, match=r"requests\[1\]\.background is 1; allowed: True or False"):
        check_requests([Request(1), Request(1, background=1)])  # type: ignore[arg-type]


def test_a_user_of_whom_nothing_is_known_has_to_be_meant() -> None:
    for request in (Request(), Request(None), Request(None, 5)):
        with pytest.raises(ValidationError, match=r"user_id is None .*ANONYMOUS, or None together with a history"):
            checked(request)
    assert checked(Request(ANONYMOUS)).user_id == checked(Request(history=[])).user_id == -1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"url": "http://localhost:8001"}, "url is 'http://localhost:8001'"),
        ({"url": "localhost"}, "url is 'localhost'"),
        ({"url": "localhost:99999"}, "url is 'localhost:99999'"),
        ({"url": 5}, "url is 5"),
        ({"model": ""}, "model is ''"),
        ({"model_version": "latest"}, "model_version is 'latest'"),
        ({"model_version": 3}, "model_version is 3"),
        ({"timeout": 0}, "timeout is 0"),
        ({"timeout": float("nan")}, "timeout is nan"),
        ({"timeout": True}, "timeout is True"),
        ({"tls": True}, "tls is True"),
        ({"headers": ["a"]}, "headers is a list"),
        ({"headers": {"grpc-x": "a"}}, "headers has the name 'grpc-x'"),
        ({"headers": {"key": 5}}, "headers['key'] is a int"),
        ({"channel_options": ["a"]}, "channel_options is a list"),
        ({"channel_options": {"keepalive": 1}}, "channel_options has the name 'keepalive'"),
        ({"channel_options": {"grpc.keepalive_time_ms": 1.5}}, "channel_options['grpc.keepalive_time_ms'] is 1.5"),
    ],
)
def test_a_wrong_option_names_itself_and_its_value(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError) as raised:
        Client(**options)
    assert words in str(raised.value)


@pytest.mark.parametrize("url", ["localhost:8001", "[::1]:8001", "ipv4:10.0.0.1:8001,10.0.0.2:8001", "dns:triton:8001"])
def test_urls_and_grpc_targets_are_allowed(url: str) -> None:
    with Client(url) as client:
        assert url in repr(client)


def test_timeouts_are_checked_when_made() -> None:
    assert Timeout.of(3) == Timeout(3, 3)
    assert Timeout.of(None) == Timeout(None, None)
    with pytest.raises(ValidationError, match=r"Timeout\.connect is -1"):
        Timeout(connect=-1)


def test_tls_files_are_checked_when_given(tmp_path: Any) -> None:
    (tmp_path / "no.pem").write_text("hello")
    for options, words in (
        ({"cert_file": "c"}, "TLS.cert_file without TLS.key_file"),
        ({"key_file": "k"}, "TLS.key_file without TLS.cert_file"),
        ({"ca_file": tmp_path / "nowhere"}, "cannot be read"),
        ({"ca_file": tmp_path / "no.pem"}, "is not PEM"),
        ({"ca_file": 5}, "TLS.ca_file is 5"),
    ):
        with pytest.raises(ValidationError) as raised:
            TLS(**options)
        assert words in str(raised.value)


def test_errors_survive_a_process_pool() -> None:
    timeout = pickle.loads(pickle.dumps(TimeoutError("late", 2.0)))
    assert (str(timeout), timeout.seconds) == ("late", 2.0)
    error = pickle.loads(pickle.dumps(ServerError("m", "INTERNAL", "d")))
    assert (str(error), error.status, error.details) == ("m", "INTERNAL", "d")


def test_what_may_succeed_later_has_one_base() -> None:
    kinds = [getattr(trireme_client, name) for name in trireme_client.__all__ if name.endswith("Error")]
    later = {kind.__name__ for kind in kinds if kind.retryable}
    assert later == {"NotNowError", "OverloadedError", "ConnectError", "TimeoutError", "UnavailableError"}
    assert {kind.__name__ for kind in kinds if issubclass(kind, NotNowError)} == later


def test_every_reason_has_its_words_and_is_what_the_stages_answer() -> None:
    assert len({reason.words for reason in Reason}) == len(Reason)
    assert {(rung, reason) for rung, reason in OUTCOMES} <= {(rung, reason) for rung in Rung for reason in Reason}
    assert {reason for _, reason in OUTCOMES} == set(Reason) - {Reason.PRELIMINARY}
    assert {reason.name.lower(): int(reason) for reason in Reason} == {name: value for value, name in REASONS.items()}
