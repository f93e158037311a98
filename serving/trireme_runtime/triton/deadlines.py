"""Which requests of a batch are answered in full. It is decided once, before the model runs.

A request has a deadline if it has Triton's own ``timeout`` (µs), counted from when it was sent. Where it does not say when that
was, an estimate takes its place, see ``Waiting``. A request of the class background gives way as soon as more waits than the
model answers in good time, and where a batch would take too much of the time of the others because of it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

import numpy as np

from trireme_runtime.schema import CANDIDATE_INDEX, QUERY
from trireme_runtime.stages.chain import Chain
from trireme_runtime.stages.reranking import DEADLINE, OVERLOAD
from trireme_runtime.stages.shortcut import ORDER_ONLY, POPULAR_ONLY, shortcut
from trireme_runtime.triton.clock import clock_number
from trireme_runtime.triton.costs import Costs
from trireme_runtime.triton.parameters import Parameters
from trireme_runtime.triton.waiting import Others, Waiting

__all__ = ["Admitted", "Asked", "Deadlines", "Form", "Part"]

#: ns that an answer takes back to its caller, beside what is measured here.
RETURN_NS = 1_000_000
#: Where more waits than can be answered, the class background gives way once this share of the time of the others is over, or,
#: where there are no others with a deadline, once so many full batches are ahead.
YIELDS_AFTER, BATCHES_AHEAD = 0.125, 2
#: The share of the time of the others that a batch with requests in the background may take: what comes meanwhile waits for it,
#: and for one or two that Triton has formed by then.
HOLDS_UP = 0.25
#: The least that a batch answers in a time, as a share of what a full one does, for which others are left out of it.
WORTHWHILE = 0.8


class Form(NamedTuple):
    """A way to answer: what runs the stages, and what that takes."""

    chain: Any
    costs: Costs


class Asked(Protocol):
    """A request: its users, the ns that it may take (0: no limit), its parameters, and why an earlier step left it out."""

    @property
    def rows(self) -> int: ...
    @property
    def timeout(self) -> int: ...
    @property
    def parameters(self) -> Parameters: ...
    @property
    def left_out(self) -> int | None: ...


T = TypeVar("T", bound=Asked)


class Admitted(NamedTuple, Generic[T]):
    """A request, the ns until its deadline (infinity without one, 0 or less if it gives way), and the reason of its answer if
    that is a shorter one."""

    request: T
    left: float
    reason: int = DEADLINE

    @property
    def rows(self) -> int:
        return self.request.rows


class Part(NamedTuple, Generic[T]):
    """Requests that are answered in the same form."""

    form: Form
    admitted: list[Admitted[T]]

    @property
    def requests(self) -> list[T]:
        return [each.request for each in self.admitted]

    @property
    def reasons(self) -> np.ndarray:
        """uint8 [users, 1]: why the answer of each user is a shorter one."""
        each, rows = [each.reason for each in self.admitted], [each.rows for each in self.admitted]
        return np.repeat(np.array(each, np.uint8), rows)[:, None]


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
        self._max_rows = int(config["max_batch_size"])
        self.waiting = Waiting(self._max_rows)
        self._others = Others()

    @classmethod
    def of(cls, chain: Chain, config: Mapping[str, Any]) -> Deadlines | None:
        """Returns what decides for a model; None if there is no shorter way through its stages."""
        deadlines = cls(chain, config)
        return None if deadlines._popular is None else deadlines

    def all_fit(self, batch: Sequence[Asked], now: int) -> bool:
        """Whether all requests are sure to be answered in full: nearly always, and known at less expense than by ``admit``."""
        longest, least, shortest, rows = self.waiting.longest, math.inf, math.inf, 0
        for asked in batch:
            if asked.left_out is not None or asked.parameters.background:
                return False
            if asked.timeout:
                shortest = min(shortest, asked.timeout)
                age = _age(asked.parameters, now)
                left = asked.timeout - (longest if age is None else age)
                least = min(least, left)
                if 2 * left < asked.timeout < longest:
                    return False
            rows += asked.rows
        self._others.came(now, shortest)
        return least > 0 and RETURN_NS + self.full.costs.estimate(rows) <= least

    def admit(self, batch: Sequence[T], now: int) -> list[Admitted[T]]:
        """Decides which requests of a batch give way, and how much time the others have."""
        ages = [_age(asked.parameters, now) for asked in batch]
        # The queue is in order, so those that say when they were sent know how long the others have waited, too.
        waited = min(self.waiting.longest, max((age for age in ages if age is not None), default=self.waiting.longest))
        gives_way = self._giving_way(batch, waited, now)
        admitted = []
        for asked, age in zip(batch, ages, strict=True):
            left, reason = math.inf, DEADLINE
            if asked.left_out is not None:
                left, reason = 0, asked.left_out
            elif id(asked) in gives_way:
                left, reason = 0, OVERLOAD
            elif asked.timeout:
                left = asked.timeout - (waited if age is None else age)
            admitted.append(Admitted(asked, left, reason))
        if any(0 < asked.timeout < self.waiting.longest for asked in batch):
            return self._relieved(admitted)
        return admitted

    def _relieved(self, admitted: list[Admitted[T]]) -> list[Admitted[T]]:
        """Lets requests of a queue that stands give way if most of the batch has waited for half of its time.

        Else, the queue would stay as long as it may be, and whatever is computed would come at the last moment, or just after.
        Where a small batch takes nearly as long as a full one, the others of the batch give way, too: after them come full
        batches of younger ones.
        """
        whole = self.full.costs.estimate(self._max_rows)
        old = [self._is_old(each, whole) for each in admitted]
        others = [each for each, is_old in zip(admitted, old, strict=True) if each.left > 0 and not is_old]
        rows = _users(others)
        if sum(each.rows for each, is_old in zip(admitted, old, strict=True) if is_old) <= rows:
            return admitted
        stays = any(math.isinf(each.left) for each in others) or (
            rows * whole >= WORTHWHILE * self._max_rows * self.full.costs.estimate(rows)
        )
        return [
            each._replace(left=0, reason=OVERLOAD)
            if each.left > 0 and (is_old or not stays) and each.left < math.inf
            else each
            for each, is_old in zip(admitted, old, strict=True)
        ]

    def _is_old(self, admitted: Admitted[T], whole: float) -> bool:
        """Whether a request has waited for half of its time in a queue that stood for all of it. A time in which two full batches
        cannot be answered says nothing about the queue."""
        asked = admitted.request
        if asked.left_out is not None or admitted.reason == OVERLOAD:
            return False
        return 2 * whole <= asked.timeout < self.waiting.longest and 2 * admitted.left < asked.timeout

    def _giving_way(self, batch: Sequence[Asked], waited: int, now: int) -> set[int]:
        """Returns the identities of the requests in the background that give way: all where the batch has waited for a good part
        of the time of the others or, where those have no deadline, for longer than two full batches take; else, those for
        which the batch would take too long."""
        others = [asked for asked in batch if not asked.parameters.background]
        hopeful = (asked.timeout for asked in others if asked.timeout > self.full.costs.estimate(asked.rows))
        self._others.came(now, min(hopeful, default=math.inf))  # the rest is late whoever gives way
        shortest, ahead = self._others.shortest(now), BATCHES_AHEAD * self.full.costs.estimate(self._max_rows)
        is_crowded = waited > (ahead if math.isinf(shortest) else YIELDS_AFTER * shortest)
        rows, gives_way = sum(asked.rows for asked in others), set()
        for asked in batch:
            if not asked.parameters.background:
                continue
            if is_crowded or self.full.costs.estimate(rows + asked.rows) > HOLDS_UP * shortest:
                gives_way.add(id(asked))
            else:
                rows += asked.rows
        return gives_way

    def divide(self, batch: list[Admitted[T]]) -> list[Part[T]]:
        """Divides a batch into parts, each in the order of the batch; those that take less come first."""
        assert self._popular is not None
        shorter = self._order or self._popular
        late = [each for each in batch if each.left <= 0]
        alive = sorted((each for each in batch if each.left > 0), key=lambda each: -each.left)
        began = RETURN_NS + (self._popular.costs.estimate(_users(late)) if late else 0.0)
        fitting = self._fitting(alive, began, shorter)
        full, tight = alive[:fitting], alive[fitting:]
        needed = began + self._order.costs.estimate(_users(tight)) if tight and self._order else math.inf
        order = [each for each in tight if each.left >= needed]
        popular = [*late, *(each for each in tight if each.left < needed)]
        if tight and not full:
            self.full.costs.doubt()
        if tight and not order:
            shorter.costs.doubt()
        parts = ((self._popular, popular), (shorter, order), (self.full, full))
        places = {id(each): place for place, each in enumerate(batch)}
        return [Part(form, sorted(part, key=lambda each: places[id(each)])) for form, part in parts if part]

    def _fitting(self, alive: list[Admitted[T]], began: float, shorter: Form) -> int:
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
            last, left = alive[count - 1].rows, alive[count - 1].left
            before = shorter.costs.estimate(others) if others else 0.0
            if began + before + self.full.costs.estimate(rows) <= left:
                return count
            rows, others = rows - last, others + last
        return 0


def _age(parameters: Parameters, now: int) -> int | None:
    """Returns the ns since a request was sent; None if it does not say."""
    if parameters.sent is None or parameters.sent_clock not in (None, clock_number()):
        return None
    return max(0, now - parameters.sent)


def _users(batch: Sequence[Admitted[T]]) -> int:
    return sum(each.rows for each in batch)
