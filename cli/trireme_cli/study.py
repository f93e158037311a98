"""``trireme evaluate --seeds``: several trainings for each split, and how far their figures spread."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from rich.table import Table

from trireme_cli.dataset import open_data
from trireme_cli.output import console

if TYPE_CHECKING:
    from trireme_export.config import PipelineConfig
    from trireme_export.study import SeedRun

__all__ = ["study", "study_tables"]

GROUPS = {
    "known": "known users",
    "anonymous": "the same users, by history alone",
    "held_out": "users kept out of training, by history alone",
}


def study(
    data: str, recipes: Sequence[PipelineConfig], seeds: int, baselines: bool, jobs: int, progress: bool
) -> dict[str, Any]:
    """Trains and evaluates ``seeds`` models of each recipe. The recipes differ in their split.

    Returns:
        ``{"data", "seeds", "holdout_users", "threads", "splits": {split: what ``summarise`` returns}}``.
    """
    from trireme_export.study import SeedRun, run_seeds, summarise, threads_of

    trained = [recipe.with_split(open_data(data, recipe).report.split_by) for recipe in recipes]
    threads = recipes[0].training.threads or threads_of(jobs)
    runs = [
        SeedRun(data, recipe.with_seed(seed), baselines, threads, progress and jobs == 1)
        for recipe in trained
        for seed in range(seeds)
    ]
    console.print(f"training {len(runs)} models, {jobs} at a time, threads of each: {threads}")
    measured = run_seeds(runs, jobs, _tell)
    splits = {
        str(recipe.data.split_by): summarise(measured[number * seeds : (number + 1) * seeds])
        for number, recipe in enumerate(trained)
    }
    return {
        "data": measured[0]["data"],
        "seeds": seeds,
        "holdout_users": recipes[0].data.holdout_users,
        "threads": threads,
        "splits": splits,
    }


def study_tables(result: dict[str, Any]) -> Iterator[Table | str]:
    """Yields a table of each group of users for each split, and what else is to be said about the split."""
    for split, part in result["splits"].items():
        for group, name in GROUPS.items():
            if group in part:
                yield _table(f"{result['data']} · split by {split} · {name}", part[group])
        yield f"a training took {min(part['seconds']):.0f} to {max(part['seconds']):.0f} s"
        yield from (f"{name} is left out: {reason}" for name, reason in part["left_out"].items())


def _tell(run: SeedRun, found: dict[str, Any]) -> None:
    metric, value = next(iter(found["known"]["offline"].items()))
    where = f"split by {run.config.data.split_by}, seed {run.config.training.seed}"
    console.print(f"{where}: {metric} {value:.4f} of known users, trained in {found['seconds']:.0f} s")


def _table(title: str, group: dict[str, Any]) -> Table:
    few, many = min(group["users"]), max(group["users"])
    table = Table(title=f"{title} · {few if few == many else f'{few} to {many}'} users", title_justify="left")
    kinds = {kind: figures for kind, figures in group.items() if kind != "users"}
    table.add_column("")
    for metric in kinds["offline"]:
        table.add_column(metric, justify="right")
    for kind, figures in kinds.items():
        table.add_row(kind, *(_spread(figure) for figure in figures.values()))
    return table


def _spread(figure: dict[str, Any]) -> str:
    mean = f"{figure['mean']:.4f}"
    return mean if figure["std"] is None else f"{mean} ± {figure['std']:.4f}"
