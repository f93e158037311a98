"""``trireme perf synthetic``, ``growth`` and ``memory``: what large catalogues cost, without training on any."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich import box
from rich.table import Table

from trireme_cli.output import Json, console, finish
from trireme_cli.perf import perf

if TYPE_CHECKING:
    from trireme_perf.limit.growth import Built, Point, Row
    from trireme_server import TritonServer

__all__ = ["growth", "memory", "synthetic"]

MIB = 2**20


@perf.command()
def synthetic(
    items: Annotated[int, typer.Option(help="Size of the catalogue.")] = 100_000,
    users: Annotated[int, typer.Option(help="Known users.")] = 100_000,
    history: Annotated[int, typer.Option(help="Newest items of a user that the models read.")] = 100,
    candidates: Annotated[int, typer.Option(help="Items that retrieval hands to ranking.")] = 200,
    seed: Annotated[int, typer.Option(help="Equal seeds give equal checkpoints.")] = 0,
    out: Annotated[Path, typer.Option(help="Where the checkpoint goes.")] = Path("build/synthetic-checkpoint"),
    as_json: Json = False,
) -> None:
    """Write a checkpoint of any size without training: for latency, memory and recall of the index; its lists mean nothing."""
    from trireme_perf.limit.synthetic_models import synthetic_checkpoint

    checkpoint = synthetic_checkpoint(items, users, history=history, candidates=candidates, seed=seed)
    checkpoint.save(out)
    result = {"checkpoint": str(out), **checkpoint.data}
    finish(result, as_json, f"{out}: {items:,} items, {users:,} users; trireme export --checkpoint {out}")


@perf.command()
def growth(
    axis: Annotated[
        list[str] | None, typer.Option(help="items, candidates, history or batch; may be repeated; default all.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Where to write CSV, JSON and the plot.")] = Path("build/growth"),
    quick: Annotated[bool, typer.Option("--quick", help="Small sizes: a first impression.")] = False,
    as_json: Json = False,
) -> None:
    """How µs per user and memory grow with items, candidates, history and users per RPC, on synthetic checkpoints."""
    from trireme_perf.limit.growth import FULL, QUICK, measure_growth, write_growth

    plan = QUICK if quick else FULL
    result = measure_growth(plan, list(dict.fromkeys(axis or plan.axes)), _build, _tell)
    write_growth(result, out)
    finish(result, as_json, *_growth_tables(result), f"plot, CSV and JSON in {out}")


@perf.command()
def memory(
    repository: Annotated[Path, typer.Argument(help="What `trireme export` wrote.")] = Path("build/model_repository"),
    as_json: Json = False,
) -> None:
    """What a server holds in memory, and what a second instance of every model adds."""
    from trireme_perf.memory import measure_instances

    result = measure_instances(repository, _serve)
    table = Table(title="PSS of the server's processes, MiB", title_justify="left")
    for column in ("plan", "artifacts", "1 instance", "2 instances", "extra", "extra, mapped artifacts", "ratio"):
        table.add_column(column, justify="left" if column == "plan" else "right")
    for plan, one in result["plans"].items():
        sizes = (
            one["artifact_bytes"],
            *(measured["pss"] for measured in one["instances"].values()),
            one["extra_pss"],
            one["extra_artifact_pss"],
        )
        table.add_row(plan, *(f"{size / MIB:.1f}" for size in sizes), f"{one['ratio']:.2f}")
    finish(result, as_json, table)


def _serve(repository: Path) -> AbstractContextManager[TritonServer]:
    from trireme_server import TritonServer

    return TritonServer(repository, grpc_port=0, http_port=0, metrics_port=0)


def _build(point: Point, users: int, folder: Path) -> Built:
    import tempfile

    import torch

    from trireme_export.exporters import export_funnel
    from trireme_perf.limit.growth import Built
    from trireme_perf.limit.synthetic_models import synthetic_checkpoint

    checkpoint = synthetic_checkpoint(point.items, users, history=point.history, candidates=point.candidates)
    with tempfile.TemporaryDirectory(prefix="trireme-export-") as scratch:
        export_funnel(checkpoint, Path(scratch))[0].save(folder)
    with torch.inference_mode():
        vectors = checkpoint.models.two_tower.item_vectors().numpy()
    tables = checkpoint.tables
    return Built(vectors, tables.user_ids, tables.seen_offsets, tables.seen_items)


def _tell(row: Row) -> None:
    sizes = ", ".join(f"{name} {value:,}" for name, value in vars(row.point).items())
    console.print(f"{sizes}: {row.us_per_user:.0f} µs per user, {row.memory['pss'] / MIB:.0f} MiB", markup=False)


def _growth_tables(result: dict[str, Any]) -> list[Table]:
    return [_growth_table(axis, part) for axis, part in result["axes"].items()]


def _growth_table(axis: str, part: dict[str, Any]) -> Table:
    title = f"{axis}: µs per user, one core; memory in MiB"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=0)
    stages = list(part["rows"][0]["stages"])
    for column in (axis, *stages, "all", "recall", "artifacts", "PSS"):
        table.add_column(column.replace("_", "_\n"), justify="right", no_wrap=True)
    for row in part["rows"]:
        figures = [*(row["stages"][stage] for stage in stages), row["us_per_user"]]
        sizes = [row["artifact_bytes"] / MIB, row["memory"]["pss"] / MIB]
        table.add_row(
            f"{row['point'][axis]:,}",
            *(f"{figure:.0f}" for figure in figures),
            f"{row['recall']:.4f}",
            *(f"{size:.0f}" for size in sizes),
        )
    names = [*stages, "us_per_user", None, "artifact_bytes", "pss"]
    powers = [part["exponents"][name] if name else None for name in names]
    table.add_row("x^", *("–" if power is None else f"{power:.2f}" for power in powers))
    return table
