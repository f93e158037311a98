"""``trireme perf memory``"""

from __future__ import annotations

from trireme_cli.output import REPOSITORY, Json, Repository, finish
from trireme_cli.perf.tables import MIB, figures, number

__all__ = ["memory"]


def memory(repository: Repository = REPOSITORY, as_json: Json = False) -> None:
    """Measure what a server holds in memory, and what a second instance of every model adds."""
    from trireme_perf.memory import measure_instances

    result = measure_instances(repository)
    columns = ("artifacts", "1 instance", "2 instances", "extra", "extra, mapped artifacts", "ratio")
    table = figures("PSS of the server's processes, MiB", columns)
    for plan, one in result["plans"].items():
        pss = (measured["pss"] for measured in one["instances"].values())
        sizes = (one["artifact_bytes"], *pss, one["extra_pss"], one["extra_artifact_pss"])
        table.add_row(plan, *(number(size / MIB, 1) for size in sizes), number(one["ratio"], 2))
    finish(result, as_json, table)
