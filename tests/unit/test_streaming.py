"""The adapter of a decoupled model: which responses are sent, in which order, and which one is the last."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from tests.support import fake_backend, toy
from tests.support.fake_backend import Request, Sender
from trireme_runtime.schema import LEDGER
from trireme_runtime.stages.chain import Funnel, StageFailedError
from trireme_runtime.stages.reranking import (
    DEADLINE,
    FULL,
    NONE,
    NOTHING_KNOWN,
    POPULAR,
    PRELIMINARY,
    RETRIEVAL_ORDER,
)
from trireme_runtime.triton.adapter import Adapter
from trireme_runtime.triton.deadlines import Deadlines
from trireme_runtime.triton.streaming import StreamingAdapter

TWICE = [(RETRIEVAL_ORDER, PRELIMINARY), (FULL, NONE)]


@pytest.fixture
def funnel(tmp_path: Any) -> Funnel:
    return toy.funnel(tmp_path)


@pytest.fixture
def noted() -> list[int]:
    """The users of every batch that the metrics are told of."""
    return []


@pytest.fixture
def adapter(funnel: Funnel, noted: list[int]) -> StreamingAdapter:
    config = fake_backend.chain_config(funnel, toy.DIMS)
    deadlines = Deadlines.of(funnel, config)
    return StreamingAdapter(
        funnel, fake_backend, config, lambda times, outputs: noted.append(len(outputs[0])), None, deadlines
    )


def ask(*users: int, timeout_us: int = 0, **parameters: Any) -> Request:
    inputs = {"user_id": np.array(users, np.int64)[:, None]}
    return Request(inputs, json.dumps(parameters) if parameters else "{}", timeout_us=timeout_us)


def named(response: Any) -> dict[str, np.ndarray]:
    assert response.error is None, response.error
    return {tensor.tensor_name: tensor.array for tensor in response.output_tensors}


def outcomes(request: Request, row: int = 0) -> list[tuple[int, int]]:
    answers = [named(response) for response in request.sender.sent]
    return [(answer["rung"][row, 0], answer["reason"][row, 0]) for answer in answers]


def test_a_request_is_answered_twice_and_the_second_time_as_by_the_fused_model(
    funnel: Funnel, adapter: StreamingAdapter, noted: list[int]
) -> None:
    requests = [ask(103), ask(106, 109, k=3), ask(112)]
    assert adapter.execute(requests) is None
    assert [request.sender.flags for request in requests] == [[0, 1]] * 3
    assert all(outcomes(request) == TWICE for request in requests)
    fused = Adapter(funnel, fake_backend, fake_backend.chain_config(funnel, toy.DIMS)).execute(requests)
    for request, expected in zip(requests, fused, strict=True):
        last = named(request.sender.sent[1])
        assert {name: array.tolist() for name, array in last.items()} == {
            name: array.tolist() for name, array in named(expected).items()
        }
    assert named(requests[1].sender.sent[0])["item_id"].shape == (2, 3)
    assert noted == [4], "each user counts once"


def test_of_whom_nothing_is_known_there_is_one_list(adapter: StreamingAdapter) -> None:
    alone, between = ask(5000), ask(5000, 103)
    adapter.execute([alone, between])
    assert (outcomes(alone), alone.sender.flags) == ([(POPULAR, NOTHING_KNOWN)], [1])
    assert outcomes(between, 0) == [(POPULAR, NOTHING_KNOWN)] * 2
    assert outcomes(between, 1) == TWICE


def test_what_has_no_time_gets_one_list(adapter: StreamingAdapter) -> None:
    late, other = ask(103, timeout_us=1, sent=0), ask(106)
    adapter.execute([late, other])
    assert [reason for _, reason in outcomes(late)] == [DEADLINE]
    assert late.sender.flags == [1]
    assert outcomes(other) == TWICE


def test_a_bad_request_fails_alone(adapter: StreamingAdapter) -> None:
    bad, invalid, good = ask(103, exclude="x"), ask(-7), ask(106)
    adapter.execute([bad, invalid, good])
    for request in (bad, invalid):
        (response,) = request.sender.sent
        assert (response.error.code, request.sender.flags) == (fake_backend.TritonError.INVALID_ARG, [1])
    assert outcomes(good) == TWICE


def test_the_ledger_is_of_the_last_list(adapter: StreamingAdapter) -> None:
    request = ask(103, ledger=True)
    adapter.execute([request])
    first, last = map(named, request.sender.sent)
    assert LEDGER.name not in first
    assert last[LEDGER.name].shape == (1, LEDGER.dim)


def test_excluded_items_are_in_neither_list(adapter: StreamingAdapter) -> None:
    plain = ask(103)
    adapter.execute([plain])
    gone = [int(named(response)["item_id"][0, 0]) for response in plain.sender.sent]
    request = ask(103, exclude=",".join(map(str, gone)))
    adapter.execute([request])
    assert not any(set(gone) & set(named(response)["item_id"][0].tolist()) for response in request.sender.sent)


def test_when_ranking_fails_for_one_nobody_gets_a_first_list_twice(
    adapter: StreamingAdapter, funnel: Funnel, monkeypatch: pytest.MonkeyPatch
) -> None:
    second = adapter._lists.second

    def fail(tensors: dict[str, Any], times: Any) -> Any:
        if (tensors["user_id"] == 106).any():
            raise StageFailedError("ranking", (1, 1, 1, 1), RuntimeError("broken"))
        return second(tensors, times)

    monkeypatch.setattr(adapter._lists, "second", fail)
    first, broken, last = requests = [ask(103), ask(106), ask(109)]
    adapter.execute(requests)
    assert outcomes(first) == outcomes(last) == TWICE
    preliminary, error = broken.sender.sent
    assert named(preliminary)["reason"].item() == PRELIMINARY
    assert error.error.message == "RuntimeError: broken"
    assert [request.sender.flags for request in requests] == [[0, 1]] * 3


def test_a_caller_who_has_gone_takes_nothing_from_the_others(adapter: StreamingAdapter) -> None:
    class Gone(Sender):
        def send(self, response: Any, flags: int) -> None:
            raise RuntimeError("the request was cancelled")

    gone, other = ask(103), ask(106)
    gone.sender = Gone()
    adapter.execute([gone, other])
    assert outcomes(other) == TWICE
