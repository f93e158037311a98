"""The authored models, from which every repository is specialised."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

__all__ = ["authored_repository"]


def authored_repository(target: str) -> Path:
    """Returns the folder of ``target`` in ``model_repository/``, in the checkout or as installed with the package."""
    packaged = Path(str(resources.files("trireme_export"))) / "model_repository"
    root = packaged if packaged.is_dir() else Path(__file__).parents[3] / "model_repository"
    return root / target
