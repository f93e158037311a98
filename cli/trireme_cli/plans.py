"""``trireme plans``: TensorRT plans of the graphs in a repository."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from trireme_cli.output import REPOSITORY, Json, allowed, console, finish

if TYPE_CHECKING:
    from trireme_server.plans import BuiltPlan

__all__ = ["plans"]

plans = typer.Typer(help="TensorRT plans of the graphs in a repository.", no_args_is_help=True)


@plans.callback()
def group() -> None:
    """Keeps ``build`` a command of its own, though it is the only one."""


@plans.command()
def build(
    repository: Annotated[Path, typer.Argument(help="What `trireme export --target gpu` wrote.")] = REPOSITORY,
    workspace_mib: Annotated[
        int | None,
        typer.Option(
            callback=allowed(1),
            help="Most GPU memory that a layer may use for itself, in MiB; default: TensorRT's own limit, which is all of it.",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Build the TensorRT plans that a repository needs on this machine.

    There is one for each TensorRT model of the served version and each compute capability of the visible GPUs. Plans that fit
    are kept. Run it where the server will run: a plan belongs to one version of TensorRT. It needs TensorRT's Python
    package or trtexec.
    """
    from trireme_server.plans import prepare_builds

    builds = prepare_builds(repository, workspace_mib=workspace_mib)
    done: list[BuiltPlan] = []
    columns = (SpinnerColumn(), TextColumn("{task.description}"), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("", total=len(builds))
        for each in builds:
            progress.update(task, description=f"{each.model.name} · compute capability {each.gpu.capability}")
            done.append(each.run())
            progress.advance(task)
    first = builds[0]
    result: dict[str, Any] = {
        "repository": str(repository),
        "bundle_id": first.origin.bundle_id,
        "tensorrt": first.origin.tensorrt,
        "builder": first.builder.name,
        "plans": [asdict(plan) for plan in done],
    }
    title = f"{repository} · bundle {first.origin.bundle_id} · TensorRT {first.origin.tensorrt} ({first.builder.name})"
    finish(result, as_json, _table(done, title))


def _table(done: list[BuiltPlan], title: str) -> Table:
    table = Table(title=title, title_justify="left")
    for column in ("model", "compute capability", "MB", ""):
        table.add_column(column, justify="right" if column == "MB" else "left")
    for plan in done:
        outcome = f"built in {plan.seconds:.1f} s" if plan.built else "up to date"
        table.add_row(plan.model, plan.compute_capability, f"{plan.bytes / 1e6:.1f}", outcome)
    return table
