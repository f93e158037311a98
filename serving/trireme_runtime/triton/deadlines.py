"""Which requests of a batch have the time for all of the model. It is decided once, before the model runs.

A request has a deadline if it has Triton's own ``timeout`` (µs), counted from when it was sent. Where it does not say when that
was, an estimate takes its place, see ``Waiting``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Generic, NamedTuple, TypeVar

from trireme_runtime.schema import CANDIDATE_INDEX, QUERY
from trireme_runtime.stages.chain import Chain
from trireme_runtime.stages.shortcut import ORDER_ONLY, POPULAR_ONLY, shortcut
from trireme_runtime.triton.clock import clock_number
from trireme_runtime.triton.costs import Costs
from trireme_runtime.triton.parameters import Parameters

__all__ = ["Deadlines", "Form", "Part", "Waiting"]

#: ns between two batches from which the model was idle: until then, the next one may have been on its way.
IDLE_NS = 2_000_000
#: ns that an answer takes back to its caller, beside what is measured here.
RETURN_NS = 1_000_000

T = TypeVar("T")


class Waiting:
    """How long requests may have waited for this instance, from the batches before.

    A batch that was not full left nothing behind, so whatever is in the next one came after it was taken; and who comes to an
    idle instance has not waited. (Triton forms a batch or two ahead, so this may be short by as much.) As long as all batches
    are full, the estimate grows; it falls as soon as the queue is empty once.
    """

    def __init__(self, max_rows: int) -> None:
        self._max_rows = max_rows
        self._since = self._ended = 0

    def longest(self, now: int) -> int:
        """Returns the ns that a request in the batch taken at ``now`` may have waited."""
        if now - self._ended > IDLE_NS:
            self._since = now
        return now - self._since

    def ended(self, taken: int, now: int, rows: int, largest: int) -> None:
        """Notes a batch, taken at one moment and answered at another: its users, and those of its largest request."""
        self._ended = now
        if rows + largest <= self._max_rows:
            self._since = taken


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

    @property
    def can_shorten(self) -> bool:
        """Whether there is any shorter way through the stages of this model."""
        return self._popular is not None

    @staticmethod
    def age(parameters: Parameters, now: int, longest: int) -> int:
        """Returns the ns since a request was sent; ``longest`` is the estimate where it does not say."""
        sent = parameters.sent
        if sent is None or parameters.sent_clock not in (None, clock_number()):
            return longest
        return max(0, now - sent)

    def divide(self, requests: list[tuple[T, int, float]]) -> list[Part[T]]:
        """Divides a batch into parts; those that take less come first.

        Args:
            requests: each with its users, and the ns until its deadline: infinity without one, 0 or less if it has passed or
                an earlier step has left the request out.
        """
        assert self._popular is not None
        shorter = self._order or self._popular
        needed = RETURN_NS + self.full.costs.estimate(sum(rows for _, rows, left in requests if left > 0))
        tight = sum(rows for _, rows, left in requests if 0 < left < needed)
        order_needed = RETURN_NS + shorter.costs.estimate(tight)
        popular: list[T] = []
        order: list[T] = []
        full: list[T] = []
        for request, _, left in requests:
            # What is tight for the only shorter form, that of popular items, is answered in it all the same.
            wanted = full if left >= needed else order if left >= order_needed and self._order else popular
            (wanted if left > 0 else popular).append(request)
        if tight and not full:
            self.full.costs.doubt()
        if tight and not order:
            shorter.costs.doubt()
        parts = ((self._popular, popular), (shorter, order), (self.full, full))
        return [Part(form, part) for form, part in parts if part]
