"""Which requests of a batch have the time for all of the model. It is decided once, before the model runs.

A request has a deadline if it has Triton's own ``timeout`` (µs), counted from when it was sent. Where it does not say when that
was, an estimate takes its place, see ``Waiting``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

from trireme_runtime.schema import CANDIDATE_INDEX, QUERY
from trireme_runtime.stages.chain import Chain
from trireme_runtime.stages.shortcut import ORDER_ONLY, POPULAR_ONLY, shortcut
from trireme_runtime.triton.clock import clock_number
from trireme_runtime.triton.costs import Costs
from trireme_runtime.triton.parameters import Parameters

__all__ = ["Deadlines", "Form", "Part", "Waiting"]

#: ns between two batches from which the model was idle: until then, the next one may have been on its way. A full batch is no
#: sign of an idle model, and longer on its way.
IDLE_NS, IDLE_FULL_NS = 2_000_000, 100_000_000
#: ns that an answer takes back to its caller, beside what is measured here.
RETURN_NS = 1_000_000

T = TypeVar("T")


class Waiting:
    """How long requests may have waited for this instance, from the batches before.

    A batch that was not full left nothing behind, so whatever is in the next one came after it was taken; and who comes to an
    idle instance has not waited. (Triton forms a batch or two ahead, so this may be short by as much.) As long as all batches
    are full, the estimate grows; it falls as soon as the queue is empty once.

    Attributes:
        longest: the ns that a request in the last batch may have waited.
    """

    def __init__(self, max_rows: int) -> None:
        self._max_rows = max_rows
        self._since = self._ended = self._next_since = 0
        self.longest = 0

    def taken(self, now: int, rows: int, largest: int) -> None:
        """Notes a batch that was taken: its users, and those of its largest request."""
        full = rows + largest > self._max_rows
        self._since = self._next_since
        if now - self._ended > (IDLE_FULL_NS if full else IDLE_NS):
            self._since = now
        self.longest = now - self._since
        self._next_since = self._since if full else now

    def ended(self, now: int) -> None:
        """Notes that the batch was answered."""
        self._ended = now


class Form(NamedTuple):
    """A way to answer: what runs the stages, and what that takes."""

    chain: Any
    costs: Costs


class Part(NamedTuple, Generic[T]):
    """Requests that are answered in the same form."""

    form: Form
    requests: list[T]


class Deadlines:
    """Decides for the batches of one model.

    Args:
        chain: all of the model.
        config: of the model, as Triton hands it to ``initialize``: the widths of its outputs, and how many users a batch holds.
    """

    def __init__(self, chain: Chain, config: Mapping[str, Any]) -> None:
        widths = {tensor["name"]: int(tensor["dims"][0]) for tensor in config["output"]}
        widths = {name: width for name, width in widths.items() if name in (QUERY.name, CANDIDATE_INDEX.name)}
        self.full = Form(chain, Costs())
        self._order, self._popular = (
            None if short is None else Form(short, Costs())
            for short in (shortcut(chain, dropped, widths) for dropped in (ORDER_ONLY, POPULAR_ONLY))
        )
        self.waiting = Waiting(int(config["max_batch_size"]))

    @classmethod
    def of(cls, chain: Chain, config: Mapping[str, Any]) -> Deadlines | None:
        """Returns what decides for a model; None if there is no shorter way through its stages."""
        deadlines = cls(chain, config)
        return None if deadlines._popular is None else deadlines

    def left(self, timeout: int, parameters: Parameters, now: int) -> int:
        """Returns the ns until the deadline of a request that may take ``timeout`` ns.

        Once the queue has not been empty for as long as that, those who have waited for half of their time give way. Else, the
        queue would stay as long as it may be, and whatever is computed would come at the last moment, or just after.
        """
        sent, longest = parameters.sent, self.waiting.longest
        if sent is None or parameters.sent_clock not in (None, clock_number()):
            return timeout - longest
        age = max(0, now - sent)
        return timeout - (max(age, longest) if 2 * age > timeout else age)

    def all_fit(self, requests: Sequence[tuple[Any, int, float]]) -> bool:
        """Whether every request has the time for all stages: what ``divide`` answers with one part, at less expense."""
        least = min(left for _, _, left in requests)
        return least > 0 and RETURN_NS + self.full.costs.estimate(_users(requests)) <= least

    def divide(self, requests: list[tuple[T, int, float]]) -> list[Part[T]]:
        """Divides a batch into parts, each in the order of the batch; those that take less come first.

        Args:
            requests: each with its users, and the ns until its deadline: infinity without one, 0 or less if it has passed or
                an earlier step has left the request out.
        """
        assert self._popular is not None
        shorter = self._order or self._popular
        late = [each for each in requests if each[2] <= 0]
        alive = sorted((each for each in requests if each[2] > 0), key=lambda each: -each[2])
        began = RETURN_NS + (self._popular.costs.estimate(_users(late)) if late else 0.0)
        fitting = self._fitting(alive, began, shorter)
        full, tight = alive[:fitting], alive[fitting:]
        needed = began + self._order.costs.estimate(_users(tight)) if tight and self._order else math.inf
        order = [each for each in tight if each[2] >= needed]
        popular = [*late, *(each for each in tight if each[2] < needed)]
        if tight and not full:
            self.full.costs.doubt()
        if tight and not order:
            shorter.costs.doubt()
        parts = ((self._popular, popular), (shorter, order), (self.full, full))
        places = {id(each): place for place, each in enumerate(requests)}
        return [
            Part(form, [request for request, _, _ in sorted(part, key=lambda each: places[id(each)])])
            for form, part in parts
            if part
        ]

    def _fitting(self, alive: list[tuple[T, int, float]], began: float, shorter: Form) -> int:
        """Returns how many requests have the time for all stages, of those that have the most time left.

        A smaller batch takes less, so that some are in time where all of them together would be late.

        Args:
            alive: those with the most time left first.
            began: ns until the first run that is not of late requests.
            shorter: what the others are answered by, before these.
        """
        rows = _users(alive)
        others = 0
        for count in range(len(alive), 0, -1):
            _, last, left = alive[count - 1]
            before = shorter.costs.estimate(others) if others else 0.0
            if began + before + self.full.costs.estimate(rows) <= left:
                return count
            rows, others = rows - last, others + last
        return 0


def _users(requests: Sequence[tuple[Any, int, float]]) -> int:
    return sum(rows for _, rows, _ in requests)
