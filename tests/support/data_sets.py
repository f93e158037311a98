"""Real data sets: the one that ships with the project, and others that a machine may have."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["RETAIL", "VARIABLE", "find_data_set"]

#: Environment variable: the folder of the data sets that are not part of the project.
VARIABLE = "TRIREME_DATA"
RETAIL = Path(__file__).parents[2] / "examples" / "online-retail-ii"


def find_data_set(name: str) -> Path | None:
    """The folder of the data set ``name``; None if it does not ship with the project and ``TRIREME_DATA`` is not set."""
    if name == RETAIL.name:
        return RETAIL
    return Path(os.environ[VARIABLE], name) if os.environ.get(VARIABLE) else None
