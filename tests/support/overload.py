"""A model under a load that does not wait for its answers, on a clock of its own: a queue and a batcher such as Triton's, and
behind them the real adapter of every instance, with its deadlines and its estimates."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tests.support import fake_backend, toy
from trireme_runtime.stages.chain import Chain, Run
from trireme_runtime.triton.adapter import Adapter
from trireme_runtime.triton.costs import Costs
from trireme_runtime.triton.deadlines import Deadlines, Form

MS = 1_000_000


@dataclass(frozen=True)
class Model:
    """What answers take, ns: a batch that is computed, for itself and for each of its users; and each user of a shorter answer.
    Batches of up to ``rows`` users are formed ``ahead`` for each instance that is busy."""

    batch: int = 40 * MS
    user: int = 0
    shorter: int = 20_000
    rows: int = 32
    instances: int = 2
    ahead: int = 2

    @property
    def peak(self) -> float:
        """Users per ns that can be computed."""
        return self.instances * self.rows / (self.batch + self.rows * self.user)


@dataclass(frozen=True)
class Callers:
    """Requests of one user each: what they send, and how many, as a multiple of the peak."""

    load: float
    timeout: int = 400 * MS
    says_sent: bool = True
    background: bool = False


@dataclass
class Call:
    """A request, and what became of it."""

    sent: int
    callers: Callers
    answered: int = 0
    reason: int = 0

    @property
    def in_full(self) -> bool:
        """Whether the caller got a full answer in time."""
        late = self.callers.timeout and self.answered - self.sent > self.callers.timeout
        return self.reason == 0 and not late


@dataclass
class Outcome:
    """Shares of the calls of each kind of callers, and of the peak."""

    model: Model
    ns: int
    calls: list[Call]

    def of(self, callers: Callers) -> float:
        """The share of these callers' calls that were answered in full and in time."""
        return float(np.mean([call.in_full for call in self.calls if call.callers is callers]))

    @property
    def goodput(self) -> float:
        """Full answers in time, as a share of what can be computed."""
        return sum(call.in_full for call in self.calls) / (self.ns * self.model.peak)


def simulate(model: Model, callers: Sequence[Callers], chain: Chain, seconds: float, skipped: float = 2.0) -> Outcome:
    """Sends Poisson loads for so many seconds after the first ones, which do not count."""
    begin, end = int(skipped * 1e9), int((skipped + seconds) * 1e9)
    calls = list(_arrivals(model, callers, end, np.random.default_rng(0)))
    _serve(model, [_Instance(model, chain) for _ in range(model.instances)], deque(calls))
    return Outcome(model, end - begin, [call for call in calls if call.sent >= begin])


def _arrivals(model: Model, callers: Sequence[Callers], end: int, rng: np.random.Generator) -> Iterator[Call]:
    rates = np.array([each.load for each in callers]) * model.peak
    count = int(end * rates.sum())
    times = np.sort(rng.integers(1, end, count))
    for at, kind in zip(times.tolist(), rng.choice(len(callers), count, p=rates / rates.sum()), strict=True):
        yield Call(at, callers[kind])


def _serve(model: Model, instances: list[_Instance], arriving: deque[Call]) -> None:
    queue: deque[Call] = deque()
    batches: deque[list[Call]] = deque()
    while arriving or queue or batches:
        free = min(instances, key=lambda instance: instance.now)
        # What comes until an instance is free; it waits for the first one if there is nothing.
        until = free.now if queue or batches else max(free.now, arriving[0].sent)
        while True:
            room = model.ahead * len(instances) - len(batches)
            while room > 0 and queue:
                batches.append([queue.popleft() for _ in range(min(model.rows, len(queue)))])
                room -= 1
            if not arriving or arriving[0].sent > until:
                break
            queue.append(arriving.popleft())
        free.now = until
        if batches:
            free.answer(batches.popleft())


class _Instance:
    def __init__(self, model: Model, chain: Chain) -> None:
        self.now = 0
        config = fake_backend.chain_config(chain, toy.DIMS, model.rows)
        deadlines = Deadlines(chain, config)
        deadlines.full = Form(_Timed(chain, self, model.batch, model.user), Costs())
        for short in ("_order", "_popular"):
            form = getattr(deadlines, short)
            setattr(deadlines, short, Form(_Timed(form.chain, self, 0, model.shorter), Costs()))
        self._adapter = Adapter(deadlines.full.chain, fake_backend, config, deadlines=deadlines, clock=lambda: self.now)

    def answer(self, batch: list[Call]) -> None:
        requests = [_request(call, self) for call in batch]
        for call, response in zip(batch, self._adapter.execute(requests), strict=True):
            if response is not None:
                _answered(call, response, self.now)


@dataclass
class _Timed:
    """A chain that takes its time on the clock of its instance."""

    chain: Any
    instance: _Instance
    fixed: int
    user: int

    def __getattr__(self, name: str) -> Any:
        return getattr(self.chain, name)

    def run(self, **inputs: Any) -> Run:
        ran: Run = self.chain.run(**inputs)
        self.instance.now += self.fixed + self.user * len(ran.outputs[0])
        return ran


@dataclass
class _Sender:
    call: Call
    instance: _Instance

    def send(self, response: Any, flags: int) -> None:
        _answered(self.call, response, self.instance.now)


def _answered(call: Call, response: Any, now: int) -> None:
    (reason,) = (tensor.array for tensor in response.output_tensors if tensor.tensor_name == "reason")
    call.answered, call.reason = now, int(reason[0, 0])


USER = np.array([[106]], np.int64)


def _request(call: Call, instance: _Instance) -> fake_backend.Request:
    given: dict[str, Any] = {"sent": call.sent} if call.callers.says_sent else {}
    if call.callers.background:
        given["class"] = "background"
    timeout_us = call.callers.timeout // 1000
    return fake_backend.Request({"user_id": USER}, json.dumps(given), (), timeout_us, _Sender(call, instance))
