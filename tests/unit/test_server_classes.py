"""Two classes of requests on the server: background gives way to interactive where not all that waits can be answered."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tests.support import toy
from tests.support.fake_backend import Request
from tests.unit.test_server_deadlines import Ensemble, Served, ask, outcome, popular
from trireme_runtime.stages.chain import Funnel
from trireme_runtime.stages.reranking import DEADLINE, FULL, NONE, OVERLOAD, POPULAR
from trireme_runtime.stages.shortcut import left_out
from trireme_runtime.triton.deadlines import BATCHES_AHEAD, HOLDS_UP, YIELDS_AFTER
from trireme_runtime.triton.parameters import InvalidRequestError, read_parameters
from trireme_runtime.triton.waiting import LATELY_NS

MS = 1_000_000
#: Users that the model answers at a time, and what that takes.
BATCH, TAKES = 4, 10 * MS
TIMEOUT_US = 100_000
#: From when on the class background gives way to interactive requests with that timeout; ns.
YIELDS = int(YIELDS_AFTER * TIMEOUT_US * 1000)


@pytest.fixture(scope="module")
def funnel(tmp_path_factory: pytest.TempPathFactory) -> Funnel:
    return toy.funnel(tmp_path_factory.mktemp("toy"))


class Crowd(Served):
    """A model behind a queue that never ends; its clock only goes while it ``waits``."""

    def __init__(self, funnel: Funnel) -> None:
        self.now = 10**12
        super().__init__(funnel, BATCH, lambda: self.now)

    def stand(self, ns: int) -> None:
        """Full batches in a row, for so long."""
        self.deadlines.waiting.taken(self.now, BATCH - 1, 1)
        for _ in range(3):
            self.deadlines.waiting.ended(self.now)
            self.now += ns // 3
            self.deadlines.waiting.taken(self.now, BATCH, 1)
        self.deadlines.waiting.ended(self.now)
        for rows in (1, BATCH):
            self.deadlines.full.costs.add(rows, TAKES)

    def measure(self, fixed: int, user: int) -> None:
        """Lets runs take so many ns, and so many for each user."""
        for rows in (1, BATCH):
            self.deadlines.full.costs.add(rows, fixed + rows * user)


@pytest.fixture
def crowd(funnel: Funnel) -> Crowd:
    return Crowd(funnel)


def background(user: int, timeout_us: int = 0, **parameters: int) -> Request:
    return ask(user, timeout_us=timeout_us, **{"class": "background", **parameters})


def interactive(user: int, **parameters: int) -> Request:
    return ask(user, timeout_us=TIMEOUT_US, **{"class": "interactive", **parameters})


SHED = [(POPULAR, OVERLOAD)]


@pytest.mark.parametrize("timeout_us", [0, TIMEOUT_US])
def test_without_a_crowd_both_classes_are_answered_in_full(crowd: Crowd, timeout_us: int) -> None:
    for asked in (background(106, timeout_us), interactive(106), ask(106)):
        (answer,) = crowd.ask(asked)
        assert outcome(answer) == [(FULL, NONE)]


def test_in_a_crowd_background_gives_way_before_the_others_are_computed(crowd: Crowd, funnel: Funnel) -> None:
    crowd.stand(YIELDS + 3)
    requests = [background(106), interactive(109), background(112, TIMEOUT_US), interactive(115)]
    first, second, third, fourth = crowd.ask(*requests)
    assert [bool(request.sender.sent) for request in requests] == [True, False, True, False]
    assert outcome(first) == outcome(third) == SHED
    assert first["item_id"].tolist() == [popular(funnel, 106)]
    for user, answer in ((109, second), (115, fourth)):
        assert outcome(answer) == [(FULL, NONE)]
        assert answer["item_id"].tolist() == funnel(np.array([[user]])).item_id.tolist()


def test_it_does_not_as_long_as_the_others_have_most_of_their_time(crowd: Crowd) -> None:
    crowd.stand(YIELDS - 3)
    assert [outcome(answer) for answer in crowd.ask(background(106), interactive(109))] == [[(FULL, NONE)]] * 2


def test_others_that_are_late_anyway_do_not_count(crowd: Crowd) -> None:
    crowd.stand(TAKES)
    hopeless = ask(112, timeout_us=1)
    first, second = crowd.ask(background(106), hopeless)
    assert (outcome(first), outcome(second)) == ([(FULL, NONE)], [(POPULAR, DEADLINE)])


@pytest.mark.parametrize(("waited", "expected"), [(BATCHES_AHEAD * TAKES - 3, [(FULL, NONE)]), (30 * MS, SHED)])
def test_background_alone_has_the_time_of_two_batches(
    crowd: Crowd, waited: int, expected: list[tuple[int, int]]
) -> None:
    crowd.stand(waited)
    assert [outcome(answer) for answer in crowd.ask(background(106), background(112))] == [expected] * 2


def test_how_long_a_batch_has_waited_its_requests_may_say(crowd: Crowd) -> None:
    """Full batches in a row are no crowd where each request comes right after an answer."""
    crowd.stand(30 * MS)
    plain, said = crowd.ask(background(106), background(109, sent=crowd.now - 10 * MS))
    assert outcome(plain) == outcome(said) == [(FULL, NONE)]


def test_a_batch_takes_no_more_of_the_time_of_the_others_for_the_sake_of_the_background(crowd: Crowd) -> None:
    crowd.measure(fixed=5 * MS, user=5 * MS)
    most = int(HOLDS_UP * TIMEOUT_US * 1000 / (5 * MS)) - 1  # users, with the fixed part
    assert most == 4
    answers = crowd.ask(background(106), background(109), interactive(112), background(115), background(106))
    assert [outcome(answer) for answer in answers] == [[(FULL, NONE)]] * 4 + [SHED]


def test_a_large_request_in_the_background_leaves_its_place_to_smaller_ones(crowd: Crowd) -> None:
    crowd.measure(fixed=10 * MS, user=5 * MS)
    crowd.ask(interactive(112))
    first, second = crowd.ask(ask(*(106,) * BATCH, **{"class": "background"}), background(109))
    assert outcome(first) == SHED * BATCH
    assert outcome(second) == [(FULL, NONE)]


def test_the_others_count_for_a_second_or_two(crowd: Crowd) -> None:
    crowd.measure(fixed=400 * MS, user=0)
    assert outcome(crowd.ask(background(106))[0]) == [(FULL, NONE)]
    crowd.ask(interactive(112))
    for expected in (SHED, [(FULL, NONE)]):
        assert outcome(crowd.ask(background(106))[0]) == expected
        crowd.now += 2 * LATELY_NS


def test_one_that_lies_about_its_age_makes_no_crowd(crowd: Crowd) -> None:
    assert [outcome(answer) for answer in crowd.ask(background(106), background(109, sent=0))] == [[(FULL, NONE)]] * 2


def test_the_steps_of_an_ensemble_know_why_a_request_was_left_out(funnel: Funnel) -> None:
    ensemble = Ensemble(funnel)
    first = ensemble.steps[0].deadlines.waiting

    def crowded(number: int, requests: list[Request]) -> None:
        first.taken = lambda now, rows, largest: setattr(first, "longest", YIELDS + 1)  # type: ignore[method-assign]

    late = ask(112, timeout_us=1, sent=0)
    asked = [background(106), late, interactive(109)]
    answers = ensemble.ask(*asked, between=crowded)
    assert [outcome(answer) for answer in answers] == [SHED, [(POPULAR, DEADLINE)], [(FULL, NONE)]]
    assert [left_out(answer) for answer in answers] == [OVERLOAD, DEADLINE, None]
    assert [sorted(step.noted) for step in ensemble.steps[:2]] == [[(0, 2), (2, 1)], [(0, 2), (1, 1)]]


def test_any_other_class_is_refused_for_its_own_request_alone(crowd: Crowd) -> None:
    wrong = ask(106, **{"class": "batch"})
    refused, answered = crowd.adapter.execute([wrong, ask(109)])
    assert refused.error.message == 'parameter class is "batch", allowed are interactive and background'
    assert answered.error is None


@pytest.mark.parametrize("value", [1, True, [], "Background", ""])
def test_a_class_is_a_word(value: object) -> None:
    with pytest.raises(InvalidRequestError, match="parameter class is"):
        read_parameters(json.dumps({"class": value}), 100)
