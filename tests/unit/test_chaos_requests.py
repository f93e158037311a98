"""The hostile requests: the same for a seed, of all kinds, and many of them still ones that a server parses."""

from __future__ import annotations

import random
from itertools import islice

import numpy as np
import pytest
from google.protobuf.message import DecodeError
from tritonclient.grpc import service_pb2

from trireme_perf.chaos.actions.requests import CHANGES, hostile_requests, mutated
from trireme_perf.chaos.callers import phased_arrivals

USERS = [11, 12, 13]


def some(seed: int, count: int = 400) -> list[bytes]:
    return list(islice(hostile_requests("recommend", USERS, 20, 32, seed), count))


def parsed(message: bytes) -> object | None:
    try:
        return service_pb2.ModelInferRequest.FromString(message)
    except DecodeError:
        return None


def test_a_seed_fixes_them_all() -> None:
    assert some(7) == some(7)
    assert some(7) != some(8)
    assert some(7)[:10] == some(7, 10)


def test_most_can_be_parsed_and_differ_from_one_another() -> None:
    found = some(3)
    assert len(set(found)) > 0.9 * len(found)
    share = sum(parsed(message) is not None for message in found) / len(found)
    assert 0.5 < share < 0.95


@pytest.mark.parametrize("change", dict.fromkeys(CHANGES), ids=lambda change: change.__name__)
def test_every_kind_changes_a_right_request(change: object) -> None:
    right = service_pb2.ModelInferRequest(model_name="recommend")
    right.inputs.add(name="user_id", datatype="INT64", shape=(1, 1))
    right.raw_input_contents.append((11).to_bytes(8, "little"))
    before = right.SerializeToString(deterministic=True)
    changed = set()
    for seed in range(20):
        request = service_pb2.ModelInferRequest.FromString(before)
        change(request, random.Random(seed))  # type: ignore[operator]
        changed.add(request.SerializeToString(deterministic=True))
    assert len(changed - {before}) > 1


def test_a_mutated_message_differs_and_is_not_much_longer() -> None:
    rng = random.Random(0)
    for length in (1, 2, 50):
        message = bytes(range(length))
        for _ in range(200):
            changed = mutated(message, rng)
            assert changed != message
            assert len(changed) <= 4 * length


def test_arrivals_follow_the_rates() -> None:
    due = phased_arrivals([(100, 2.0), (1000, 1.0), (100, 0.0)], np.random.default_rng(0))
    assert (np.diff(due) >= 0).all()
    assert ((due < 2).sum(), ((due >= 2) & (due < 3)).sum(), len(due)) == (200, 1000, 1200)
