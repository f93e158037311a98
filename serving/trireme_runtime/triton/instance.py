"""Which of a model's instances a process is."""

from __future__ import annotations

import re
from collections.abc import Mapping

__all__ = ["is_first"]


def is_first(args: Mapping[str, str]) -> bool:
    """Whether an instance is the first of its model, from the arguments of ``initialize``: what is done once is done by it.

    Triton calls an instance by its group and its number in it, and, on a GPU, by that; a group without a name is called like
    the model, with the group's number where there are several: ranking_0, ranking_0_0, ranking_0_0_gpu0.
    """
    return re.fullmatch(rf"{re.escape(args['model_name'])}_0(_0)?(_gpu\d+)?", args["model_instance_name"]) is not None
