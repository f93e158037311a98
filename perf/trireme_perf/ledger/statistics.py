"""What Triton counts of an entry model and its stages."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Mapping
from typing import Any

import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from trireme_client import TLS
from trireme_perf.errors import PerfError
from trireme_runtime.schema import BUDGET, RUNS, stages_of

__all__ = ["PARTS", "Statistics", "StatisticsReader", "connect"]

COUNTED_WITHIN_S = 0.2
TIMEOUT_S = 5.0
PARTS = {"queue": "queue", "input": "compute_input", "compute": "compute_infer", "output": "compute_output"}

#: {model: {figure: value}}, counted since the server started
Statistics = Mapping[str, Mapping[str, int]]


def connect(url: str, tls: TLS | None) -> triton.InferenceServerClient:
    """Returns Triton's own client of a server, which connects with its first call."""
    return triton.InferenceServerClient(url, creds=None if tls is None else tls.credentials())


class StatisticsReader:
    """Reads the statistics of an entry model and its stages.

    Args:
        url: host:port of the server's gRPC endpoint.
        tls: certificates for it; None for plain text.

    Raises:
        PerfError: no server, or no such model.
    """

    def __init__(self, url: str, model: str, tls: TLS | None = None) -> None:
        self._url = url
        self._client = connect(url, tls)
        self._model = model
        config = self._config(model)
        steps = [step.model_name for step in config.ensemble_scheduling.step]
        #: The stages by the model that runs them; an entry that is no ensemble runs them itself.
        self.stages = {step: stages_of(self._runs(step)) for step in steps or [model]}
        #: The ``budget:`` section of the bundle; empty if its export wrote none.
        self.budget: dict[str, Any] = json.loads(config.parameters[BUDGET].string_value or "{}")

    def __enter__(self) -> StatisticsReader:
        return self

    def __exit__(self, *error: object) -> None:
        self._client.close()

    def _config(self, model: str) -> Any:
        try:
            return self._client.get_model_config(model, client_timeout=TIMEOUT_S).config
        except InferenceServerException as error:
            self._client.close()
            raise PerfError(f"model {model!r} at {self._url} cannot be read: {error.message()}") from None

    def _runs(self, model: str) -> str:
        return str(self._config(model).parameters[RUNS].string_value)

    def read(self) -> dict[str, dict[str, int]]:
        """Raises: PerfError when the server is gone."""
        return {name: self._read_model(name) for name in {self._model, *self.stages}}

    def read_after(self, before: dict[str, dict[str, int]]) -> dict[str, dict[str, int]]:
        """A later reading. Triton counts a request a moment after its answer has left, so it is waited for."""
        figures = self.read()
        deadline = time.monotonic() + COUNTED_WITHIN_S
        while not self._all_counted(before, figures) and time.monotonic() < deadline:
            time.sleep(0.002)
            figures = self.read()
        return figures

    def _all_counted(self, before: dict[str, dict[str, int]], after: dict[str, dict[str, int]]) -> bool:
        """Whether a request was answered, and by every stage."""
        counted = [after[name].get("requests", 0) - before[name].get("requests", 0) for name in after]
        return min(counted) > 0

    def _read_model(self, name: str) -> dict[str, int]:
        try:
            statistics = self._client.get_inference_statistics(name, client_timeout=TIMEOUT_S)
        except InferenceServerException as error:
            raise PerfError(f"no statistics of {name!r} at {self._url}: {error.message()}") from None
        figures: Counter[str] = Counter()  # sums over the versions
        for entry in statistics.model_stats:
            stats = entry.inference_stats
            figures.update(
                requests=stats.success.count,
                success=stats.success.ns,
                users=entry.inference_count,
                executions=entry.execution_count,
                **{part: getattr(stats, triton_name).ns for part, triton_name in PARTS.items()},
            )
        return dict(figures)
