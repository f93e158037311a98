"""Trained models on disk: ``models.json`` with the shape and the training report, ``models.npz`` with the weights. No pickle."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from trireme_export.models.ranker import Ranker
from trireme_export.models.shape import ModelShape
from trireme_export.models.two_tower import TwoTower
from trireme_export.staging import staged_directory

FORMAT_VERSION = 3
_PARTS = ("two_tower", "ranker")


@dataclass
class TrainedModels:
    """Both models in evaluation mode, and ``report``: metrics per epoch, seconds, warnings (plain JSON types)."""

    shape: ModelShape
    two_tower: TwoTower
    ranker: Ranker
    report: dict[str, Any] = field(default_factory=dict)


def save_models(path: Path | str, models: TrainedModels) -> None:
    """Writes the directory ``path``; one that is there is replaced when the new one is complete."""
    weights = {
        f"{part}/{name}": value.detach().cpu().numpy()
        for part in _PARTS
        for name, value in getattr(models, part).state_dict().items()
    }
    document = {"format_version": FORMAT_VERSION, "shape": models.shape.to_json(), "report": models.report}
    with staged_directory(Path(path)) as staging:
        np.savez(staging / "models.npz", **weights)
        (staging / "models.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def load_models(path: Path | str) -> TrainedModels:
    """Reads what ``save_models`` wrote.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: the format version is another one, or the weights do not fit the shape.
    """
    path = Path(path)
    document = json.loads((path / "models.json").read_text(encoding="utf-8"))
    version = document.get("format_version")
    if version != FORMAT_VERSION:
        raise ValueError(f"{path / 'models.json'}: format_version is {version!r}, this program reads {FORMAT_VERSION}")
    shape = ModelShape.from_json(document["shape"])
    models = TrainedModels(shape, TwoTower(shape), Ranker(shape), document["report"])
    with np.load(path / "models.npz", allow_pickle=False) as weights:
        for part in _PARTS:
            prefix = f"{part}/"
            state = {k[len(prefix) :]: torch.from_numpy(weights[k]) for k in weights.files if k.startswith(prefix)}
            try:
                getattr(models, part).load_state_dict(state)
            except RuntimeError as error:
                raise ValueError(f"{path / 'models.npz'} does not fit models.json: {error}") from error
            getattr(models, part).eval()
    return models
