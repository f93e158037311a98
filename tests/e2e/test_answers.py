"""Both plans on a real tritonserver give the answers of the offline pipeline, for every kind of user."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from tests.e2e.conftest import PLANS, Served
from trireme_client import ANONYMOUS, AsyncClient, Client, Request, Rung
from trireme_export.evaluation import evaluate_lists
from trireme_export.evaluation.funnel import offline_lists, served_lists
from trireme_export.exporters import export_funnel
from trireme_runtime.stages.chain import Funnel

USERS = 250


@pytest.fixture(scope="module")
def funnel(served: Served, tmp_path_factory: pytest.TempPathFactory) -> Funnel:
    """The same stages in this process, exported anew."""
    return export_funnel(served.checkpoint, tmp_path_factory.mktemp("onnx"))[0]


def assert_same_answer(
    item_ids: np.ndarray, scores: np.ndarray, expected_ids: np.ndarray, expected: np.ndarray
) -> None:
    """Equal scores, and equal items wherever scores are not tied within rounding.

    A batch of another size sums in another order, so scores agree to rounding and near ties may change places.
    """
    np.testing.assert_allclose(scores, expected, rtol=1e-4, atol=1e-4)
    for place in np.flatnonzero(item_ids != expected_ids):
        tied = expected_ids[np.abs(expected - scores[place]) < 1e-3]
        assert item_ids[place] in tied


def history_ids(served: Served, user: int) -> np.ndarray:
    dataset = served.dataset
    row = int(np.searchsorted(dataset.user_ids, user))
    return dataset.item_ids[dataset.train_items[dataset.train_offsets[row] : dataset.train_offsets[row + 1]]]


def test_one_user_at_a_time_as_offline(served: Served, funnel: Funnel, plan: str) -> None:
    users = served.dataset.test.user_id[:USERS]
    assert users.size >= 200
    expected = funnel(users[:, None])
    with Client(served.url, model=plan, timeout=30) as client:
        k = client.model_info().list_length
        for row, user in enumerate(users.tolist()):
            answer = client.recommend(user, k)
            assert_same_answer(answer.item_ids, answer.scores, expected.item_id[row], expected.score[row])
            assert answer.rung == Rung.FULL


def test_plans_agree_under_concurrency(served: Served) -> None:
    users = served.dataset.test.user_id[:USERS].tolist()

    async def ask(plan: str) -> list[list[int]]:
        async with AsyncClient(served.url, model=plan, timeout=60) as client:
            answers = await asyncio.gather(*(client.recommend(user, 10) for user in users))
            return [answer.item_ids.tolist() for answer in answers]

    ensemble, fused = (asyncio.run(ask(plan)) for plan in PLANS)
    same = [left == right for left, right in zip(ensemble, fused, strict=True)]
    assert np.mean(same) > 0.98  # near ties, see assert_same_answer


def test_figures_equal_the_offline_ones(served: Served, plan: str) -> None:
    tables, serving = served.checkpoint.tables, served.checkpoint.config.serving
    assert served.dataset.holdout is not None
    with Client(served.url, model=plan, timeout=60) as client:
        k = client.model_info().list_length

        def ask(users: list[int], histories: list[np.ndarray] | None) -> np.ndarray:
            given = histories or [None] * len(users)
            requests = [Request(user if user >= 0 else ANONYMOUS, k, h) for user, h in zip(users, given, strict=True)]
            return np.stack(
                [
                    np.resize(a.item_ids, k) if len(a) == k else padded(a.item_ids, k)
                    for a in client.recommend_many(requests)
                ]
            )

        for users in (served.dataset.test, served.dataset.holdout):
            offline = offline_lists(served.checkpoint.models, tables, users, serving.candidates, serving.list_length)
            expected = evaluate_lists(offline, users)
            found = evaluate_lists(served_lists(ask, tables, users), users)
            for name, value in expected.items():
                assert found[name] == pytest.approx(value, abs=1e-3), name


def padded(item_ids: np.ndarray, k: int) -> np.ndarray:
    return np.concatenate([item_ids, np.full(k - item_ids.size, -1)])


def test_what_was_learned_beats_popularity(served: Served) -> None:
    users, tables = served.dataset.test, served.checkpoint.tables
    serving = served.checkpoint.config.serving
    learned = evaluate_lists(offline_lists(served.checkpoint.models, tables, users, serving.candidates, 40), users)
    popular = np.tile(tables.popular[0][:40], (users.n_users, 1))
    assert learned["ndcg@10"] > evaluate_lists(popular, users)["ndcg@10"]


class TestKindsOfUsers:
    @pytest.fixture
    def client(self, served: Served, plan: str) -> Client:
        with Client(served.url, model=plan, timeout=30) as client:
            yield client

    def test_no_seen_item_comes_back(self, served: Served, client: Client) -> None:
        for user in served.dataset.test.user_id[:20].tolist():
            assert not set(client.recommend(user, 40).item_ids.tolist()) & set(history_ids(served, user).tolist())

    def test_an_unknown_user_gets_popular_items(self, served: Served, client: Client) -> None:
        popular = served.dataset.item_ids[served.checkpoint.tables.popular[0][:5]].tolist()
        for user in (ANONYMOUS, 10**15):
            answer = client.recommend(user, 5)
            assert answer.rung == Rung.POPULAR
            assert answer.item_ids.tolist() == popular

    def test_an_unknown_user_with_a_history_gets_personal_items(self, served: Served, client: Client) -> None:
        known = served.dataset.test.user_id[:2].tolist()
        left, right = (client.recommend(None, 10, history=history_ids(served, user)) for user in known)
        assert left.rung == right.rung == Rung.FULL
        assert left.item_ids.tolist() != right.item_ids.tolist()

    def test_an_empty_history_forgets_the_stored_one(self, served: Served, client: Client) -> None:
        user = int(served.dataset.test.user_id[0])
        assert client.recommend(user, 5, history=[]).rung in (Rung.SEGMENT_POPULAR, Rung.POPULAR)
        assert client.recommend(user, 5).rung == Rung.FULL

    def test_a_history_of_unknown_items_is_as_an_empty_one(self, served: Served, client: Client) -> None:
        user = int(served.dataset.test.user_id[0])
        unknown = client.recommend(user, 5, history=[10**12, 10**12 + 1])
        empty = client.recommend(user, 5, history=[])
        assert unknown.rung == empty.rung
        # What the user has seen stays out of both.
        assert unknown.item_ids.tolist() == empty.item_ids.tolist()

    def test_of_a_long_history_the_newest_items_count(self, served: Served, client: Client) -> None:
        length = client.model_info().history_length
        items = served.dataset.item_ids[: 3 * length]
        long, newest = client.recommend(None, 10, history=items), client.recommend(None, 10, history=items[-length:])
        assert long.item_ids.tolist() == newest.item_ids.tolist()

    def test_requests_of_every_kind_in_one_call(self, served: Served, client: Client) -> None:
        known = served.dataset.test.user_id[:30].tolist()
        kinds = [
            kind
            for user in known
            for kind in (
                Request(user, 3),
                Request(None, 5, history_ids(served, user)),
                Request(10**15 + user, 7),
                Request(user, 4, []),
            )
        ]
        answers = client.recommend_many(kinds, timeout=30)
        for request, answer in zip(kinds, answers, strict=True):
            alone = client.recommend(request.user_id, request.k, history=request.history)
            assert (answer.user_id, answer.rung, len(answer)) == (alone.user_id, alone.rung, request.k)
            assert_same_answer(answer.item_ids, answer.scores, alone.item_ids, alone.scores)
