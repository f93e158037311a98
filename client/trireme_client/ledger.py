"""Where the time of one call went: the client's own parts, and the stages that the server reports."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CallLedger:
    """The time of one call in µs.

    Attributes:
        total_us: from the call to its result, on this process's monotonic clock.
        parts: one after another, on the same clock: validate; connect (reading the model's dimensions, next to nothing
            once they are known), or coalesce (waiting for an RPC to share); serialise; rpc; parse; and, where calls
            are coalesced, wake (until the caller runs again). With a cache, cache follows validate: looking, and waiting for
            an equal call; there is nothing else if that gave the answer.
        stages: what each stage computed for the batch that held this request, on the server's clock; all of it lies
            inside rpc. Empty for an ensemble, which does not report its stages.
        batch_users: users in that batch; 0 for an ensemble.
        batch_requests: requests in that batch; 0 for an ensemble.
    """

    total_us: float
    parts: Mapping[str, float]
    stages: Mapping[str, float]
    batch_users: int
    batch_requests: int

    @property
    def unaccounted_us(self) -> float:
        """Time that is in no part: the hand-overs between them."""
        return self.total_us - sum(self.parts.values())

    @property
    def transport_us(self) -> float:
        """The time of rpc that is in no stage: gRPC, the network, the server's queue and its hand-overs."""
        return max(0.0, self.parts.get("rpc", 0.0) - sum(self.stages.values()))
