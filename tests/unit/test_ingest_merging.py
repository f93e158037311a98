"""States of users: the same ones whatever the order, the number and the batches of deliveries."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from trireme_ingest.merging import APPLIED, DUPLICATE, FORGOTTEN, LATE, OLD, Merged, Taken, merge

#: Events as (row of the user, item, time); few values, so that there are repeats, ties and late ones.
EVENTS = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 4), st.integers(1, 9)), max_size=40)
USERS = 3


def taken(events: list[tuple[int, int, int]]) -> Taken:
    row, item, time = np.array(events, dtype=np.int64).reshape(-1, 3).T
    return Taken(row, item, time)


def listed(state: Taken) -> list[tuple[int, int, int]]:
    return list(zip(*(column.tolist() for column in state), strict=True))


def merged(known: Taken, events: list[tuple[int, int, int]], capacity: int, forgotten: int = -1) -> Merged:
    return merge(known, taken(events), np.full(USERS, forgotten, dtype=np.int64), capacity)


def expected(events: list[tuple[int, int, int]], capacity: int) -> list[tuple[int, int, int]]:
    """The newest distinct events of each user, by plain Python."""
    state = []
    for user in range(USERS):
        own = sorted({(time, item) for row, item, time in events if row == user})
        state += [(user, item, time) for time, item in own[-capacity:]]
    return state


@given(EVENTS, st.integers(1, 5), st.data())
def test_a_state_depends_on_the_set_of_events_alone(
    events: list[tuple[int, int, int]], capacity: int, data: st.DataObject
) -> None:
    """In any order, in any batches, and with repeats of any of them at any time."""
    repeats = data.draw(st.lists(st.sampled_from(events), max_size=20)) if events else []
    delivered = data.draw(st.permutations(events + repeats))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(delivered)), max_size=4)))
    state = taken([])
    for start, end in zip([0, *cuts], [*cuts, len(delivered)], strict=True):
        state = merged(state, delivered[start:end], capacity).taken
    assert listed(state) == expected(events, capacity)


@given(EVENTS, EVENTS, st.integers(1, 5))
def test_what_is_said_to_be_applied_is_what_is_new_in_the_state(
    known: list[tuple[int, int, int]], events: list[tuple[int, int, int]], capacity: int
) -> None:
    before = merged(taken([]), known, capacity).taken
    after = merged(before, events, capacity)
    applied = [event for event, one in zip(events, after.outcome, strict=True) if one in (APPLIED, LATE)]
    assert sorted(applied) == sorted(set(listed(after.taken)) - set(listed(before)))


@given(EVENTS, st.integers(1, 5))
def test_the_same_events_again_change_nothing(events: list[tuple[int, int, int]], capacity: int) -> None:
    state = merged(taken([]), events, capacity).taken
    again = merged(state, events, capacity)
    assert listed(again.taken) == listed(state)
    assert set(again.outcome.tolist()) <= {DUPLICATE, OLD}


def test_outcomes() -> None:
    known = taken([(0, 10, 100), (0, 11, 200)])
    after = merged(known, [(0, 12, 300), (0, 13, 150), (0, 10, 100), (0, 14, 50), (0, 12, 300)], capacity=3)
    assert listed(after.taken) == [(0, 13, 150), (0, 11, 200), (0, 12, 300)]
    assert after.outcome.tolist() == [APPLIED, LATE, DUPLICATE, OLD, DUPLICATE]


def test_what_a_user_did_before_being_forgotten_does_not_come_back() -> None:
    after = merged(taken([]), [(0, 10, 100), (0, 11, 200), (0, 12, 201)], capacity=3, forgotten=200)
    assert listed(after.taken) == [(0, 12, 201)]
    assert after.outcome.tolist() == [FORGOTTEN, FORGOTTEN, APPLIED]


def test_items_of_one_moment_are_in_the_order_of_their_ids() -> None:
    """Of the events alone, nothing else is the same for every order of delivery."""
    assert listed(merged(taken([]), [(1, 9, 100), (1, 4, 100)], capacity=5).taken) == [(1, 4, 100), (1, 9, 100)]


def test_ids_of_64_bits_are_told_apart() -> None:
    largest = 2**63 - 1
    after = merged(taken([]), [(0, largest, 100), (0, largest - 1, 100), (0, 0, 100)], capacity=5)
    assert [item for _, item, _ in listed(after.taken)] == [0, largest - 1, largest]
