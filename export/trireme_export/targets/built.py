"""What every target makes of a checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from trireme_export.checkpoint import Checkpoint
from trireme_export.evaluation.funnel import Answering
from trireme_export.repository import Contents

__all__ = ["Build", "Built", "Wanted"]


@dataclass(frozen=True)
class Wanted:
    """What is built, and where.

    Args:
        plan: ensemble, fused or both.
        engine: of the graphs, see ``Contents``.
        folder: for files that are read until the repository is written.
        user_id: int64 [n, 1], real users.
    """

    plan: str
    engine: str
    folder: Path
    user_id: np.ndarray


@dataclass(frozen=True)
class Built:
    """``funnels`` answer as the plans will, by the key of their record of the gate; ``record`` says what was chosen."""

    contents: Contents
    funnels: Mapping[str, Answering]
    record: dict[str, Any]


Build = Callable[[Checkpoint, Wanted], Built]
