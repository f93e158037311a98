"""How far figures spread: several trainings of one recipe, each with a seed of its own, on one or more splits.

A seed draws the users who are held out, too, so its baselines are fitted on what is left to its own training.
"""

from __future__ import annotations

import multiprocessing
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from typing import Any

from threadpoolctl import threadpool_limits

from trireme_export.checkpoint import Checkpoint
from trireme_export.config import PipelineConfig
from trireme_export.data import Dataset, EvaluationSet, load_dataset
from trireme_export.errors import ExportError
from trireme_export.evaluation import evaluate_lists, evaluate_popularity
from trireme_export.evaluation.baselines import Baselines, evaluate_baselines, fit_baselines
from trireme_export.evaluation.funnel import offline_lists
from trireme_export.pipeline import train_checkpoint
from trireme_runtime.cpu import usable_cpus

__all__ = ["GROUPS", "SeedRun", "measure_seed", "run_seeds", "summarise", "threads_of", "user_groups"]

#: Known users; the same ones asked for as unknown users; users who were held out of the training.
GROUPS = ("known", "anonymous", "held_out")

Figures = dict[str, float]


@dataclass(frozen=True)
class SeedRun:
    """One training of a study, and what is measured of it."""

    data: str
    """Directory, or ``synthetic``."""
    config: PipelineConfig
    """Its split and its seeds."""
    baselines: bool
    threads: int
    progress: bool
    """Whether bars are shown."""


def run_seeds(
    runs: Sequence[SeedRun], jobs: int, done: Callable[[SeedRun, dict[str, Any]], None]
) -> list[dict[str, Any]]:
    """Returns what ``measure_seed`` measured, in the order of ``runs``, from up to ``jobs`` processes at a time.

    ``done`` is called with each run as it ends, and what was measured of it.

    Raises:
        DataError, ExportError: the first that a run raised; runs that have not begun by then are not made.
    """
    if jobs == 1:
        found = []
        for run in runs:
            found.append(measure_seed(run))
            done(run, found[-1])
        return found
    with ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        futures = {pool.submit(measure_seed, run): run for run in runs}
        try:
            for future in as_completed(futures):
                done(futures[future], future.result())
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
        return [future.result() for future in futures]


def threads_of(jobs: int) -> int:
    """Returns how many threads each of ``jobs`` trainings that run side by side has."""
    return max(1, usable_cpus() // jobs)


def measure_seed(run: SeedRun) -> dict[str, Any]:
    """Trains, and evaluates offline every group of users there is.

    Returns:
        ``{"data", "seconds", "left_out", "settings", group: {"users", "offline": {metric: value}, "popularity", …}}``;
        the seconds are those of the training.

    Raises:
        DataError: the data cannot be read.
        ExportError: it cannot be trained on, or a group has no user to evaluate.
    """
    training = run.config.training.model_copy(update={"threads": run.threads})
    config = run.config.model_copy(update={"training": training})
    with threadpool_limits(run.threads):
        dataset = load_dataset(run.data, config.data)
        start = time.monotonic()
        checkpoint = train_checkpoint(dataset, config, progress=run.progress)
        seconds = time.monotonic() - start
        baselines = fit_baselines(dataset) if run.baselines else None
        groups = _measure_groups(checkpoint, dataset, baselines)
    return {
        "data": dataset.name,
        "seconds": round(seconds, 2),
        "left_out": baselines.left_out if baselines else {},
        "settings": {name: dict(one.settings) for name, one in baselines.fitted.items()} if baselines else {},
        **groups,
    }


def user_groups(dataset: Dataset) -> dict[str, EvaluationSet]:
    """Returns the groups of users there are, by name.

    Raises:
        ExportError: a group has no user to evaluate.
    """
    groups = {"known": dataset.test, "anonymous": dataset.test.anonymous()}
    if dataset.holdout is not None:
        groups["held_out"] = dataset.holdout
    for name, users in groups.items():
        if not users.n_users:
            raise ExportError(
                f"{dataset.name}: no user of the group {name} has both training history and test items new to them"
            )
    return groups


def _measure_groups(checkpoint: Checkpoint, dataset: Dataset, baselines: Baselines | None) -> dict[str, Any]:
    serving = checkpoint.config.serving
    longest = serving.list_length
    found: dict[str, Any] = {}
    for name, users in user_groups(dataset).items():
        lists = offline_lists(checkpoint.models, checkpoint.tables, users, serving.candidates, longest)
        figures = {"users": users.n_users, "offline": evaluate_lists(lists, users, longest)}
        if name == "anonymous":  # popularity and baselines know nobody by name
            found[name] = {**found["known"], **figures}
            continue
        figures["popularity"] = evaluate_popularity(dataset.item_popularity, users, longest)
        found[name] = {**figures, **(evaluate_baselines(baselines, users, longest) if baselines else {})}
    return found


def summarise(measured: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Returns the spread of every figure over the seeds of one split.

    Args:
        measured: what ``measure_seed`` returned for each seed.

    Returns:
        ``{"seconds": [s], "left_out": {name: reason}, "settings": {name: [settings]}, group: {"users": [n], kind:
        {metric: {"mean", "std", "values"}}}}``, with lists over seeds. A baseline that some seed left out has no figures.
    """
    left_out = {name: reason for one in measured for name, reason in one["left_out"].items()}
    names = [name for name in measured[0]["settings"] if name not in left_out]
    return {
        "seconds": [one["seconds"] for one in measured],
        "left_out": left_out,
        "settings": {name: [one["settings"][name] for one in measured] for name in names},
        **{group: _group([one[group] for one in measured], left_out) for group in GROUPS if group in measured[0]},
    }


def _group(figures: Sequence[Mapping[str, Any]], left_out: Iterable[str]) -> dict[str, Any]:
    kinds = [kind for kind in figures[0] if kind != "users" and kind not in left_out]
    return {
        "users": [one["users"] for one in figures],
        **{kind: dict(_spreads([one[kind] for one in figures])) for kind in kinds},
    }


def _spreads(figures: Sequence[Figures]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields each metric with its mean and its standard deviation, that of a sample; one value has none."""
    for metric in figures[0]:
        values = [one[metric] for one in figures]
        std = statistics.stdev(values) if len(values) > 1 else None
        yield metric, {"mean": statistics.fmean(values), "std": std, "values": values}
