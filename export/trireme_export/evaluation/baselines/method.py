"""What every baseline is: settings to choose from, and a fit that returns something that scores histories."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from scipy import sparse

from trireme_export.evaluation.baselines.positives import Positives

__all__ = ["Method", "Scorer", "Settings"]

#: Arguments of a fit, by name.
Settings = Mapping[str, Any]


class Scorer(Protocol):
    """A fitted baseline."""

    def score(self, histories: sparse.csr_matrix) -> np.ndarray:
        """Returns a score of every item for users with these distinct items (float32 [b, N] of 1): [b, N]."""


def _always(positives: Positives) -> str | None:
    return None


@dataclass(frozen=True)
class Method:
    """How a baseline is fitted, and the settings from which the validation chooses."""

    name: str
    fit: Callable[..., Scorer]
    """Takes the positives, and settings by keyword."""
    grid: tuple[Settings, ...]
    refusal: Callable[[Positives], str | None] = _always
    """Why the method is left out on such positives; None where it is not."""
