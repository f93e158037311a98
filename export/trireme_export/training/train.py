"""Trains both models in one call."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from trireme_export.data.training_data import TrainingData
from trireme_export.errors import TrainingError
from trireme_export.models.shape import ModelShape
from trireme_export.models.trained import TrainedModels
from trireme_export.training.options import TrainingConfig
from trireme_export.training.ranker import RankerTrainer
from trireme_export.training.two_tower import Report, TowerTrainer
from trireme_export.training.validation import cut_slice

logger = logging.getLogger(__name__)


def train(data: TrainingData, config: TrainingConfig | None = None, progress: bool = True) -> TrainedModels:
    """Trains both models on ``data``; on one thread, the same seed on the same machine gives the same models.

    A first tower learns from the past before a cut; the slice after it chooses the steps and teaches the ranker on that
    tower's candidates. A second tower then learns from all data. ``progress`` shows bars on the terminal.

    Raises:
        TrainingError: the data is too small to hold out a slice.
    """
    config = config or TrainingConfig()
    shape = shape_of(data, config)
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
    towers, rankers = TowerTrainer(data, shape, config), RankerTrainer(data, shape, config)
    with _bars(progress) as report:
        run = towers.fit(cut, part, report)
        tower_seconds = time.monotonic() - began
        ranker, record = rankers.fit(run.model, part, cut, report)
        tower = run.model
        if config.refit > 0:
            tower = towers.refit(max(1, round(run.steps * config.refit)), report)
            rankers.tables(ranker, tower, 1.0, ranker.vectors.numpy().copy())
    summary: dict[str, Any] = {
        "seed": config.seed,
        "validation_users": len(part.rows),
        "two_tower": {"epochs": run.epochs, "chosen_steps": run.steps, "seconds": round(tower_seconds, 2)},
        "ranker": record,
        "seconds": round(time.monotonic() - began, 2),
        "warnings": _warnings(record),
    }
    return TrainedModels(shape, tower.eval(), ranker.eval(), summary)


def shape_of(data: TrainingData, config: TrainingConfig) -> ModelShape:
    """Returns the sizes that the data and the configuration fix."""
    assert data.item_number is not None
    tower, ranker = config.tower, config.ranker
    return ModelShape(
        catalogue_size=data.catalogue_size,
        history_length=config.history_length,
        user_category_sizes=data.user_category_sizes,
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
    text = (
        "the ranker did not beat the retrieval order on users it was not trained on "
        f"(NDCG@10 {record['retrieval']['ndcg@10']:.4f}): it is switched off and keeps the retrieval order"
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
