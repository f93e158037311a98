"""What every section of pipeline.yaml has in common."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

__all__ = ["Section"]


class Section(BaseModel):
    """A part of pipeline.yaml: its values are fixed once read, and an unknown key or an infinite number is refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
