"""Whether a goodput holds: fresh probes at 95 % of what goodput.json says, each on a fresh server.

``python -m trireme_perf.goodput.recheck build/goodput/goodput.json build/model_repository fused``

Machines have faster and slower phases. So the limit is measured before every probe, and a probe counts only if it is within 10 %
of that beside the search.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from trireme_export.perf_input import read_perf_input
from trireme_perf.errors import PerfError
from trireme_perf.goodput.contestants import Contestant
from trireme_perf.goodput.probe import Probe
from trireme_perf.goodput.selection import select
from trireme_perf.goodput.turn import Load, take_probe
from trireme_perf.host.place import own_place
from trireme_perf.host.usage import pinned
from trireme_perf.limit.in_process import measure_limit
from trireme_perf.load.preparation import warm_up
from trireme_perf.load.probe import run_precisely
from trireme_perf.load.users import UserMix

__all__ = ["Try", "verdict"]

SHARE = 0.95  # of the goodput
SECONDS = 10.0
WITHIN = 0.1  # by which the limit may differ from that beside the search
SEED = 19840125


class Try(NamedTuple):
    """One probe. speed: the limit before it over that beside the search, both in users/s."""

    speed: float
    probe: Probe

    @property
    def counts(self) -> bool:
        return abs(self.speed - 1) <= WITHIN and not self.probe.disturbed and not self.probe.generator_late


def verdict(tries: Sequence[Try]) -> str:
    """Returns how many of the tries that count met the SLO."""
    counted = [one for one in tries if one.counts]
    met = sum(one.probe.meets_slo for one in counted)
    return f"{met} of {len(counted)} met the SLO; {len(tries) - len(counted)} of {len(tries)} do not count"


def recheck(document: Mapping[str, Any], repository: Path, name: str, count: int) -> Iterator[Try]:
    """Yields the tries.

    Raises:
        PerfError: the document has no goodput of this contestant, or it cannot run here.
    """
    goodput = document["contestants"].get(name, {}).get("goodput")
    if not goodput:
        raise PerfError(
            f"no goodput of {name!r}; allowed: {', '.join(document['contestants'])}, with a goodput above 0"
        )
    expected = statistics.median(limit["users_per_s"] for limit in document["limits"][name])
    user_ids = read_perf_input(repository)
    with own_place() as place:
        contestant = _as_measured(select(repository, place, [name]).contestants[0], document)
        for number in range(count):
            with pinned(place.core):
                limit = measure_limit(repository, rounds=3, seed=[SEED, number])
            rng = np.random.default_rng([SEED, number])
            load = Load(SECONDS, document["slo_ms"] / 1e3, UserMix(user_ids, rng), rng)
            yield Try(limit["users_per_s"] / expected, run_precisely(_probe(contestant, load, SHARE * goodput)))


def _as_measured(contestant: Contestant, document: Mapping[str, Any]) -> Contestant:
    """Returns the alternative that the document says was chosen."""
    chosen = [row["settings"] for row in document["tuning"].get(contestant.name, []) if row["chosen"]]
    return next((one for one in contestant.alternatives if one.settings in chosen), contestant)


async def _probe(contestant: Contestant, load: Load, rate: float) -> Probe:
    async with contestant.open() as running:
        await warm_up(running.connection.ask, load.users)
        return await take_probe(running, load, rate)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("document", type=Path, help="goodput.json")
    parser.add_argument("repository", type=Path, help="the repository that it was measured with")
    parser.add_argument("contestant", help="such as fused")
    parser.add_argument("--tries", type=int, default=10, help="default 10")
    given = parser.parse_args()
    document = json.loads(given.document.read_text())
    tries = []
    for one in recheck(document, given.repository, given.contestant, given.tries):
        tries.append(one)
        p99 = "aborted" if one.probe.aborted else f"p99 {one.probe.p99_ms:.2f} ms"
        note = "" if one.counts else ", does not count"
        print(f"{one.probe.offered:,.0f} users/s: {p99}, limit {one.speed:.2f} of the search's{note}", flush=True)  # noqa: T201
    print(verdict(tries))  # noqa: T201


if __name__ == "__main__":
    main()
