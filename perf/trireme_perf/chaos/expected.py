"""What a user of a bundle must be answered, asked while all is calm, and whether an answer is that."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from numpy.typing import NDArray
from tritonclient.grpc import service_pb2
from tritonclient.grpc.service_pb2_grpc import GRPCInferenceServiceStub

from trireme_client import ANONYMOUS, AsyncClient, Reason, Recommendations, Rung
from trireme_perf.errors import PerfError
from trireme_runtime.bundle import read_manifest
from trireme_runtime.features.seen import SeenItems

__all__ = ["Expected", "Judge", "ask_expected", "kept_wrongly"]

#: Scores differ by rounding between batch sizes, so neighbours of nearly equal scores may change places.
TOLERANCE = 1e-4
TIMEOUT_S = 30.0
CONCURRENCY = 4
#: How often a list is asked for until the feature store was asked, and the seconds between.
TRIES, PAUSE_S = 20, 0.1


@dataclass(frozen=True)
class Expected:
    """For one user: the whole full list, int64 and float32 (items,); the list of a request that comes too late; what they have
    seen."""

    item_ids: NDArray[np.int64]
    scores: NDArray[np.float32]
    late: NDArray[np.int64]
    seen: frozenset[int]


@dataclass(frozen=True)
class Judge:
    """Knows the expected answers by user; ``popular``: the list of a user of whom nothing is known; ``complete``: whether full
    lists hold all candidates of their users; ``stale``: what is expected where the feature store could not be asked."""

    users: dict[int, Expected]
    popular: NDArray[np.int64]
    version: str
    complete: bool
    stale: Mapping[int, Expected] = field(default_factory=dict)

    def problem(self, user: int, k: int, answer: Recommendations) -> str | None:
        """Returns what is wrong with an answer to ``user``, or None."""
        stale = self.stale.get(user)
        if stale is not None and answer.reason == Reason.FEATURES_STALE:
            return self._problem(stale, k, answer)
        found = self._problem(self.users[user], k, answer)
        if found and stale is not None and answer.reason != Reason.NONE:
            return self._problem(stale, k, answer)  # a list that is not complete does not say which history it is from
        return found

    def _problem(self, expected: Expected, k: int, answer: Recommendations) -> str | None:
        ids = answer.item_ids
        if answer.model_version != self.version:
            return f"version {answer.model_version} answered, expected {self.version}"
        if answer.rung >= Rung.SEGMENT_POPULAR:
            popular = answer.rung == Rung.POPULAR and np.array_equal(ids, self.popular[:k])
            return None if popular or np.array_equal(ids, expected.late[:k]) else "not the popular items"
        if len(ids) != min(k, len(expected.item_ids)):
            return f"{len(ids)} items, expected {k}"
        if len(set(ids.tolist())) < len(ids):
            return "an item twice"
        if expected.seen.intersection(ids.tolist()):
            return "an item that the user has seen"
        return self._of_the_user(expected, answer)

    def _of_the_user(self, expected: Expected, answer: Recommendations) -> str | None:
        scores = dict(zip(expected.item_ids.tolist(), expected.scores.tolist(), strict=True))
        if answer.rung == Rung.RETRIEVAL_ORDER:
            strange = self.complete and not scores.keys() >= set(answer.item_ids.tolist())
            return "items that are not retrieved for the user" if strange else None
        if not scores.keys() >= set(answer.item_ids.tolist()):
            return "items of nobody's, or of somebody else's list"
        own = np.array([scores[item] for item in answer.item_ids.tolist()])
        best = expected.scores[: len(own)]
        close = np.allclose(answer.scores, own, rtol=TOLERANCE, atol=TOLERANCE)
        ordered = np.allclose(answer.scores, best, rtol=TOLERANCE, atol=TOLERANCE)
        return None if close and ordered else "other scores, or another order"


def kept_wrongly(answer: Recommendations, oldest_s: float) -> str | None:
    """Returns what is wrong with an answer because it comes from a cache, where none is older than ``oldest_s``; or None."""
    if answer.age_s > oldest_s:
        return "an answer that was kept for too long"
    if answer.age_s and (answer.rung != Rung.FULL or answer.reason != Reason.NONE):
        return "an answer that was kept though it is less than complete"
    return None


def ask_expected(
    url: str, model: str, repository: Path, users: Sequence[int], taken: Mapping[int, Sequence[int]] = {}
) -> Judge:
    """Asks a calm server for the lists of ``users``; those who get no full list are left out.

    Args:
        taken: the items that a feature store says of users.

    Raises:
        PerfError: nobody gets a full list, or a list holds an item that its user has seen.
    """
    return asyncio.run(_ask(url, model, repository, users, taken))


async def _ask(
    url: str, model: str, repository: Path, users: Sequence[int], taken: Mapping[int, Sequence[int]]
) -> Judge:
    async with AsyncClient(url, model=model, timeout=TIMEOUT_S) as client:
        info = await client.model_info()
        popular = await client.recommend(ANONYMOUS, info.list_length)
        turn = asyncio.Semaphore(CONCURRENCY)

        async def ask(user: int) -> Recommendations:
            async with turn:
                for _ in range(TRIES):
                    answer = await client.recommend(user, info.list_length)
                    if answer.reason != Reason.FEATURES_STALE:
                        break
                    await asyncio.sleep(PAUSE_S)  # also a calm machine stands still for some ms now and then
                return answer

        answers = [one for one in await asyncio.gather(*map(ask, users)) if one.reason == Reason.NONE]
    if not answers:
        raise PerfError(f"none of {len(users)} users gets a full list from {model!r}")
    full = [int(answer.user_id or 0) for answer in answers]
    seen, candidates = _bundle(repository, int(info.version), full)
    seen = {user: items.union(taken.get(user, ())) for user, items in seen.items()}
    late = _late(url, model, seen)
    expected = {
        user: Expected(answer.item_ids, answer.scores, late[user], seen[user])
        for user, answer in zip(full, answers, strict=True)
    }
    for user, one in expected.items():
        if one.seen.intersection([*one.item_ids.tolist(), *one.late.tolist()]):
            raise PerfError(f"the list of user {user} holds items that they have seen")
    return Judge(expected, popular.item_ids, info.version, info.list_length >= candidates)


def _late(url: str, model: str, seen: Mapping[int, frozenset[int]]) -> dict[int, NDArray[np.int64]]:
    """What the server answers to a request whose time has run out before it comes."""
    late = {}
    with grpc.insecure_channel(url) as channel:
        stub = GRPCInferenceServiceStub(channel)
        for user, items in seen.items():
            for _ in range(TRIES):
                late[user] = _ask_late(stub, model, user)
                if not items.intersection(late[user].tolist()):
                    break
                time.sleep(PAUSE_S)  # the feature store could not be asked; such a list does not say so
    return late


def _ask_late(stub: GRPCInferenceServiceStub, model: str, user: int) -> NDArray[np.int64]:
    request: Any = service_pb2.ModelInferRequest(model_name=model)
    request.inputs.add(name="user_id", datatype="INT64", shape=(1, 1))
    request.raw_input_contents.append(user.to_bytes(8, "little", signed=True))
    request.parameters["timeout"].int64_param = 1
    request.parameters["sent"].int64_param = 1
    answer = stub.ModelInfer(request, timeout=TIMEOUT_S)
    place = [output.name for output in answer.outputs].index("item_id")
    items = np.frombuffer(answer.raw_output_contents[place], "<i8")
    return items[items >= 0]


def _bundle(repository: Path, version: int, users: Sequence[int]) -> tuple[dict[int, frozenset[int]], int]:
    """Returns what each user has seen, by the tables of the bundle, and the number of candidates."""
    (reranking, *_), (features, *_) = (
        sorted(repository.glob(f"*/{version}/{stage}")) for stage in ("reranking", "feature_transform")
    )
    item_ids, user_ids = np.load(reranking / "item_ids.npy"), np.load(features / "user_ids.npy")
    seen = SeenItems.load(reranking / "seen")
    rows = {user: row for row, user in enumerate(user_ids.tolist())}
    found = {
        user: frozenset(item_ids[seen.items[slice(*seen.offsets[rows[user] : rows[user] + 2])]].tolist())
        if user in rows
        else frozenset()
        for user in users
    }
    return found, read_manifest(repository).dims.candidates
