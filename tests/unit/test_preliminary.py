"""Two lists of one run: in the order of retrieval, and the ranked one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support import toy
from tests.support.random_funnel import random_request, random_stages, sizes
from trireme_runtime.stages.chain import Funnel, Run, StageFailedError
from trireme_runtime.stages.preliminary import TwoLists
from trireme_runtime.stages.reranking import FULL, NONE, NOTHING_KNOWN, POPULAR, PRELIMINARY, RETRIEVAL_ORDER, Slate


class Interpreted(Funnel):
    """The stages in Python alone."""

    compiles = False


@pytest.fixture(params=[Funnel, Interpreted])
def funnel(request: pytest.FixtureRequest, tmp_path: Any) -> Funnel:
    kind: type[Funnel] = request.param
    return kind(toy.funnel(tmp_path).stages)


def both(funnel: Funnel, **tensors: Any) -> tuple[Run, Run]:
    lists = TwoLists(funnel)
    first = lists.first(tensors)
    return first, lists.second(tensors, first.times)


def asked(*users: int, excluded: Any = None) -> dict[str, Any]:
    return {"user_id": np.array(users, np.int64)[:, None], "history": None, "excluded": excluded}


def test_the_first_list_is_in_the_order_of_retrieval_which_ranking_turns_round(funnel: Funnel) -> None:
    first, second = (Slate(*run.outputs) for run in both(funnel, **asked(103)))
    assert (first.rung.item(), first.reason.item()) == (RETRIEVAL_ORDER, PRELIMINARY)
    assert (second.rung.item(), second.reason.item()) == (FULL, NONE)
    found = funnel.staged(**asked(103))
    order = np.argsort(-found["retrieval_score"][0], kind="stable")[: toy.DIMS.list_length]
    assert first.item_id[0].tolist() == toy.item_ids()[found["candidate_index"][0, order]].tolist()
    assert (np.diff(first.score[0]) <= 0).all()
    assert first.item_id.tolist() != second.item_id.tolist()


def test_what_is_not_ranked_in_the_end_is_no_preliminary_list(funnel: Funnel) -> None:
    first, second = (Slate(*run.outputs) for run in both(funnel, **asked(5000, 103)))
    assert (first.rung[0].item(), first.reason[0].item()) == (POPULAR, NOTHING_KNOWN)
    assert first.item_id[0].tolist() == second.item_id[0].tolist()
    assert first.reason[1].item() == PRELIMINARY


@settings(max_examples=30, deadline=None)
@given(sizes(), st.integers(1, 5), st.integers(0, 99), st.booleans(), st.booleans())
def test_the_second_list_is_that_of_the_chain_and_no_list_holds_what_is_excluded(
    s: dict[str, Any], rows: int, seed: int, history: bool, excluding: bool
) -> None:
    stages = random_stages(s)
    funnel = Funnel(stages)
    request = random_request(stages, rows, seed, history, excluding)
    expected = funnel.run(**request)
    first, second = both(funnel, **request)
    for one, other in zip(second.outputs, expected.outputs, strict=True):
        np.testing.assert_array_equal(one, other)
    if request["excluded"] is not None:
        row, item = request["excluded"]
        listed = Slate(*first.outputs).item_id
        assert not (listed[row] == funnel.item_ids[item][:, None]).any()


def test_retrieval_runs_once_and_every_stage_has_its_time(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    funnel = Interpreted(toy.funnel(tmp_path).stages)
    searched: list[int] = []
    retrieval = type(funnel.stages[2])
    call = retrieval.__call__
    monkeypatch.setattr(retrieval, "__call__", lambda self, **inputs: (searched.append(1), call(self, **inputs))[1])
    first, second = both(funnel, **asked(103))
    assert searched == [1]
    assert (len(first.times), len(second.times)) == (5, 5)
    assert first.times[3] == 0
    assert first.times[:3] == second.times[:3]
    assert second.times[4] > first.times[4]


def test_a_stage_that_fails_comes_with_the_times_of_those_before(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    funnel = Interpreted(toy.funnel(tmp_path).stages)

    def fail(self: object, **inputs: object) -> None:
        raise RuntimeError("broken")

    monkeypatch.setattr(type(funnel.stages[3]), "__call__", fail)
    with pytest.raises(StageFailedError, match="ranking: RuntimeError: broken") as caught:
        both(funnel, **asked(103))
    assert len(caught.value.times) == 4
