"""The loss of the two towers: what a user took in a window after a cut, given the history before it.

It is a multinomial likelihood. Up to ``softmax_items`` items the softmax is exact; larger catalogues share a sample per step
with logQ correction (Yi et al., "Sampling-bias-corrected neural modeling", RecSys 2019). Popularity enters as it was known at
the cut, through columns of the item vector that the query weighs: old examples teach what is personal, and the newest
popularity is what is served.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from trireme_export.data.histories import Int32
from trireme_export.data.training_data import TrainingData
from trireme_export.models.two_tower import TwoTower
from trireme_export.training.examples import Batch
from trireme_export.training.options import TowerConfig

__all__ = ["likelihood", "sampling_share", "window_loss"]


def sampling_share(data: TrainingData, limit: int) -> np.ndarray | None:
    """Returns the share of each item in the sample of a softmax, float64 (N,); None where all of at most ``limit`` items fit."""
    if data.catalogue_size <= limit:
        return None
    share = (np.bincount(data.user_items, minlength=data.catalogue_size) + 1.0) ** 0.75
    return np.asarray(share / share.sum())


def window_loss(
    model: TwoTower,
    data: TrainingData,
    batch: Batch,
    levels: Tensor,
    share: np.ndarray | None,
    config: TowerConfig,
    rng: np.random.Generator,
) -> Tensor:
    """Returns the mean negative log likelihood of the targets of ``batch``.

    Where the softmax is sampled, only the items of the batch and of the sample are computed, and get gradients.

    Args:
        model: in training mode.
        data: what ``batch`` was drawn from.
        batch: B examples.
        levels: float32 (moments, K, N), log popularity as it was known at each moment.
        share: see ``sampling_share``.
        config: shares of history and users that are hidden, and the size of a sampled softmax.
        rng: hides and samples.
    """
    history = _hide(batch.history, config.history_dropout, rng)
    rows = np.where(rng.random(len(batch.rows)) < config.user_dropout, -1, batch.rows)
    batch, context = _in_context(batch, config.context_dropout, rng)
    category, number = data.user_inputs(history, rows, context)
    columns: Tensor | None = None
    bias: Tensor = model.bias
    if share is None:
        features = model.features()
        table, items = model.read_table(features), model.latent_items(features)
    else:
        columns, correction = _softmax_items(share, batch, config.softmax_items, rng)
        read = np.unique(history[history >= 0])
        history = np.where(history >= 0, np.searchsorted(read, history), -1)
        read_rows = torch.from_numpy(read).long()
        table = model.read_table(model.features(read_rows), read_rows)
        items, bias = model.latent_items(model.features(columns), columns), bias[columns] - correction
    query = model.user(table, *map(torch.from_numpy, (history, category, number)))
    latent = model.shape.latent
    moment = np.minimum((batch.cut * len(levels)).astype(np.int64), len(levels) - 1)
    logits = query[:, :latent] @ items.T + bias + _popularity_logits(query[:, latent + 1 :], levels, moment, columns)
    return likelihood(logits, batch, columns, data.catalogue_size)


def _in_context(batch: Batch, share: float, rng: np.random.Generator) -> tuple[Batch, Int32 | None]:
    """Gives each example the context of one of its targets, and takes away the targets of other contexts; for a ``share`` of the
    examples, the context stays unknown, and all targets stay.

    Returns:
        The batch, and int32 (B, C); None where the data has no context.
    """
    if batch.context is None:
        return batch, None
    rows, valid = np.arange(len(batch.rows)), batch.targets >= 0
    chosen = np.where(valid, rng.random(valid.shape), -1.0).argmax(axis=1)
    context = batch.context[rows, chosen]
    unknown = rng.random(len(rows)) < share
    context[unknown] = 0
    same = (batch.context == context[:, None]).all(axis=2) | unknown[:, None]
    return replace(batch, targets=np.where(same, batch.targets, -1)), context


def _hide(history: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """Hides a random share of the items of each row, on average ``share``; the others stay in their places."""
    if share <= 0:
        return history
    hidden = rng.random(history.shape) < rng.random((len(history), 1)) * 2 * share
    return np.where(hidden, -1, history).astype(np.int32)


def _softmax_items(share: np.ndarray, batch: Batch, limit: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Returns the items of the softmax int64 (S,) and the log of their chance to be sampled, float32 (S,)."""
    sample = rng.choice(share.size, size=limit, p=share)
    columns = np.unique(np.concatenate([sample, batch.targets[batch.targets >= 0]]))
    chance = -np.expm1(-limit * share[columns])
    return torch.from_numpy(columns), torch.from_numpy(np.log(chance).astype(np.float32))


def _popularity_logits(weight: Tensor, levels: Tensor, moment: np.ndarray, columns: Tensor | None) -> Tensor:
    """Returns each row's weights (B, K) times the log popularity at its own moment int64 (B,): float32 (B, S)."""
    count, kinds, _ = levels.shape
    table = levels.flatten(0, 1) if columns is None else levels.flatten(0, 1)[:, columns]
    row = torch.from_numpy(np.minimum(moment, count - 1))[:, None] * kinds + torch.arange(kinds)
    return nn.functional.embedding_bag(row, table, mode="sum", per_sample_weights=weight)


def likelihood(logits: Tensor, batch: Batch, columns: Tensor | None, catalogue_size: int) -> Tensor:
    """Returns the loss of ``logits`` float32 (B, S), given the items ``columns`` int64 (S,) of the softmax, None for all.

    Items of the history cannot be recommended: they are neither targets nor in the denominator.
    """
    history, targets = (_to_columns(index, columns, catalogue_size) for index in (batch.history, batch.targets))
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
    """Returns the places of item indices in the softmax, int64; padding and absent items get the place after the last."""
    width = catalogue_size if columns is None else len(columns)
    place = torch.full((catalogue_size + 1,), width, dtype=torch.int64)
    place[torch.arange(catalogue_size) if columns is None else columns] = torch.arange(width)
    return place[torch.from_numpy(np.where(index < 0, catalogue_size, index)).long()]
