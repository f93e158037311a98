"""Trains both models in one call."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from trireme_export.data.training_data import TrainingData
from trireme_export.errors import TrainingError
from trireme_export.models.shape import ModelShape
from trireme_export.models.trained import TrainedModels
from trireme_export.training.options import TrainingConfig
from trireme_export.training.ranker import RankerTrainer, draw_lists
from trireme_export.training.rehearsal import rehearse
from trireme_export.training.two_tower import Report, TowerRun, TowerTrainer
from trireme_export.training.validation import Slice, cut_slice

logger = logging.getLogger(__name__)


def train(data: TrainingData, config: TrainingConfig | None = None, progress: bool = True) -> TrainedModels:
    """Trains both models on ``data``; on one thread, the same seed on the same machine gives the same models.

    A first tower learns from the past before a cut; the slice after it chooses the steps, whether a part of the vectors are
    factors, and teaches the ranker on that tower's candidates. A second tower then learns from all data, and is served; a
    rehearsal of this change judges the ranker. ``progress`` shows bars on the terminal.

    Raises:
        TrainingError: the data is too small to hold out a slice.
    """
    config = config or TrainingConfig()
    if config.threads:
        torch.set_num_threads(config.threads)
    began = time.monotonic()
    cut = 1.0 - config.validation
    part = cut_slice(data, cut, config.history_length, config.ranker.max_users, np.random.default_rng(config.seed))
    if len(part.rows) == 0:
        raise TrainingError(
            f"no user has positives both before and in the last {config.validation:.0%} of the data: more data is needed"
        )
    if not part.late.nnz:
        raise TrainingError(
            f"no user has positives that are new to them in the later half of the last {config.validation:.0%} of the data: "
            f"training.validation is {config.validation:g}, allowed: above 0, below 0.5; a larger one or more data is needed"
        )
    with _bars(progress) as report:
        towers, run = _fit_towers(data, config, cut, part, report)
        tower_seconds = time.monotonic() - began
        rankers = RankerTrainer(data, towers.shape, config)
        lists = draw_lists(run.model, data, part, config.ranker.candidates)
        ranker, record = rankers.fit(run.model, lists, cut, report)
        tower = run.model
        if config.refit > 0:
            steps = max(1, round(run.steps * config.refit))
            record = rehearse(rankers, run.model, lists, cut, steps, record, report)
            tower = towers.refit(steps, report)
            rankers.tables(ranker, tower, 1.0, ranker.vectors.numpy().copy())
        ranker.core.blend.fill_(record["blend"])
    summary: dict[str, Any] = {
        "seed": config.seed,
        "validation_users": len(part.rows),
        "two_tower": {
            "factors": towers.shape.factors,
            "epochs": run.epochs,
            "chosen_steps": run.steps,
            "seconds": round(tower_seconds, 2),
        },
        "ranker": record,
        "seconds": round(time.monotonic() - began, 2),
        "warnings": _warnings(record),
    }
    return TrainedModels(towers.shape, tower.eval(), ranker.eval(), summary)


def _fit_towers(
    data: TrainingData, config: TrainingConfig, cut: float, part: Slice, report: Report
) -> tuple[TowerTrainer, TowerRun]:
    """Returns the better on the slice of a tower with factors and one without; only the latter where they are configured away.

    Factors help where users have long histories. Where they are short, there is little to factorise but noise.
    """
    plain = shape_of(data, config)
    shapes = [replace(plain, factors=round(config.tower.factors * plain.latent)), plain]
    towers = [TowerTrainer(data, shape, config) for shape in dict.fromkeys(shapes)]
    runs = [tower.fit(cut, part, report) for tower in towers]
    return max(zip(towers, runs, strict=True), key=lambda pair: pair[1].value)


def shape_of(data: TrainingData, config: TrainingConfig) -> ModelShape:
    """Returns the sizes that the data and the configuration fix, without factors."""
    assert data.item_number is not None
    tower, ranker = config.tower, config.ranker
    return ModelShape(
        catalogue_size=data.catalogue_size,
        history_length=config.history_length,
        user_category_sizes=data.category_sizes,
        user_numbers=data.user_number.shape[1] + 1,
        item_category_sizes=data.item_category_sizes,
        item_numbers=data.item_number.shape[1],
        item_list_sizes=tuple(column.size for column in data.item_lists),
        item_list_lengths=tuple(int(np.diff(column.offsets).max(initial=0)) for column in data.item_lists),
        popularity=len(tower.half_lives) + 1 if data.shared_clock else 1,
        dim=tower.dim,
        heads=tower.heads,
        feature_dim=tower.feature_dim,
        hidden=tower.hidden,
        dropout=tower.dropout,
        rank_dim=ranker.dim,
        rank_hidden=ranker.hidden,
        rank_history=ranker.history,
        rank_heads=ranker.heads,
    )


def _warnings(record: dict[str, Any]) -> list[str]:
    if record["beats_retrieval"]:
        return []
    retrieval = record.get("served", record)["retrieval"]
    text = (
        "the ranker did not beat the retrieval order on users it was not trained on "
        f"(NDCG@10 {retrieval['ndcg@10']:.4f}): it is switched off and keeps the retrieval order"
    )
    logger.warning(text)
    return [text]


@contextmanager
def _bars(shown: bool) -> Iterator[Report]:
    columns = (TextColumn("{task.description:>20}"), BarColumn(), TextColumn("{task.completed}/{task.total}"))
    with Progress(*columns, TimeElapsedColumn(), disable=not shown) as bars:
        tasks: dict[str, Any] = {}

        def report(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what, total=total)
            bars.update(tasks[what], completed=done)

        yield report
