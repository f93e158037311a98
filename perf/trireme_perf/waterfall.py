"""The waterfall of one call: the client's parts, the server's by its statistics, and the stages by the answer itself.

The server's own parts (queue, input, compute, output of every model) are the difference of two readings of Triton's statistics
around the call. If no other request was answered in between, and Triton's counts say so, that is this request to the
nanosecond; otherwise the parts are means over the requests that were, and ``exact`` is False. What the client saw of the
RPC beyond the server's end-to-end time is the network, gRPC and the client's own waiting.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

from trireme_client import TLS, CallLedger, Recommendations
from trireme_perf.errors import PerfError
from trireme_perf.ledger import Ledger, watch_ledger

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


def measure_call(
    url: str, model: str, ask: Callable[[], Recommendations], tls: TLS | None = None
) -> tuple[Recommendations, Waterfall]:
    """Makes one call and reports where its time went.

    Args:
        ask: calls ``recommend(..., ledger=True)`` of a client of this server and model.
        tls: certificates for the server's gRPC endpoint; None for plain text.

    Raises:
        PerfError: no server, or no such model. What ``ask`` raises.
    """
    with watch_ledger(url, model, tls) as watched:
        answer = ask()
    if answer.ledger is None:
        raise PerfError("the call has no ledger: ask with ledger=True")
    return answer, waterfall(answer.ledger, watched.result)


def waterfall(call: CallLedger, server: Ledger) -> Waterfall:
    """Both sides in one picture."""
    bars: list[Bar] = []
    for bar in _in_line([*call.parts.items(), (UNACCOUNTED, call.unaccounted_us)], 0, 0.0):
        bars.append(bar)
        if bar.part == "rpc":
            bars += _inside_rpc(call, server, bar)
    users = call.batch_users or round(max(stage.batch for stage in server.stages))
    exact = server.requests == 1 and server.warmup_requests == 0
    return Waterfall(server.model, call.total_us, tuple(bars), exact, users, call.batch_requests)


def _in_line(parts: Iterable[tuple[str, float]], depth: int, at: float) -> Iterator[Bar]:
    """Parts and their µs as bars one after another, from ``at`` on."""
    for part, us in parts:
        yield Bar(part, depth, at, us)
        at += us


def _inside_rpc(call: CallLedger, server: Ledger, rpc: Bar) -> Iterator[Bar]:
    # Only the sum of both ways is known.
    parts = [("network, gRPC", max(0.0, rpc.us - server.end_to_end_us))]
    # Triton counts the last output until its buffers are free, when the client may have the answer already.
    beside = max(0.0, server.end_to_end_us - rpc.us)
    for stage in server.stages:
        output = max(0.0, stage.output_us - beside) if stage is server.stages[-1] else stage.output_us
        parts += [
            (f"{stage.stage} queue", stage.queue_us),
            (f"{stage.stage} input", stage.input_us),
            (f"{stage.stage} compute", stage.compute_us),
            (f"{stage.stage} output", output),
        ]
    parts.append((UNACCOUNTED, max(0.0, server.unaccounted_us)))
    for bar in _in_line(parts, 1, rpc.start_us):
        yield bar
        if bar.part.endswith(" compute"):
            yield from _inside_model(call, bar)


def _inside_model(call: CallLedger, compute: Bar) -> Iterator[Bar]:
    """The stages inside the one model of the fused plan; the rest is the way into its process and back."""
    if call.stages:
        hand_over = max(0.0, compute.us - sum(call.stages.values()))
        yield from _in_line([("hand-over", hand_over), *call.stages.items()], 2, compute.start_us)
