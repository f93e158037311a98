"""Training of the two towers: examples cut like the evaluation, the loss of ``window_loss``, early stopping."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from trireme_export.data.histories import Float32
from trireme_export.data.training_data import TrainingData
from trireme_export.models.features import fill_item_features
from trireme_export.models.shape import ModelShape
from trireme_export.models.two_tower import TwoTower
from trireme_export.training.examples import ExampleSource, clock_of, popularity_snapshots
from trireme_export.training.options import TrainingConfig
from trireme_export.training.validation import Slice, hits_of, list_metrics, top_candidates
from trireme_export.training.warm_start import item_factors, warm_item_vectors
from trireme_export.training.window_loss import sampling_share, window_loss

__all__ = ["Report", "TowerRun", "TowerTrainer", "evaluate_tower", "user_queries"]

MOMENT_VALUES = 1 << 27
"""Most numbers that are kept for popularity in the past: large catalogues get fewer moments."""
BLOCK = 1024
"""Users whose queries are computed at a time."""

CONTEXT_SCALE = 0.5
"""Of the values of a context at the start: ten times that of the user's categories. A training has few steps, and what depends on
the context has to be seen from the first on. On the validation of KuaiRand-Pure, the lists of all moments with a context are
better than with the start of the user's categories, by two seeds (`data: {context: [tab], validation: true}`, `trireme train`,
`trireme replay`)."""

Report = Callable[[str, int, int], None]
"""Called with (what, steps done, steps in all)."""


@dataclass
class TowerRun:
    """A trained tower, the steps it took, how good it was on the slice and a record per epoch."""

    model: TwoTower
    steps: int
    value: float = -1.0
    epochs: list[dict[str, Any]] = field(default_factory=list)


class TowerTrainer:
    """Builds and trains towers on one data set."""

    def __init__(self, data: TrainingData, shape: ModelShape, config: TrainingConfig) -> None:
        self.data, self.shape, self.config = data, shape, config
        tower = config.tower
        moments = min(tower.moments, max(2, MOMENT_VALUES // (data.catalogue_size * shape.popularity)))
        levels, self.latest = popularity_snapshots(data, tower.half_lives, moments)
        self.levels = torch.from_numpy(np.ascontiguousarray(levels.transpose(0, 2, 1)))
        self.share = sampling_share(data, tower.softmax_items)

    def start(self, end: float) -> TwoTower:
        """Returns an untrained tower that knows the past before the clock ``end``, from the configured seed."""
        torch.manual_seed(self.config.seed)
        tower = self.config.tower
        model = TwoTower(self.shape)
        fill_item_features(model.features, self.data)
        self._spread_contexts(model)
        self.set_popularity(model, end)
        past = clock_of(self.data) < end
        rng = np.random.default_rng(self.config.seed)
        if self.shape.factors:
            factors = item_factors(self.data, past, self.shape.factors, rng)
            for buffer, table in zip((model.read_factors, model.written_factors), factors, strict=True):
                buffer.copy_(torch.from_numpy(table * np.float32(tower.warm_scale)))
        if tower.warm_start:
            learned = self.shape.latent - self.shape.factors
            tables = warm_item_vectors(self.data, past, learned, tower.warm_window, rng)
            with torch.no_grad():
                for layer, table in zip((model.read, model.written), tables, strict=True):
                    layer.weight.mul_(0.1).add_(torch.from_numpy(table * np.float32(tower.warm_scale)))
        return model

    def _spread_contexts(self, model: TwoTower) -> None:
        """Draws the values of the context from ``CONTEXT_SCALE``, around an unknown one of zeros."""
        for table in list(model.user.categories.tables)[len(self.data.user_category_sizes) :]:
            assert isinstance(table, torch.nn.Embedding)
            torch.nn.init.normal_(table.weight, std=CONTEXT_SCALE)
            torch.nn.init.zeros_(table.weight[0])

    def set_popularity(self, model: TwoTower, end: float) -> None:
        """Puts the log popularity as of the clock ``end`` into the item vectors."""
        last = end >= 1.0 or len(self.levels) == 1
        moment = min(round(end * len(self.levels)), len(self.levels) - 1)
        model.popularity.copy_(torch.from_numpy(self.latest) if last else self.levels[moment].T)

    def fit(self, end: float, part: Slice, report: Report) -> TowerRun:
        """Trains on the past before ``end`` and keeps the weights of the epoch that was best on ``part``."""
        tower = self.config.tower
        run = TowerRun(self.start(end), 0)
        loop = _Loop(self, run.model, end)
        name = f"two-tower, {self.shape.factors} factors" if self.shape.factors else "two-tower"
        best, waited = {name: value.clone() for name, value in run.model.state_dict().items()}, 0
        total = tower.max_epochs * tower.epoch_steps
        for epoch in range(1, tower.max_epochs + 1):
            loss = loop.steps(tower.epoch_steps, lambda: report(name, loop.done, total))
            metrics = evaluate_tower(loop.average, self.data, part)
            value = metrics["ndcg@10"] + 0.25 * metrics["recall@200"]
            run.epochs.append({"epoch": epoch, "steps": loop.done, "loss": loss, **metrics})
            waited += 1
            if value > run.value:
                run.value, waited, run.steps = value, 0, loop.done
                for key, kept in loop.average.state_dict().items():
                    best[key].copy_(kept)
            if waited >= tower.patience:
                break
        report(name, total, total)
        run.model.load_state_dict(best)
        run.model.eval()
        return run

    def refit(self, steps: int, report: Report, name: str = "two-tower, all data") -> TwoTower:
        """Trains on all of the data for a known number of steps, from the same start."""
        model = self.start(1.0)
        loop = _Loop(self, model, 1.0)
        loop.steps(steps, lambda: report(name, loop.done, steps))
        return loop.average.eval()


class _Loop:
    """Adam with a short warm-up, and a running average of the weights.

    Where the softmax is sampled, a step changes only those rows of the embeddings that it reads. Their moments are moved only
    then, too, they do not decay, and the average has their newest values: all of that would be work on the whole catalogue.
    """

    def __init__(self, trainer: TowerTrainer, model: TwoTower, end: float) -> None:
        config = trainer.config.tower
        self.trainer, self.model, self.config = trainer, model, config
        tables = [] if trainer.share is None else [model.read.weight, model.written.weight]
        shared = {id(table): table for table in tables}
        self.average = copy.deepcopy(model, dict(shared))
        self.rng = np.random.default_rng(trainer.config.seed)
        self.source = ExampleSource(
            trainer.data, config.window, end, trainer.shape.history_length, config.targets, config.recency
        )
        dense = [parameter for parameter in model.parameters() if id(parameter) not in shared]
        self.optimizers: list[torch.optim.Optimizer] = [
            torch.optim.AdamW(dense, lr=config.learning_rate, weight_decay=config.weight_decay)
        ]
        if tables:
            self.optimizers.append(torch.optim.SparseAdam(tables, lr=config.learning_rate))
        self.done = 0

    def steps(self, count: int, report: Callable[[], None]) -> float:
        """Takes ``count`` steps and returns their mean loss."""
        self.model.train()
        losses = []
        for _ in range(count):
            batch = self.source.draw(self.config.batch_size, self.rng)
            trainer = self.trainer
            loss = window_loss(self.model, trainer.data, batch, trainer.levels, trainer.share, self.config, self.rng)
            self.model.zero_grad(set_to_none=True)
            loss.backward()
            self._step()
            losses.append(float(loss.detach()))
            report()
        self.average.eval()
        return float(np.mean(losses)) if losses else 0.0

    def _step(self) -> None:
        self.done += 1
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = self.config.learning_rate * min(1.0, self.done / 20)
            optimizer.step()
        decay = min(self.config.averaging, self.done / (self.done + 10))
        with torch.no_grad():
            for kept, new in zip(self.average.parameters(), self.model.parameters(), strict=True):
                if kept is not new:
                    kept.lerp_(new, 1 - decay)


def user_queries(model: TwoTower, data: TrainingData, part: Slice) -> tuple[Float32, Float32]:
    """Returns ``query`` float32 (V, dim) of a slice and ``item_vectors`` float32 (N, dim), without gradients."""
    model.eval()
    inputs = (part.history, *data.user_inputs(part.history, part.rows, part.context))
    with torch.inference_mode():
        table = model.read_table(model.features())
        parts = [
            model.user(table, *(torch.from_numpy(array[low : low + BLOCK]) for array in inputs)).numpy()
            for low in range(0, len(part.rows), BLOCK)
        ]
        vectors = model.item_vectors().numpy()
    return np.concatenate(parts) if parts else np.zeros((0, model.shape.dim), dtype=np.float32), vectors


def evaluate_tower(model: TwoTower, data: TrainingData, part: Slice) -> dict[str, float]:
    """Returns the metrics of exact retrieval on a slice."""
    query, vectors = user_queries(model, data, part)
    ids, _ = top_candidates(part, lambda index: query[index] @ vectors.T, 200)
    return list_metrics(part.relevant, hits_of(part.relevant, ids))
