"""Where the time of a request went, from the statistics that Triton keeps per composing model.

Triton adds up, per model, how long requests waited, how long their inputs were gathered, how long the model computed
and how long outputs were scattered, and for the entry how long requests took from end to end. The ledger is the
difference of two readings, divided by the number of requests: means, no percentiles.

In an ensemble the next stage begins when the one before has sent its outputs, while Triton still counts the end of that sending
as output. What is counted twice so is taken off the outputs of the stages before the last, and reported as ``overlap_us``.

A bundle's budget gives every model the sum of its stages' shares of the SLO on p50; what it computes, in the mean, is held
against that. Queues, inputs and outputs belong to the share of transport.

Since the start of the server, the stages have also answered the requests of their ``model_warmup``, which the entry
has not: ``warmup_requests`` says how many, and until they are few against ``requests``, watch for a while instead.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from trireme_client import TLS
from trireme_perf.ledger.reading import LedgerReader, Reading
from trireme_perf.ledger.report import ColdStart, Ledger, StagePercentiles, StageTime, ledger_between
from trireme_perf.ledger.statistics import Statistics, StatisticsReader, connect

__all__ = [
    "ColdStart",
    "Ledger",
    "LedgerReader",
    "Reading",
    "StagePercentiles",
    "StageTime",
    "Statistics",
    "StatisticsReader",
    "Watched",
    "connect",
    "follow_ledger",
    "ledger_between",
    "watch_ledger",
]


class Watched:
    """``result`` is there when the block of ``watch_ledger`` has ended."""

    result: Ledger


@contextmanager
def watch_ledger(url: str, model: str, tls: TLS | None = None) -> Iterator[Watched]:
    """The ledger of what the server answered during the block; ``tls`` as of ``StatisticsReader``.

    Raises:
        PerfError: no server, no such model, or no request was answered.
    """
    watched = Watched()
    with StatisticsReader(url, model, tls) as reader:
        before = reader.read()
        yield watched
        after = reader.read_after(before)
        watched.result = ledger_between(model, reader.stages, reader.budget, before, after)


def follow_ledger(reader: LedgerReader, seconds: float) -> Iterator[Ledger | None]:
    """The ledger of every ``seconds`` from now on, without end; None for a while in which no request was answered.

    Raises:
        PerfError: the server is gone.
    """
    before = reader.read()
    while True:
        time.sleep(seconds)
        after = reader.read()
        yield reader.ledger(before, after) if after.requests > before.requests else None
        before = after
