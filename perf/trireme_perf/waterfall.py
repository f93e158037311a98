"""The waterfall of one call: the client's parts, the server's by its statistics, and the stages by the answer itself.

The server's own parts (queue, input, compute, output of every model) are the difference of two readings of Triton's statistics
around the call. If no other request was answered in between, and Triton's counts say so, that is this request to the
nanosecond; otherwise the parts are means over the requests that were, and ``exact`` is False. What the client saw of the
RPC beyond the server's end-to-end time is the network, gRPC and the client's own waiting.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

from trireme_client import CallLedger, Recommendations
from trireme_perf.errors import PerfError
from trireme_perf.ledger import Ledger, StageTime, watch_ledger

__all__ = ["Bar", "Waterfall", "measure_call"]

UNACCOUNTED = "unaccounted"


@dataclass(frozen=True)
class Bar:
    """A part of the call: ``start_us`` from its beginning. ``depth`` 0 is the client, 1 the server, 2 a stage of a model."""

    part: str
    depth: int
    start_us: float
    us: float


@dataclass(frozen=True)
class Waterfall:
    """Bars in the order of time. Those of depth 0 add up to ``total_us``; so do those of a depth to the bar that holds them."""

    model: str
    total_us: float
    bars: tuple[Bar, ...]
    exact: bool
    batch_users: int
    batch_requests: int

    @property
    def unaccounted_us(self) -> float:
        """What no part claims, of client and server."""
        return sum(bar.us for bar in self.bars if bar.part == UNACCOUNTED)

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "unaccounted_us": self.unaccounted_us}


def measure_call(url: str, model: str, ask: Callable[[], Recommendations]) -> tuple[Recommendations, Waterfall]:
    """Makes one call and reports where its time went.

    Args:
        ask: calls ``recommend(..., ledger=True)`` of a client of this server and model.

    Raises:
        PerfError: no server, or no such model. What ``ask`` raises.
    """
    with watch_ledger(url, model) as watched:
        answer = ask()
    if answer.ledger is None:
        raise PerfError("the call has no ledger: ask with ledger=True")
    return answer, waterfall(answer.ledger, watched.result)


def waterfall(call: CallLedger, server: Ledger) -> Waterfall:
    """Both sides in one picture."""
    bars: list[Bar] = []
    at = 0.0
    for part, us in call.parts.items():
        bars.append(Bar(part, 0, at, us))
        if part == "rpc":
            bars += _inside_rpc(call, server, at, us)
        at += us
    bars.append(Bar(UNACCOUNTED, 0, at, call.unaccounted_us))
    users = call.batch_users or round(max(stage.batch for stage in server.stages))
    exact = server.requests == 1 and server.warmup_requests == 0
    return Waterfall(server.model, call.total_us, tuple(bars), exact, users, call.batch_requests)


def _inside_rpc(call: CallLedger, server: Ledger, at: float, us: float) -> Iterator[Bar]:
    transport = max(0.0, us - server.end_to_end_us)
    # Triton counts the last output until its buffers are free, when the client may have the answer already.
    beside = max(0.0, server.end_to_end_us - us)
    # Only the sum of both ways is known.
    yield Bar("network, gRPC", 1, at, transport)
    at += transport
    for stage in server.stages:
        for part, spent in (("queue", stage.queue_us), ("input", stage.input_us)):
            yield Bar(f"{stage.stage} {part}", 1, at, spent)
            at += spent
        yield Bar(f"{stage.stage} compute", 1, at, stage.compute_us)
        yield from _stages(call, stage, at)
        at += stage.compute_us
        output = max(0.0, stage.output_us - beside) if stage is server.stages[-1] else stage.output_us
        yield Bar(f"{stage.stage} output", 1, at, output)
        at += output
    yield Bar(UNACCOUNTED, 1, at, max(0.0, server.unaccounted_us))


def _stages(call: CallLedger, model: StageTime, at: float) -> Iterator[Bar]:
    """The stages inside the one model of the fused plan; the rest is the way into its process and back."""
    if not call.stages:
        return
    hand_over = max(0.0, model.compute_us - sum(call.stages.values()))
    yield Bar("hand-over", 2, at, hand_over)
    at += hand_over
    for name, us in call.stages.items():
        yield Bar(name, 2, at, us)
        at += us
