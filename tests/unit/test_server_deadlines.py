"""Deadlines on the server: what is cut short, how, and what is said of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest

from tests.support import fake_backend, toy
from tests.support.fake_backend import Request
from trireme_runtime.schema import LEDGER, TELLS_CLOCK
from trireme_runtime.stages.chain import Chain, Funnel, StageFailedError
from trireme_runtime.stages.reranking import (
    DEADLINE,
    FULL,
    NONE,
    NOTHING_KNOWN,
    OVERLOAD,
    POPULAR,
    RETRIEVAL_ORDER,
    SEGMENT_POPULAR,
)
from trireme_runtime.triton import clock
from trireme_runtime.triton.adapter import Adapter
from trireme_runtime.triton.clock import clock_number, monotonic_ns
from trireme_runtime.triton.costs import Costs
from trireme_runtime.triton.deadlines import Admitted, Deadlines
from trireme_runtime.triton.parameters import Parameters
from trireme_runtime.triton.waiting import IDLE_FULL_NS, IDLE_NS, Waiting

#: Long ago, and far from now, for machines of any age.
LONG_AGO, HOUR_US, SECOND, MS = 0, 3_600_000_000, 10**9, 10**6
#: Some time, ns.
T0 = 10**12


class Some(NamedTuple):
    """A request, as far as it is decided by that."""

    rows: int = 1
    timeout: int = 0
    parameters: Parameters = Parameters()
    left_out: int | None = None


class Interpreted(Funnel):
    """The stages in Python alone."""

    compiles = False


@pytest.fixture(scope="module", params=[Funnel, Interpreted])
def funnel(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Funnel:
    kind: type[Funnel] = request.param
    return kind(toy.funnel(tmp_path_factory.mktemp("toy")).stages)


class Served:
    """The adapter of one model, and what it notes."""

    def __init__(self, chain: Chain, max_batch_size: int = 64, clock: Callable[[], int] = monotonic_ns) -> None:
        config = fake_backend.chain_config(chain, toy.DIMS, max_batch_size)
        self.deadlines = Deadlines(chain, config)
        self.noted: list[tuple[int, int]] = []  # stages that were timed, users

        def note(times: Any, outputs: Any) -> None:
            self.noted.append((len(times), len(outputs[0])))

        self.adapter = Adapter(chain, fake_backend, config, note, deadlines=self.deadlines, clock=clock)
        self.names = [tensor.name for tensor in chain.signature.answered]

    def ask(self, *requests: Request) -> list[dict[str, np.ndarray]]:
        """What each request is answered, whether at once or with its batch."""
        answers = []
        for request, response in zip(requests, self.adapter.execute(requests), strict=True):
            assert (response is None) == bool(request.sender.sent)
            response = response or request.sender.sent[0]
            assert response.error is None, response.error
            answers.append({tensor.tensor_name: tensor.array for tensor in response.output_tensors})
        return answers


def ask(*users: int, timeout_us: int = 0, **parameters: Any) -> Request:
    inputs = {"user_id": np.array(users, np.int64)[:, None]}
    return Request(inputs, json.dumps(parameters) if parameters else "{}", timeout_us=timeout_us)


def late(*users: int, **parameters: Any) -> Request:
    return ask(*users, timeout_us=1, sent=LONG_AGO, **parameters)


def outcome(answer: dict[str, np.ndarray]) -> list[tuple[int, int]]:
    return list(zip(answer["rung"].ravel().tolist(), answer["reason"].ravel().tolist(), strict=True))


def popular(funnel: Funnel, user: int) -> list[int]:
    """The popular items of a user, worked out from the tables."""
    lists = {stage.name: stage for stage in funnel.stages}
    features, reranking = lists["feature_transform"], lists["reranking"]
    row = int(np.searchsorted(toy.user_ids(), user))
    segment = features.category[row, reranking.segment_column]
    seen = set(features.history[row].tolist())
    kept = [item for item in reranking.popular[segment].tolist() if item >= 0 and item not in seen]
    return [int(toy.item_ids()[item]) for item in kept[: toy.DIMS.list_length]]


def test_what_is_late_gets_popular_items_and_its_neighbours_get_all(funnel: Funnel) -> None:
    served = Served(funnel)
    first, second, third, fourth = served.ask(ask(103), late(106, 109), ask(112, timeout_us=HOUR_US), ask(115))
    for user, answer in ((103, first), (112, third), (115, fourth)):
        assert answer["item_id"].tolist() == funnel(np.array([[user]])).item_id.tolist()
        assert outcome(answer) == [(FULL, NONE)]
    assert second["item_id"].tolist() == [popular(funnel, 106), popular(funnel, 109)]
    assert outcome(second) == [(POPULAR, DEADLINE), (SEGMENT_POPULAR, DEADLINE)]
    assert sorted(served.noted) == [(0, 2), (5, 3)]


@pytest.mark.parametrize("late_ones", [0, 3])
def test_each_user_gets_their_own_list_whatever_the_order_of_the_deadlines(funnel: Funnel, late_ones: int) -> None:
    served = Served(funnel)
    users = toy.user_ids()[1:].tolist()
    rng = np.random.default_rng(5)
    for _ in range(10):
        timeouts = rng.choice([0, HOUR_US, 2 * HOUR_US, 3 * HOUR_US, 4 * HOUR_US], len(users)).tolist()
        # Their order must be another one than that of the users.
        requests = [
            ask(user, timeout_us=timeout, sent=monotonic_ns()) for user, timeout in zip(users, timeouts, strict=True)
        ]
        for place in rng.choice(len(users), late_ones, replace=False):
            requests[place] = late(users[place])
        for user, request, answer in zip(users, requests, served.ask(*requests), strict=True):
            if request.timeout_us == 1:
                assert answer["item_id"].tolist() == [popular(funnel, user)]
            else:
                assert answer["item_id"].tolist() == funnel(np.array([[user]])).item_id.tolist()


def test_what_is_late_is_answered_before_the_others_are_computed(funnel: Funnel, monkeypatch: Any) -> None:
    served = Served(funnel)
    requests = [ask(103), late(106)]
    sent: list[int] = []

    def run(**inputs: Any) -> Any:
        sent.append(len(requests[1].sender.sent))
        return type(funnel).run(funnel, **inputs)

    monkeypatch.setattr(funnel, "run", run)
    assert [response is None for response in served.adapter.execute(requests)] == [False, True]
    assert sent == [1]


def test_a_server_that_takes_no_answers_early_gets_them_with_their_batch(funnel: Funnel) -> None:
    class Decoupled:
        def send(self, response: Any, flags: int) -> None:
            raise RuntimeError("only when the model is using the decoupled transaction policy")

    requests = [ask(103), late(106)]
    requests[1].sender = Decoupled()
    full, short = Served(funnel).adapter.execute(requests)
    assert short.output_tensors[0].array.tolist() == [popular(funnel, 106)]
    assert full.error is None


def test_a_batch_without_deadlines_is_one_call_that_nobody_divides(funnel: Funnel, monkeypatch: Any) -> None:
    served = Served(funnel)
    monkeypatch.setattr(served.deadlines, "divide", None)
    answers = served.ask(ask(103), ask(106, sent=LONG_AGO), ask(109))
    assert served.noted == [(5, 3)]
    assert all(outcome(answer) == [(FULL, NONE)] for answer in answers)


def test_what_is_short_of_time_gets_the_order_of_retrieval(funnel: Funnel) -> None:
    served = Served(funnel)
    for _ in range(3):
        served.deadlines.full.costs.add(2, HOUR_US * 1000)  # as if ranking had become slow
    tight, calm = served.ask(ask(106, timeout_us=HOUR_US // 60), ask(109))
    assert outcome(calm) == [(FULL, NONE)]
    assert outcome(tight) == [(RETRIEVAL_ORDER, DEADLINE)]
    found = funnel.staged(user_id=np.array([[106]]), history=None)
    best = found["candidate_index"][0][np.argsort(-found["retrieval_score"][0], kind="stable")]
    assert tight["item_id"][0].tolist() == toy.item_ids()[best[: toy.DIMS.list_length]].tolist()


def test_the_order_of_retrieval_that_takes_too_long_as_well_gives_way_to_popular_items(funnel: Funnel) -> None:
    served = Served(funnel)
    for form in (served.deadlines.full, served.deadlines._order):
        form.costs.add(1, HOUR_US * 1000)
    (tight,) = served.ask(ask(106, timeout_us=HOUR_US // 60))
    assert outcome(tight) == [(POPULAR, DEADLINE)]


def test_an_estimate_that_is_far_too_high_is_put_right(funnel: Funnel) -> None:
    served = Served(funnel)
    served.deadlines.full.costs.add(1, 60 * HOUR_US * 1000)
    outcomes = [outcome(served.ask(ask(106, timeout_us=HOUR_US))[0]) for _ in range(300)]
    assert outcomes[0] != [(FULL, NONE)]
    assert outcomes[-1] == [(FULL, NONE)]


def test_a_user_of_whom_nothing_is_known_gets_what_they_would_get_anyway(funnel: Funnel) -> None:
    late_answer, calm = Served(funnel).ask(late(-1), ask(-1))
    assert outcome(late_answer) == outcome(calm) == [(POPULAR, NOTHING_KNOWN)]
    assert late_answer["item_id"].tolist() == calm["item_id"].tolist()


def test_what_is_cut_short_keeps_its_other_parameters(funnel: Funnel) -> None:
    gone = popular(funnel, 106)[:2]
    (answer,) = Served(funnel).ask(late(106, 109, k=3, exclude=",".join(map(str, gone)), ledger=True))
    assert answer["item_id"].shape == (2, 3)
    assert answer["item_id"][0].tolist() == popular(funnel, 106)[2:5]
    assert answer["item_id"][1].tolist() == popular(funnel, 109)[:3]
    users, requests, *times = answer[LEDGER.name][0].tolist()
    assert (users, requests) == (2, 1)
    assert [bool(ns) for ns in times] == [True, False, False, False, True]


def test_a_wrong_request_is_told_so_however_late_it_is(funnel: Funnel) -> None:
    (response,) = Served(funnel).adapter.execute([late(-7)])
    assert response.error.message == "user_id is -7, allowed are ids ≥ 0 and -1 (anonymous)"
    (response,) = Served(funnel).adapter.execute([ask(103, timeout_us=1, sent=-1)])
    assert response.error.message == "parameter sent is -1, allowed is an integer from 0"


def test_a_stage_that_fails_on_what_is_cut_short_fails_no_other(funnel: Funnel, monkeypatch: Any) -> None:
    served = Served(funnel)

    def fail(**inputs: Any) -> Any:
        raise StageFailedError("reranking", (1,), RuntimeError("broken"))

    monkeypatch.setattr(served.deadlines._popular.chain, "run", fail)
    requests = [ask(103), late(106)]
    full, _ = served.adapter.execute(requests)
    assert full.error is None
    assert requests[1].sender.sent[0].error.message == "RuntimeError: broken"


def test_a_time_on_the_clock_of_another_machine_does_not_count(funnel: Funnel) -> None:
    other, own = (
        ask(106, timeout_us=1_000_000, sent=LONG_AGO, sent_clock=number)
        for number in (clock_number() - 1, clock_number())
    )
    (others,), (owns,) = Served(funnel).ask(other), Served(funnel).ask(own)
    assert (outcome(others), outcome(owns)) == ([(FULL, NONE)], [(POPULAR, DEADLINE)])


def test_a_time_that_is_yet_to_come_counts_as_now(funnel: Funnel) -> None:
    (answer,) = Served(funnel).ask(ask(106, timeout_us=HOUR_US, sent=monotonic_ns() + 10**15))
    assert outcome(answer) == [(FULL, NONE)]


def test_the_clock_is_told_instead_of_a_list(funnel: Funnel) -> None:
    served = Served(funnel)
    before = monotonic_ns()
    told, other = served.ask(ask(-1, tell_clock=True, k=1), ask(103))
    assert before <= told["item_id"][0, 0] <= monotonic_ns()
    assert told["item_id"][0, 1] == clock_number() == clock.clock_number()
    assert told["reason"].tolist() == [[TELLS_CLOCK]]
    assert served.noted == [(5, 1)]
    assert other["item_id"].tolist() == funnel(np.array([[103]])).item_id.tolist()


STEPS = (("feature_transform", "user_tower"), ("retrieval",), ("ranking", "reranking"))


class Ensemble:
    """The steps of an ensemble, each with its own adapter, one after another."""

    def __init__(self, funnel: Funnel) -> None:
        stages = {stage.name: stage for stage in funnel.stages}
        kind = Chain if funnel.compiles else type("InterpretedStep", (Chain,), {"compiles": False})
        self.steps = [Served(kind([stages[name] for name in names])) for names in STEPS]

    def ask(
        self, *requests: Request, between: Callable[[int, list[Request]], None] = lambda step, requests: None
    ) -> Any:
        tensors = [dict(request.inputs) for request in requests]
        for number, step in enumerate(self.steps):
            read = set(step.adapter._widths)
            asked = [
                Request(
                    {name: array for name, array in held.items() if name in read}, request.given, (), request.timeout_us
                )
                for held, request in zip(tensors, requests, strict=True)
            ]
            between(number, asked)
            for held, answer in zip(tensors, step.ask(*asked), strict=True):
                held.update(answer)
        return tensors


def test_the_steps_of_an_ensemble_leave_out_what_is_late(funnel: Funnel) -> None:
    ensemble = Ensemble(funnel)
    short, full, nobody = ensemble.ask(late(106, 109), ask(112, timeout_us=HOUR_US), late(-1))
    assert short["item_id"].tolist() == [popular(funnel, 106), popular(funnel, 109)]
    assert outcome(short) == [(POPULAR, DEADLINE), (SEGMENT_POPULAR, DEADLINE)]
    assert full["item_id"].tolist() == funnel(np.array([[112]])).item_id.tolist()
    assert outcome(full) == [(FULL, NONE)]
    assert outcome(nobody) == [(POPULAR, NOTHING_KNOWN)]
    assert [sorted(step.noted) for step in ensemble.steps] == [[(0, 3), (2, 1)], [(0, 3), (1, 1)], [(0, 3), (2, 1)]]


def test_each_user_of_an_ensemble_gets_their_own_list(funnel: Funnel) -> None:
    rng = np.random.default_rng(6)
    for _ in range(10):
        groups = np.split(rng.permutation(toy.user_ids()[1:]), [2, 3, 6, 7, 11, 14])
        timeouts = rng.choice([0, 1, HOUR_US, 2 * HOUR_US, 3 * HOUR_US], len(groups)).tolist()
        requests = [
            ask(*users.tolist(), timeout_us=timeout, sent=LONG_AGO if timeout == 1 else monotonic_ns())
            for users, timeout in zip(groups, timeouts, strict=True)
        ]
        for users, timeout, answer in zip(groups, timeouts, Ensemble(funnel).ask(*requests), strict=True):
            expected = (
                [popular(funnel, user) for user in users] if timeout == 1 else funnel(users[:, None]).item_id.tolist()
            )
            assert answer["item_id"].tolist() == expected


@pytest.mark.parametrize("step", [0, 1])
def test_what_one_step_leaves_out_the_next_ones_do_too(funnel: Funnel, step: int) -> None:
    """Even if it looks to them as if there were time: without `sent`, each step only knows of its own queue."""

    def forget_sent(number: int, requests: list[Request]) -> None:
        for request in requests:
            request.given = json.dumps({"sent": LONG_AGO}) if number == step else "{}"

    (answer,) = Ensemble(funnel).ask(ask(106, timeout_us=1000), between=forget_sent)
    assert answer["item_id"].tolist() == [popular(funnel, 106)]
    assert outcome(answer) == [(POPULAR, DEADLINE)]


def test_the_last_step_of_an_ensemble_keeps_the_candidates_that_it_got(funnel: Funnel) -> None:
    def late_at_last(number: int, requests: list[Request]) -> None:
        requests[0].given = json.dumps({"sent": LONG_AGO}) if number == 2 else "{}"

    (answer,) = Ensemble(funnel).ask(ask(106, timeout_us=1000), between=late_at_last)
    assert outcome(answer) == [(RETRIEVAL_ORDER, DEADLINE)]


class TestWaiting:
    """Times in ns; batches of up to 4."""

    def test_who_comes_to_an_idle_instance_has_not_waited(self) -> None:
        waiting = Waiting(4)
        waiting.taken(T0, 4, 1)
        assert waiting.longest == 0
        waiting.ended(T0 + 100)
        waiting.taken(T0 + 101 + IDLE_NS, 3, 1)
        assert waiting.longest == 0

    def test_a_full_batch_is_no_sign_of_an_idle_instance_unless_it_comes_much_later(self) -> None:
        waiting = Waiting(4)
        waiting.taken(T0, 4, 1)
        waiting.ended(T0 + 100)
        waiting.taken(T0 + 101 + IDLE_NS, 4, 1)
        assert waiting.longest == 101 + IDLE_NS
        waiting.ended(T0 + 200 + IDLE_NS)
        waiting.taken(T0 + 10 * IDLE_FULL_NS, 4, 1)
        assert waiting.longest == 0

    def test_what_comes_after_a_batch_that_was_not_full_came_after_it_was_taken(self) -> None:
        waiting = Waiting(4)
        waiting.taken(T0, 3, 1)
        waiting.ended(T0 + 500)
        waiting.taken(T0 + 600, 3, 1)
        assert waiting.longest == 600

    def test_full_batches_in_a_row_add_up_until_one_is_not_full(self) -> None:
        waiting = Waiting(4)
        waited = []
        for batch, rows in enumerate((3, 4, 4, 4, 3, 3)):
            waiting.taken(T0 + batch * 500, rows, 1)
            waited.append(waiting.longest)
            waiting.ended(T0 + batch * 500 + 500)
        assert waited == [0, 500, 1000, 1500, 2000, 500]

    def test_a_batch_that_the_next_large_request_did_not_fit_in_counts_as_full(self) -> None:
        waiting = Waiting(4)
        for batch in range(3):
            waiting.taken(T0 + batch * 500, 3, 2)
            waiting.ended(T0 + batch * 500 + 500)
        assert waiting.longest == 1000


def test_only_a_batch_in_which_not_all_fit_is_divided(funnel: Funnel) -> None:
    deadlines = Served(funnel).deadlines
    deadlines.full.costs.add(10, 10_000_000)
    rng = np.random.default_rng(0)
    answered = set()
    for _ in range(200):
        times = rng.choice([0, 1, 2 * MS, 9 * MS, 30 * MS], size=rng.integers(1, 5), p=[0.4, 0.05, 0.05, 0.1, 0.4])
        requests = [Some(int(rng.integers(1, 9)), int(ns), Parameters(sent=T0 - 10)) for ns in times]
        fits = deadlines.all_fit(requests, T0)
        parts = deadlines.divide(deadlines.admit(requests, T0))
        assert fits == ([part.form for part in parts] == [deadlines.full])
        answered.add(fits)
    assert answered == {True, False}


def test_as_many_as_fit_are_computed_those_with_the_most_time_left_first(funnel: Funnel) -> None:
    deadlines = Served(funnel).deadlines
    for rows in range(1, 9):
        deadlines.full.costs.add(rows, rows * SECOND)
    requests = [Admitted(Some(), left * SECOND) for left in (3.5, 9.5, 0, 2.5, 4.5, float("inf"))]
    parts = [[each.left / SECOND for each in part.admitted] for part in deadlines.divide(requests)]
    assert parts == [[0], [3.5, 2.5], [9.5, 4.5, float("inf")]]


class TestCosts:
    def test_a_fixed_part_and_one_for_each_user(self) -> None:
        costs = Costs()
        assert costs.estimate(5) == 0
        for rows in (1, 8, 3, 20, 12, 6):
            costs.add(rows, 1000 + 50 * rows)
        assert costs.estimate(10) == pytest.approx(1500)
        assert costs.estimate(64) == pytest.approx(4200)

    def test_one_slow_run_of_many_does_not_count(self) -> None:
        costs = Costs()
        for rows in range(1, 33):
            costs.add(rows, 10**9 if rows == 7 else 1000 + 50 * rows)
        assert costs.estimate(10) == pytest.approx(1500, rel=0.1)

    def test_it_is_what_most_runs_do_not_exceed(self) -> None:
        costs = Costs()
        for run in range(32):
            costs.add(4, 1000 if run % 4 else 3000)
        assert costs.estimate(4) == pytest.approx(3000)

    def test_runs_of_one_size(self) -> None:
        costs = Costs()
        for _ in range(5):
            costs.add(4, 1000)
        # The least that those of other sizes may take: an estimate that is too high would keep them from being tried.
        assert [costs.estimate(rows) for rows in (2, 4, 8)] == pytest.approx([500, 1000, 1000])

    def test_what_small_runs_take_is_not_forgotten_while_all_are_large(self) -> None:
        costs = Costs()
        for rows in (1, 2, *[32] * 100):
            costs.add(rows, 1000)
        assert costs.estimate(1) == pytest.approx(1000)

    def test_what_has_changed_counts_after_a_few_short_runs(self) -> None:
        costs = Costs()
        for ns in (*[1000] * 32, *[4_000_000] * 32, *[1000] * 37):
            costs.add(1, ns)
            costs.estimate(1)
        assert costs.estimate(1) == pytest.approx(1000)

    def test_doubt_lasts_until_the_next_run(self) -> None:
        costs = Costs()
        costs.add(1, 1000)
        for _ in range(100):
            costs.doubt()
        assert costs.estimate(1) < 200
        costs.add(1, 1000)
        assert costs.estimate(1) == pytest.approx(1000)


class Standing:
    """A model of up to four users at a time, which takes ``takes_s`` for so many, behind a queue that stands for 12 s."""

    def __init__(self, funnel: Funnel, takes_s: dict[int, float]) -> None:
        self.deadlines = Served(funnel, max_batch_size=4).deadlines
        for rows, seconds in takes_s.items():
            self.deadlines.full.costs.add(rows, int(seconds * SECOND))
        self.now = T0
        for _ in range(13):
            self.deadlines.waiting.taken(self.now, 4, 1)
            self.now += SECOND
            self.deadlines.waiting.ended(self.now)
        assert self.deadlines.waiting.longest == 12 * SECOND

    def left(self, *ages_s: float, timeout_s: float = 10) -> list[tuple[float, int]]:
        """The seconds that each of a batch has left, by how long ago it was sent, and its reason if that is none."""
        asked = [Some(1, int(timeout_s * SECOND), Parameters(sent=self.now - int(age * SECOND))) for age in ages_s]
        return [(each.left / SECOND, each.reason) for each in self.deadlines.admit(asked, self.now)]


BY_USERS, BY_BATCHES = {1: 0.11, 2: 0.21, 4: 0.41}, {1: 0.4, 2: 0.4, 4: 0.4}


@pytest.mark.parametrize("takes_s", [BY_USERS, BY_BATCHES])
def test_while_the_queue_stands_a_batch_of_which_most_have_waited_for_half_of_their_time_gives_way(
    funnel: Funnel, takes_s: dict[int, float]
) -> None:
    standing = Standing(funnel, takes_s)
    assert standing.left(6, 6, 6, 6) == [(0, OVERLOAD)] * 4
    assert standing.left(4, 4, 4, 4) == [(6, DEADLINE)] * 4
    assert standing.left(6, 6, 4, 4) == [(4, DEADLINE)] * 2 + [(6, DEADLINE)] * 2


def test_the_younger_ones_of_such_a_batch_do_so_where_a_small_one_takes_as_long(funnel: Funnel) -> None:
    assert Standing(funnel, BY_USERS).left(6, 6, 6, 4) == [(0, OVERLOAD)] * 3 + [(6, DEADLINE)]
    assert Standing(funnel, BY_BATCHES).left(6, 6, 6, 4) == [(0, OVERLOAD)] * 4


def test_who_is_late_is_told_so_while_their_neighbours_give_way(funnel: Funnel) -> None:
    assert Standing(funnel, BY_BATCHES).left(11, 6, 6, 6) == [(-1, DEADLINE)] + [(0, OVERLOAD)] * 3


def test_a_queue_that_stands_for_less_than_a_request_may_take_lets_none_give_way(funnel: Funnel) -> None:
    assert Standing(funnel, BY_BATCHES).left(11, 11, 11, 11, timeout_s=13) == [(2, DEADLINE)] * 4


def test_a_time_that_nobody_could_keep_makes_no_others_give_way(funnel: Funnel) -> None:
    standing = Standing(funnel, BY_BATCHES)
    asked = [
        Some(1, int(timeout * SECOND), Parameters(sent=standing.now - SECOND)) for timeout in (0.5, 0.5, 0.5, 10.0)
    ]
    assert [each.left / SECOND for each in standing.deadlines.admit(asked, standing.now)] == [-0.5, -0.5, -0.5, 9]


def test_who_does_not_say_when_they_sent_has_waited_as_long_as_those_who_do(funnel: Funnel) -> None:
    standing = Standing(funnel, BY_USERS)
    asked = [
        Some(1, 10 * SECOND, Parameters(sent=standing.now - 3 * SECOND)),
        Some(1, 10 * SECOND),
    ]
    assert [each.left / SECOND for each in standing.deadlines.admit(asked, standing.now)] == [7, 7]
    assert standing.deadlines.admit(asked[1:], standing.now)[0].left == -2 * SECOND
