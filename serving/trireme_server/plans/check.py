"""Whether all TensorRT models of a repository have plans for this machine, before a server is started on them."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path

from trireme_server.errors import PlanError
from trireme_server.plans.graphs import tensorrt_models
from trireme_server.plans.machine import Gpu, capabilities, installed_tensorrt, visible_gpus
from trireme_server.plans.stamp import Origin, misfit, plan_file

__all__ = ["check_plans"]


def check_plans(
    repository: Path,
    *,
    gpus: Callable[[], list[Gpu]] = visible_gpus,
    tensorrt: Callable[[], str] = installed_tensorrt,
) -> None:
    """Checks that every TensorRT model has a plan for each kind of GPU that is visible, built from this bundle's graph for the
    TensorRT that is installed.

    Args:
        repository: the model repository.
        gpus: finds the GPUs.
        tensorrt: finds the version of TensorRT.

    Raises:
        PlanError: a plan is missing or does not fit, with the command that builds it; or there is no GPU or no TensorRT.
        RepositoryError: as ``graph_models``.
    """
    models = tensorrt_models(repository)
    if not models:
        return
    version = tensorrt()
    found = [
        f"model {model.name} {problem}"
        for capability in capabilities(gpus())
        for model in models
        if (problem := misfit(plan_file(model, capability), Origin.of(model, capability, version)))
    ]
    if found:
        raise PlanError(f"{'; '.join(found)}; run: trireme plans build {shlex.quote(str(repository))}")
