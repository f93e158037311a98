"""What a model answers in full and in time under more than it can answer, on a clock of its own."""

from __future__ import annotations

import pytest

from tests.support import toy
from tests.support.overload import MS, Callers, Model, simulate
from trireme_runtime.stages.chain import Funnel
from trireme_runtime.stages.reranking import DEADLINE, OVERLOAD

#: Models that take 40 ms for a full batch, by what a batch of one user takes.
MODELS = {
    "as much": Model(batch=40 * MS, rows=16),
    "half": Model(batch=20 * MS, user=20 * MS // 16, rows=16),
    "little": Model(batch=2 * MS, user=38 * MS // 16, rows=16),
}


@pytest.fixture(scope="module")
def funnel(tmp_path_factory: pytest.TempPathFactory) -> Funnel:
    return toy.funnel(tmp_path_factory.mktemp("toy"))


@pytest.fixture(params=MODELS)
def model(request: pytest.FixtureRequest) -> Model:
    return MODELS[request.param]


@pytest.mark.parametrize(("load", "least"), [(0.7, 0.69), (2, 0.95), (5, 0.88)])
def test_the_load_does_not_lessen_what_is_answered_in_full(
    model: Model, funnel: Funnel, load: float, least: float
) -> None:
    outcome = simulate(model, [Callers(load)], funnel, 2.0)
    assert outcome.goodput >= least
    assert {call.reason for call in outcome.calls} <= {0, DEADLINE, OVERLOAD}


@pytest.mark.parametrize("timeout_ms", [100, 1000])
def test_nor_does_it_with_short_or_long_times(model: Model, funnel: Funnel, timeout_ms: int) -> None:
    outcome = simulate(model, [Callers(3, timeout=timeout_ms * MS)], funnel, 2.0)
    assert outcome.goodput >= 0.9


def test_some_who_say_when_they_sent_are_enough_for_all(model: Model, funnel: Funnel) -> None:
    plain, other = Callers(2.5, says_sent=False), Callers(0.5)
    assert simulate(model, [plain, other], funnel, 2.0).goodput >= 0.9


def test_interactive_requests_come_through_a_flood_in_the_background(funnel: Funnel) -> None:
    interactive, flood = Callers(0.5), Callers(4.5, timeout=0, background=True)
    outcome = simulate(MODELS["little"], [interactive, flood], funnel, 2.0)
    assert outcome.of(interactive) == 1
    assert 0 < outcome.of(flood) < 0.2
    assert {call.reason for call in outcome.calls if call.callers is flood} == {0, OVERLOAD}
