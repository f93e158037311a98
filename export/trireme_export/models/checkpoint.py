"""Trained models on disk: `models.json` with the shape and the training report, `models.npz` with the weights. No pickle."""

from __future__ import annotations

import json
import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .ranker import Ranker
from .shape import ModelShape
from .two_tower import TwoTower

FORMAT_VERSION = 1
_PARTS = ("two_tower", "ranker")


@dataclass
class TrainedModels:
    """Both models in evaluation mode, and `report`: metrics per epoch, seconds, warnings (plain JSON types)."""

    shape: ModelShape
    two_tower: TwoTower
    ranker: Ranker
    report: dict[str, Any] = field(default_factory=dict)


def save_models(path: Path | str, models: TrainedModels) -> None:
    """Write the directory `path`; one that is there is replaced when the new one is complete."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
    try:
        weights = {
            f"{part}/{name}": value.detach().cpu().numpy()
            for part in _PARTS
            for name, value in getattr(models, part).state_dict().items()
        }
        np.savez(temporary / "models.npz", **weights)
        document = {
            "format_version": FORMAT_VERSION,
            "shape": models.shape.to_json(),
            "report": models.report,
        }
        (temporary / "models.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
        if path.exists():
            shutil.rmtree(path)
        temporary.chmod(0o755)
        temporary.replace(path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def load_models(path: Path | str) -> TrainedModels:
    """Read what `save_models` wrote.

    Raises FileNotFoundError where a file is missing, ValueError on another format version or on weights that do not fit.
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
