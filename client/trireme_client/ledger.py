"""Where the time of one call went: the client's own parts, and what the server tells of its stages."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

from .model import STAGES


@dataclass(frozen=True, slots=True)
class CallLedger:
    """The time of one call in µs.

    parts, one after another on this process's monotonic clock: validate; connect (reading the model's dimensions, next to
    nothing once they are known), or coalesce (waiting for an RPC to travel with); serialise; rpc; parse; and wake where
    calls are coalesced, until the caller runs again. total_us: from the call to its result, on the same clock.
    stages: what each stage computed, on the server's clock, for the batch that the request rode in; all of it is inside
    rpc. batch_users, batch_requests: who was in that batch. Of an ensemble the answer does not tell them: stages is empty
    then, and the batch 0.
    """

    total_us: float
    parts: Mapping[str, float]
    stages: Mapping[str, float]
    batch_users: int
    batch_requests: int

    @property
    def unaccounted_us(self) -> float:
        """What is in no part: handing over between them."""
        return self.total_us - sum(self.parts.values())

    @property
    def transport_us(self) -> float:
        """Of rpc, what is in no stage: gRPC, the network, the server's queue and its hand-overs."""
        return max(0.0, self.parts["rpc"] - sum(self.stages.values()))


class CallClock:
    """Takes the time of the parts of one call, which begins when this is made."""

    def __init__(self) -> None:
        self._start = self._last = time.perf_counter_ns()
        self._parts: dict[str, float] = {}
        self.told: list[int] | None = None
        """The server's row: users and requests in the batch, and the ns of every stage."""

    def end(self, part: str) -> None:
        """The part has ended, and the next one begins."""
        now = time.perf_counter_ns()
        self._parts[part] = self._parts.get(part, 0.0) + (now - self._last) / 1e3
        self._last = now

    def ledger(self) -> CallLedger:
        """The call has ended."""
        total = (time.perf_counter_ns() - self._start) / 1e3
        if self.told is None:
            return CallLedger(total, self._parts, {}, 0, 0)
        users, requests, *stages = self.told
        spent = {name: ns / 1e3 for name, ns in zip(STAGES, stages, strict=True)}
        return CallLedger(total, self._parts, spent, users, requests)
