"""Training of the two towers: examples cut like the evaluation, softmax over the catalogue, early stopping.

The loss is the multinomial likelihood of the items of a window after a cut, given the history before it. Up to
``softmax_items`` items the softmax is exact; larger catalogues share a sample per step with logQ correction (Yi et al.,
"Sampling-bias-corrected neural modeling", RecSys 2019). Popularity enters as it was known at the cut, through columns of the
item vector that the query weighs: old examples teach what is personal, the newest popularity is what is served.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from trireme_export.data.histories import Float32
from trireme_export.data.training_data import TrainingData
from trireme_export.models.features import fill_item_features
from trireme_export.models.shape import ModelShape
from trireme_export.models.two_tower import TwoTower
from trireme_export.training.examples import Batch, ExampleSource, clock_of, popularity_snapshots
from trireme_export.training.options import TrainingConfig
from trireme_export.training.validation import Slice, hits_of, list_metrics, top_candidates
from trireme_export.training.warm_start import warm_item_vectors

MOMENT_VALUES = 1 << 27
"""At most so many numbers are kept for popularity in the past: large catalogues get fewer moments."""

Report = Callable[[str, int, int], None]
"""Called with (what, steps done, steps in all)."""


@dataclass
class TowerRun:
    """A trained tower, the steps it took and a record per epoch."""

    model: TwoTower
    steps: int
    epochs: list[dict[str, Any]] = field(default_factory=list)


class TowerTrainer:
    """Builds and trains towers on one data set."""

    def __init__(self, data: TrainingData, shape: ModelShape, config: TrainingConfig) -> None:
        self.data, self.shape, self.config = data, shape, config
        tower = config.tower
        moments = min(tower.moments, max(2, MOMENT_VALUES // (data.catalogue_size * shape.popularity)))
        levels, self.latest = popularity_snapshots(data, tower.half_lives, moments)
        self.levels = torch.from_numpy(np.ascontiguousarray(levels.transpose(0, 2, 1)))

    def start(self, end: float) -> TwoTower:
        """An untrained tower that knows the past before the clock ``end``, from the configured seed."""
        torch.manual_seed(self.config.seed)
        tower = self.config.tower
        model = TwoTower(self.shape)
        fill_item_features(model.features, self.data)
        self.set_popularity(model, end)
        if tower.warm_start:
            past = clock_of(self.data) < end
            rng = np.random.default_rng(self.config.seed)
            tables = warm_item_vectors(self.data, past, self.shape.latent, tower.warm_window, rng)
            with torch.no_grad():
                for layer, table in zip((model.read, model.written), tables, strict=True):
                    layer.weight.mul_(0.1).add_(torch.from_numpy(table * np.float32(tower.warm_scale)))
        return model

    def set_popularity(self, model: TwoTower, end: float) -> None:
        """Put the log popularity as of the clock ``end`` into the item vectors."""
        last = end >= 1.0 or len(self.levels) == 1
        moment = min(round(end * len(self.levels)), len(self.levels) - 1)
        model.popularity.copy_(torch.from_numpy(self.latest) if last else self.levels[moment].T)

    def fit(self, end: float, part: Slice, report: Report) -> TowerRun:
        """Train on the past before ``end``; keep the weights of the epoch that was best on ``part``."""
        tower = self.config.tower
        run = TowerRun(self.start(end), 0)
        loop = _Loop(self, run.model, end)
        best, best_value, waited = copy.deepcopy(run.model.state_dict()), -1.0, 0
        total = tower.max_epochs * tower.epoch_steps
        for epoch in range(1, tower.max_epochs + 1):
            loss = loop.steps(tower.epoch_steps, lambda: report("two-tower", loop.done, total))
            metrics = evaluate_tower(loop.average, self.data, part)
            value = metrics["ndcg@10"] + 0.25 * metrics["recall@200"]
            run.epochs.append({"epoch": epoch, "steps": loop.done, "loss": loss, **metrics})
            waited += 1
            if value > best_value:
                best, best_value, waited, run.steps = (
                    copy.deepcopy(loop.average.state_dict()),
                    value,
                    0,
                    loop.done,
                )
            if waited >= tower.patience:
                break
        report("two-tower", total, total)
        run.model.load_state_dict(best)
        run.model.eval()
        return run

    def refit(self, steps: int, report: Report) -> TwoTower:
        """Train on all of the data for a known number of steps, from the same start."""
        model = self.start(1.0)
        loop = _Loop(self, model, 1.0)
        loop.steps(steps, lambda: report("two-tower, all data", loop.done, steps))
        return loop.average.eval()


class _Loop:
    """Adam with a short warm-up, and a running average of the weights."""

    def __init__(self, trainer: TowerTrainer, model: TwoTower, end: float) -> None:
        config = trainer.config.tower
        self.trainer, self.model, self.config = trainer, model, config
        self.average = copy.deepcopy(model)
        self.rng = np.random.default_rng(trainer.config.seed)
        self.source = ExampleSource(
            trainer.data, config.window, end, trainer.shape.history_length, config.targets, config.recency
        )
        parameters = model.parameters()
        self.optimizer = torch.optim.AdamW(parameters, lr=config.learning_rate, weight_decay=config.weight_decay)
        self.done = 0

    def steps(self, count: int, report: Callable[[], None]) -> float:
        """Take ``count`` steps; returns their mean loss."""
        self.model.train()
        losses = []
        for _ in range(count):
            batch = self.source.draw(self.config.batch_size, self.rng)
            loss = window_loss(self.model, self.trainer.data, batch, self.trainer.levels, self.config, self.rng)
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            self._step()
            losses.append(float(loss.detach()))
            report()
        self.average.eval()
        return float(np.mean(losses)) if losses else 0.0

    def _step(self) -> None:
        self.done += 1
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.learning_rate * min(1.0, self.done / 20)
        self.optimizer.step()
        decay = min(self.config.averaging, self.done / (self.done + 10))
        with torch.no_grad():
            for kept, new in zip(self.average.parameters(), self.model.parameters(), strict=True):
                kept.lerp_(new, 1 - decay)


def window_loss(
    model: TwoTower, data: TrainingData, batch: Batch, levels: Tensor, config: Any, rng: np.random.Generator
) -> Tensor:
    """Mean negative log likelihood of the targets of ``batch``; ``levels`` float32 (moments, K, N) of log popularity."""
    history = _hide(batch.history, config.history_dropout, rng)
    rows = np.where(rng.random(len(batch.rows)) < config.user_dropout, -1, batch.rows)
    category, number = data.user_inputs(history, rows)
    features = model.features()
    query = model.user(
        model.read_table(features),
        torch.from_numpy(history),
        torch.from_numpy(category),
        torch.from_numpy(number),
    )
    columns, correction = _softmax_items(data, batch, config.softmax_items, rng)
    latent = model.shape.latent
    items: Tensor = model.latent_items(features)
    bias: Tensor = model.bias
    if columns is not None:
        items, bias = items[columns], bias[columns] - correction
    moment = np.minimum((batch.cut * len(levels)).astype(np.int64), len(levels) - 1)
    logits = query[:, :latent] @ items.T + bias + _popularity_logits(query[:, latent + 1 :], levels, moment, columns)
    return _likelihood(logits, batch, columns, data.catalogue_size)


def _hide(history: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """Hide a share of the items, another share in every row; what is left stays where it was."""
    if share <= 0:
        return history
    hidden = rng.random(history.shape) < rng.random((len(history), 1)) * 2 * share
    return np.where(hidden, -1, history).astype(np.int32)


def _softmax_items(
    data: TrainingData, batch: Batch, limit: int, rng: np.random.Generator
) -> tuple[Tensor | None, Tensor | float]:
    """Columns of the softmax int64 (S,), None for all, and log of their chance to be in the sample, float32 (S,)."""
    if data.catalogue_size <= limit:
        return None, 0.0
    share = (np.bincount(data.user_items, minlength=data.catalogue_size) + 1.0) ** 0.75
    share /= share.sum()
    sample = rng.choice(data.catalogue_size, size=limit, p=share)
    columns = np.unique(np.concatenate([sample, batch.targets[batch.targets >= 0]]))
    chance = -np.expm1(-limit * share[columns])
    return torch.from_numpy(columns), torch.from_numpy(np.log(chance).astype(np.float32))


def _popularity_logits(weight: Tensor, levels: Tensor, moment: np.ndarray, columns: Tensor | None) -> Tensor:
    """float32 (B, S): each row's weights (B, K) times the log popularity at its own moment int64 (B,)."""
    count, kinds, _ = levels.shape
    table = levels.flatten(0, 1) if columns is None else levels.flatten(0, 1)[:, columns]
    row = torch.from_numpy(np.minimum(moment, count - 1))[:, None] * kinds + torch.arange(kinds)
    return nn.functional.embedding_bag(row, table, mode="sum", per_sample_weights=weight)


def _likelihood(logits: Tensor, batch: Batch, columns: Tensor | None, catalogue_size: int) -> Tensor:
    """Items of the history cannot be recommended: they are neither targets nor in the denominator."""
    history, targets = (
        _to_columns(batch.history, columns, catalogue_size),
        _to_columns(batch.targets, columns, catalogue_size),
    )
    width = logits.shape[1]
    seen = torch.zeros(len(logits), width + 1, dtype=torch.bool).scatter_(1, history, True)
    wanted = (targets < width) & ~torch.gather(seen, 1, targets)
    logits = logits.masked_fill(seen[:, :width], -1e9)
    log_share = torch.gather(logits, 1, targets.clamp(max=width - 1)) - torch.logsumexp(logits, 1, keepdim=True)
    count = wanted.sum(dim=1)
    weight = count.clamp(min=1).float() ** -0.5  # between "every user alike" and "every target alike"
    loss = -(log_share * wanted).sum(dim=1)
    return (loss * weight).sum() / (weight * count).sum().clamp(min=1.0)


def _to_columns(index: np.ndarray, columns: Tensor | None, catalogue_size: int) -> Tensor:
    """Item indices to places in the softmax, int64; padding and absent items go to the place after the last."""
    width = catalogue_size if columns is None else len(columns)
    place = torch.full((catalogue_size + 1,), width, dtype=torch.int64)
    place[torch.arange(catalogue_size) if columns is None else columns] = torch.arange(width)
    return place[torch.from_numpy(np.where(index < 0, catalogue_size, index)).long()]


def user_queries(model: TwoTower, data: TrainingData, part: Slice) -> tuple[Float32, Float32]:
    """``query`` float32 (V, dim) of a slice and ``item_vectors`` float32 (N, dim)."""
    category, number = data.user_inputs(part.history, part.rows)
    return query_arrays(model, part.history, category, number), item_vectors(model)


def query_arrays(model: TwoTower, history: np.ndarray, category: np.ndarray, number: np.ndarray) -> Float32:
    """float32 (V, dim), in blocks and without gradients."""
    model.eval()
    with torch.inference_mode():
        table = model.read_table(model.features())
        parts = [
            model.user(table, *(torch.from_numpy(x[low : low + 1024]) for x in (history, category, number))).numpy()
            for low in range(0, len(history), 1024)
        ]
    return np.concatenate(parts) if parts else np.zeros((0, model.shape.dim), dtype=np.float32)


def item_vectors(model: nn.Module) -> Float32:
    """float32 (N, dim) of ``TwoTower.item_vectors``."""
    model.eval()
    with torch.inference_mode():
        return model.item_vectors().numpy()  # type: ignore[operator]


def evaluate_tower(model: TwoTower, data: TrainingData, part: Slice) -> dict[str, float]:
    """Metrics of exact retrieval on a slice."""
    query, vectors = user_queries(model, data, part)
    ids, _ = top_candidates(part, lambda index: query[index] @ vectors.T, 200)
    return list_metrics(part.relevant, hits_of(part.relevant, ids))
