"""Whether a server that lives also answers, asked of a server that is not real."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import wait

import pytest

from trireme_server.liveness import ASK_EVERY_S, QUESTIONS, LivenessWatch

GIVEN_UP = f"it has not answered {QUESTIONS} questions in a row whether it lives"


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


class Asked:
    """Answers as it is told to, one question after the other, and then always True."""

    def __init__(self, answers: Sequence[bool]) -> None:
        self.answers = list(answers)
        self.urls: list[str] = []

    def __call__(self, url: str) -> bool:
        self.urls.append(url)
        return self.answers.pop(0) if self.answers else True


def looks(asked: Asked, count: int) -> Iterator[str | None]:
    """Looks once for each question, when it is answered and the next one is due."""
    clock = Clock()
    watch = LivenessWatch("http://here:8000", asked, clock)
    for _ in range(count):
        yield watch.look()
        if watch._asked is not None:
            wait([watch._asked])
        clock.now += ASK_EVERY_S
    watch.close()


def test_a_server_that_answers_is_left_alone() -> None:
    asked = Asked([])
    assert set(looks(asked, 20)) == {None}
    assert asked.urls == ["http://here:8000"] * 20


def test_a_server_that_does_not_answer_is_given_up() -> None:
    assert list(looks(Asked([False] * QUESTIONS), QUESTIONS + 1)) == [None] * QUESTIONS + [GIVEN_UP]


@pytest.mark.parametrize("answers", [[False] * (QUESTIONS - 1), ([False] * (QUESTIONS - 1) + [True]) * 3])
def test_a_few_questions_without_an_answer_are_none(answers: list[bool]) -> None:
    assert set(looks(Asked(answers), len(answers) + 3)) == {None}


def test_a_question_that_is_not_answered_yet_keeps_nobody_waiting() -> None:
    answered = threading.Event()
    asked: list[str] = []

    def ask(url: str) -> bool:
        asked.append(url)
        return answered.wait(60)

    clock = Clock()
    watch = LivenessWatch("http://here:8000", ask, clock)
    for _ in range(10):
        assert watch.look() is None
        clock.now += ASK_EVERY_S
    assert len(asked) <= 1
    answered.set()
    watch.close()
