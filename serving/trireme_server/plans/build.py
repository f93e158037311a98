"""Builds the plans that a repository needs on this machine, and leaves alone those that fit."""

from __future__ import annotations

import os
import shlex
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from trireme_runtime.bundle import describe_file, verify_version
from trireme_runtime.errors import BundleError
from trireme_server.embedded import cache_root
from trireme_server.errors import PlanError, RepositoryError
from trireme_server.plans.builders import Builder, find_builder, telling_lines
from trireme_server.plans.graphs import GraphModel, tensorrt_models
from trireme_server.plans.job import Job
from trireme_server.plans.machine import BY_BUS, ORDER, VISIBLE, Gpu, capabilities, visible_gpus
from trireme_server.plans.profile import Profile
from trireme_server.plans.stamp import Origin, Stamp, misfit, plan_file

__all__ = ["BuiltPlan", "PlanBuild", "prepare_builds"]

#: What docs/docker.md and docker/compose.yaml call the image of target gpu.
IMAGE = "trireme:gpu"


@dataclass(frozen=True)
class BuiltPlan:
    """A plan that fits. ``built`` is whether it was built just now, in ``seconds``."""

    model: str
    compute_capability: str
    path: str
    bytes: int
    built: bool
    seconds: float


@dataclass(frozen=True)
class PlanBuild:
    """One plan that this machine needs: of ``model``, for GPUs like ``gpu``."""

    model: GraphModel
    gpu: Gpu
    plan: Path
    origin: Origin
    builder: Builder
    workspace_mib: int | None = None
    cache: Path | None = None

    def run(self) -> BuiltPlan:
        """Builds the plan unless the one that is there fits.

        The old plan stays until the new one is complete. No published file is touched.

        Raises:
            PlanError: the plan cannot be built or written; says what the builder says.
        """
        started = time.monotonic()
        built = misfit(self.plan, self.origin) is not None
        if built:
            try:
                self._build()
            except OSError as error:
                raise PlanError(f"{self.plan} cannot be written ({error.strerror})") from error
        return BuiltPlan(
            model=self.model.name,
            compute_capability=self.gpu.capability,
            path=str(self.plan),
            bytes=self.plan.stat().st_size,
            built=built,
            seconds=round(time.monotonic() - started, 3),
        )

    def _build(self) -> None:
        with tempfile.TemporaryDirectory(prefix=".plan-", dir=self.plan.parent) as work:
            made = Path(work) / self.plan.name
            job = Job(
                graph=self.model.graph,
                plan=made,
                shapes=Profile.of(self.model.config).shapes(),
                workspace_mib=self.workspace_mib,
                timings=self._timings(),
            )
            self._run(self.builder.command(job), made)
            stamp = Stamp(self.origin, describe_file(made).sha256, datetime.now(timezone.utc).isoformat())
            made.replace(self.plan)
            stamp.write(self.plan)

    def _run(self, command: list[str], made: Path) -> None:
        # One GPU is visible to the builder, so it is the one that the plan is for.
        environment = os.environ | {VISIBLE: self.gpu.uuid, ORDER: BY_BUS}
        done = subprocess.run(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
        )
        if done.returncode or not (made.is_file() and made.stat().st_size):
            raise PlanError(
                f"model {self.model.name}: no plan for compute capability {self.gpu.capability}; "
                f"{self.builder.name} {self.builder.version} failed: {telling_lines(done.stdout)}"
            )

    def _timings(self) -> Path | None:
        """The file of timings; None where none can be kept, which only costs time."""
        folder = (self.cache or cache_root()) / "tensorrt"
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError:
            return None
        return folder / f"timings-{self.builder.version}-{self.gpu.capability}"


def prepare_builds(
    repository: Path,
    *,
    workspace_mib: int | None = None,
    cache: Path | None = None,
    gpus: Callable[[], list[Gpu]] = visible_gpus,
    builder: Callable[[], Builder | None] = find_builder,
) -> list[PlanBuild]:
    """Returns the builds of all TensorRT models of the version that ``repository`` serves, for every kind of GPU that is visible.

    Args:
        repository: as `trireme export --target gpu` wrote it.
        workspace_mib: see ``Job``.
        cache: where timings are kept; None for Trireme's own folder.
        gpus: finds the GPUs.
        builder: finds what builds.

    Raises:
        RepositoryError: there is no such repository, it has no TensorRT models, or a graph is not what was exported.
        PlanError: there is no TensorRT or no GPU here, or a config allows no plan.
    """
    repository = repository.absolute()
    models = tensorrt_models(repository)
    if not models:
        raise RepositoryError(f"{repository}: has no TensorRT models; export it with --target gpu and engine tensorrt")
    for model in models:
        try:
            verify_version(repository / model.name, model.folder.name, hashes=True)
        except BundleError as error:
            raise RepositoryError(str(error)) from error
    found = builder()
    if found is None:
        raise PlanError(_without_tensorrt(repository))
    return [
        PlanBuild(
            model=model,
            gpu=gpu,
            plan=plan_file(model, capability),
            origin=Origin.of(model, capability, found.version),
            builder=found,
            workspace_mib=workspace_mib,
            cache=cache,
        )
        for capability, gpu in capabilities(gpus()).items()
        for model in models
    ]


def _without_tensorrt(repository: Path) -> str:
    # The image runs as a user of its own, who may not write into the repository.
    mounted = shlex.quote(f"{repository}:/models")
    return (
        "TensorRT is missing here: neither Python's tensorrt nor trtexec is installed; with the image of docker/Dockerfile on "
        "NVIDIA's container, run: "
        f'docker run --rm --gpus all --user "$(id -u):$(id -g)" -v {mounted} {IMAGE} trireme plans build /models'
    )
