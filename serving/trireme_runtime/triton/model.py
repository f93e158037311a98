"""Base of the ``model.py`` files: loads the stages of a model and hands requests to the adapter.

Runs only inside Triton's Python backend, which provides ``triton_python_backend_utils``.
"""

from __future__ import annotations

import gc
import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import triton_python_backend_utils as pb_utils

from trireme_runtime.bundle import read_version, verify_version
from trireme_runtime.features.address import FEATURES
from trireme_runtime.onnx_model import one_thread, process_age_s
from trireme_runtime.schema import BUDGET, OTLP_ENDPOINT, RUNS, stages_of
from trireme_runtime.stages.chain import Chain, load_stages
from trireme_runtime.stages.fresh_features import FreshFeatures, with_fresh_features
from trireme_runtime.triton.adapter import Adapter
from trireme_runtime.triton.busy import noting
from trireme_runtime.triton.deadlines import Deadlines
from trireme_runtime.triton.instance import is_first
from trireme_runtime.triton.metrics import Publisher, StageMetrics

if TYPE_CHECKING:
    from trireme_runtime.triton.tracing import StageTracer

__all__ = ["ChainModel", "stages_run"]

log = logging.getLogger(__name__)


class ChainModel:
    """A Triton Python model that runs the stages that its config names, from the files beside its ``model.py``."""

    chain: ClassVar[type[Chain]] = Chain
    adapter: ClassVar[type[Adapter]] = Adapter

    def initialize(self, args: dict[str, str]) -> None:
        one_thread()
        folder, version = Path(args["model_repository"]), args["model_version"]
        # One instance reads every byte; the others look at the sizes.
        verify_version(folder, version, hashes=is_first(args))
        device = int(args["model_instance_device_id"]) if args["model_instance_kind"] == "GPU" else None
        config = json.loads(args["model_config"])
        chain = self.chain(load_stages(folder / version, stages_run(config), device))
        parameters = config.get("parameters", {})
        metrics = StageMetrics(
            pb_utils,
            args["model_name"],
            [stage.name for stage in chain.stages],
            [tensor.name for tensor in chain.signature.answered],
            json.loads(parameters.get(BUDGET, {}).get("string_value", "{}")),
        )
        if FEATURES in os.environ and any(stage.name == FreshFeatures.name for stage in chain.stages):
            encoding = int(read_version(folder.parent, int(version)).bundle_id, 16)
            note = metrics.count_features()
            chain.stages = with_fresh_features(chain.stages, os.environ[FEATURES], encoding, note)
        self._publisher = Publisher(metrics)
        self._tracer = _tracer(chain, args["model_name"], args["model_version"])
        adapter = self.adapter(chain, pb_utils, config, metrics.note, self._tracer, Deadlines.of(chain, config))
        self._execute = noting(adapter.execute)
        # What is loaded stays: a full collection would look at all of it, and hold up a request for tens of milliseconds.
        gc.collect()
        gc.freeze()
        metrics.publish_load_time(process_age_s())

    def execute(self, requests: list[Any]) -> list[Any] | None:
        return self._execute(requests)

    def finalize(self) -> None:
        self._publisher.close()
        if self._tracer is not None:
            self._tracer.close()


def stages_run(config: Mapping[str, Any]) -> tuple[str, ...]:
    """Returns the names of the stages that a model runs, from its config as Triton hands it to ``initialize``."""
    return stages_of(config.get("parameters", {}).get(RUNS, {}).get("string_value", ""))


def _tracer(chain: Chain, model: str, version: str) -> StageTracer | None:
    """Returns what sends the spans of the stages; None if the environment names no endpoint."""
    if not os.environ.get(OTLP_ENDPOINT):
        return None
    try:
        from trireme_runtime.triton.tracing import StageTracer, exporting_provider
    except ModuleNotFoundError as error:
        # The variable may be meant for other programs, so this is no reason not to serve.
        log.warning("%s is set, but the stages send no spans: %s is not installed", OTLP_ENDPOINT, error.name)
        return None
    stages = [stage.name for stage in chain.stages]
    answered = [tensor.name for tensor in chain.signature.answered]
    return StageTracer(exporting_provider(), model, version, stages, answered)
