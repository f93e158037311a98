"""Both variants up at once, asked for the same lists, and then the same traffic in turn."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trireme_perf.ab.answers import compare_answers
from trireme_perf.ab.blocks import Block, Course, Load, Side, in_turn
from trireme_perf.ab.serving import Opened, open_variant
from trireme_perf.ab.variants import Variant
from trireme_perf.errors import PerfError
from trireme_perf.host.place import Place, own_place
from trireme_perf.ledger.statistics import StatisticsReader
from trireme_perf.load.arrivals import poisson_arrivals
from trireme_perf.load.preparation import answers_to, warm_up
from trireme_perf.load.probe import no_collection, open_loop, run_precisely
from trireme_perf.load.users import UserMix
from trireme_perf.stats.bootstrap import FEWEST_ROUNDS, METRICS
from trireme_perf.stats.percentiles import FEWEST_FOR_P99, percentile

__all__ = ["CPU_METRICS", "Judge", "Measured", "Settings", "measure"]

CHECKED = 256  # users whose answers are compared
CHECKED_AT_ONCE = 8
CAPACITY, CAPACITY_CONCURRENCY = 400, 4
LOAD = 0.4  # of the slower variant's capacity, unless a rate is given: some have to queue, and a hiccup passes
DRAIN_S = 10.0  # a machine that stands still for seconds is a latency, and no reason to give up
TURN_S = 0.1  # of a closed loop
SETTLE_S = 1.2  # spans and metrics are sent in batches, so long after their calls at most
SEED = 20060508

#: What may decide beside the latencies: CPU time per user of the server's processes, and of the client's.
CPU_METRICS = ("server_cpu", "client_cpu")


@dataclass(frozen=True)
class Judge:
    """data: name of the labels. ndcg: NDCG@10 of a model's lists by user, float64 (users,), given the server's address and
    the model's name."""

    data: str
    ndcg: Callable[[str, str], NDArray[np.float64]]


@dataclass(frozen=True)
class Settings:
    """Traffic and what is looked at.

    ``rounds`` of ``seconds`` on each variant: open-loop traffic at ``rate`` users/s, None for 40 % of what the slower one can;
    or with a ``concurrency`` a closed loop of so many callers. ``metric`` decides; the first ``k`` items of answers are
    compared. All that ``repeats`` times, one after another, on the same servers.
    """

    rounds: int = 20
    seconds: float = 1.0
    rate: float | None = None
    metric: str = "p50"
    k: int = 10
    repeats: int = 1
    concurrency: int | None = None

    def __post_init__(self) -> None:
        if self.rounds < FEWEST_ROUNDS:
            raise PerfError(
                f"rounds is {self.rounds}, must be at least {FEWEST_ROUNDS}: fewer cannot be told from chance"
            )
        for name, value in (("rate", self.rate), ("seconds", self.seconds)):
            if value is not None and not 0 < value < float("inf"):
                raise PerfError(f"{name} is {value:g}, must be more than 0")
        if self.rate is not None and self.concurrency is not None:
            raise PerfError(f"rate is {self.rate:g} and concurrency {self.concurrency}: only one of them may be given")
        if self.metric not in (*METRICS, *CPU_METRICS):
            raise PerfError(f"metric is {self.metric!r}, allowed: {', '.join((*METRICS, *CPU_METRICS))}")


@dataclass(frozen=True)
class Measured:
    """rate: users/s that were offered; in a closed loop, of the slower variant. answers: of ``compare_answers``. ndcg: by
    user, of both; None without labels. users_per_rpc: of both, in a closed loop before the rounds."""

    rate: float
    rounds: list[tuple[Block, Block]]
    answers: dict[str, Any]
    list_lengths: tuple[int, int]
    ndcg: tuple[NDArray[np.float64], NDArray[np.float64]] | None
    users_per_rpc: tuple[float, float] = (1.0, 1.0)


def measure(
    a: Variant,
    b: Variant,
    users: NDArray[np.int64],
    settings: Settings,
    judge: Judge | None,
    tell: Callable[[str], None],
) -> Measured:
    """Runs the experiment. Servers that it starts share one core, of which one of them at a time has use; the load generator,
    which is this process, has another.

    Args:
        users: int64 (users,), who ask.
        judge: where accuracy is to be measured too.
        tell: is given a line about every step.

    Raises:
        PerfError: fewer than two cores, a server did not start, a request failed, or the metric needs more requests.
    """
    with own_place() as place:
        return run_precisely(_Experiment((a, b), users, settings, judge, tell, place).run())


class _Experiment:
    def __init__(
        self,
        variants: tuple[Variant, Variant],
        user_ids: NDArray[np.int64],
        settings: Settings,
        judge: Judge | None,
        tell: Callable[[str], None],
        place: Place,
    ) -> None:
        self._variants, self._settings, self._judge, self._tell = variants, settings, judge, tell
        self._place = place
        self._checked = min(CHECKED, len(user_ids))
        self._rng = np.random.default_rng(SEED)
        self._users = UserMix(user_ids, self._rng)

    async def run(self) -> Measured:
        async with AsyncExitStack() as stack:
            first, second = [await self._open(stack, name, one) for name, one in zip("AB", self._variants, strict=True)]
            ndcg = self._ndcg(first, second)
            sides = (first.side, second.side)
            answers = await self._answers(sides)
            for side in sides:
                await warm_up(side.ask, self._users)
            capacities, users_per_rpc = zip(
                *[await self._capacity(one, i) for i, one in enumerate((first, second))], strict=True
            )
            rate = self._settings.rate or min(capacities) * (1.0 if self._settings.concurrency else LOAD)
            rounds = await self._rounds(sides, rate)
        return Measured(rate, rounds, answers, (first.list_length, second.list_length), ndcg, users_per_rpc)

    async def _open(self, stack: AsyncExitStack, name: str, variant: Variant) -> Opened:
        self._tell(f"{name}: {variant.text}")
        return await open_variant(stack, name, variant, self._place)

    def _ndcg(self, *opened: Opened) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
        if self._judge is None:
            return None
        self._tell(f"{self._judge.data}: the lists of A and B")
        a, b = (self._judge.ndcg(one.url, variant.model) for one, variant in zip(opened, self._variants, strict=True))
        return a, b

    async def _answers(self, sides: tuple[Side, Side]) -> dict[str, Any]:
        chosen = self._users.take(self._checked)
        a, b = [await answers_to(side.ask, chosen, CHECKED_AT_ONCE) for side in sides]
        return compare_answers([a[user] for user in chosen], [b[user] for user in chosen], self._settings.k)

    async def _capacity(self, opened: Opened, which: int) -> tuple[float, float]:
        """Users/s in a closed loop, and how many of them share an RPC."""
        concurrency = self._settings.concurrency or CAPACITY_CONCURRENCY
        model = self._variants[which].model
        with StatisticsReader(opened.url, model) as reader:
            before = reader.read()
            with no_collection():
                crowd = await opened.side.closed_loop(self._users.take(CAPACITY), concurrency)
            after = reader.read_after(before)
        users, rpcs = (after[model][key] - before[model].get(key, 0) for key in ("users", "requests"))
        return crowd.answered / crowd.wall_s, users / max(1, rpcs)

    async def _rounds(self, sides: tuple[Side, Side], rate: float) -> list[tuple[Block, Block]]:
        settings = self._settings
        if settings.metric == "p99" and (requests := rate * settings.seconds * settings.rounds) < FEWEST_FOR_P99:
            raise PerfError(
                f"metric is 'p99' and {requests:.0f} requests are planned, at least {FEWEST_FOR_P99} are needed: "
                "more rounds, or longer ones"
            )
        number = settings.rounds * settings.repeats
        load = f"{settings.concurrency} at once" if settings.concurrency else f"{rate:,.0f} users/s"
        self._tell(f"{load}, {number} rounds of 2 × {settings.seconds:g} s")
        draw = partial(self._closed, rate) if settings.concurrency else partial(self._open_loop, rate)
        return await in_turn(sides, number, self._rng, draw, partial(self._tell_round, number), self._course())

    def _course(self) -> Course:
        settle = SETTLE_S if self._settings.metric in CPU_METRICS else 0.0
        if self._settings.concurrency:
            return Course(max(1, round(self._settings.seconds / TURN_S)), 0.0, settle)
        return Course(settle_s=settle)

    def _open_loop(self, rate: float) -> Load:
        """Users who come at random moments; the same for all who are given this load."""
        arrivals = poisson_arrivals(rate, self._settings.seconds, self._rng)
        chosen = self._users.take(len(arrivals))
        return lambda side: open_loop(side.ask, chosen, arrivals, float("inf"), DRAIN_S)

    def _closed(self, rate: float) -> Load:
        """As many users as the slower side answers in a turn."""
        concurrency = self._settings.concurrency or 1
        chosen = self._users.take(max(concurrency, round(rate * min(TURN_S, self._settings.seconds))))
        return lambda side: side.closed_loop(chosen, concurrency)

    def _tell_round(self, rounds: int, number: int, blocks: tuple[Block, Block]) -> None:
        shown = (f"{name} {_round_figure(block)}" for name, block in zip("AB", blocks, strict=True))
        self._tell(f"  round {number + 1} of {rounds}: {', '.join(shown)}")


def _round_figure(block: Block) -> str:
    cpu = "" if block.server_us is None else f", {block.server_us:.0f} µs of server CPU"
    return f"p50 {percentile(block.seconds, 50) * 1e3:.2f} ms{cpu}"
