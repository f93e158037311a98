"""A model repository with the entry tensors of Trireme and nothing behind them, for tests of the server."""

from __future__ import annotations

import json
from pathlib import Path

from trireme_runtime.bundle import Manifest, describe_file
from trireme_runtime.schema import Dims

DIMS = Dims(history=4, candidates=5, list_length=3, query=2, category=1, number=1, catalogue=9)

CONFIG = """
name: "{name}"
backend: "python"
max_batch_size: 16
input [
  {{ name: "user_id" data_type: TYPE_INT64 dims: [ 1 ] }},
  {{ name: "history" data_type: TYPE_INT64 dims: [ 4 ] optional: true }}
]
output [
  {{ name: "item_id" data_type: TYPE_INT64 dims: [ 3 ] }},
  {{ name: "score" data_type: TYPE_FP32 dims: [ 3 ] }},
  {{ name: "rung" data_type: TYPE_UINT8 dims: [ 1 ] }},
  {{ name: "reason" data_type: TYPE_UINT8 dims: [ 1 ] }},
  {{ name: "feature_age_s" data_type: TYPE_FP32 dims: [ 1 ] }}
]
instance_group [ {{ kind: KIND_CPU count: 2 }} ]
dynamic_batching {{ }}
"""

# Answers every user u with the items u, u + 1, u + 2, and writes how many users each call had to calls.txt.
MODEL = """
import json, os
from pathlib import Path

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, args):
        model = Path(args["model_repository"], args["model_version"], "model.py").resolve().parents[1]
        self.calls = model / "calls.txt"
        about = {name: os.environ.get(name) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
        import sys, trireme_runtime
        about |= {"prefix": sys.prefix, "stages": trireme_runtime.__file__}
        about["cpus"] = sorted(os.sched_getaffinity(0))
        (model / "about.json").write_text(json.dumps(about))

    def execute(self, requests):
        responses, users = [], 0
        for request in requests:
            user = pb_utils.get_input_tensor_by_name(request, "user_id").as_numpy()
            users += len(user)
            with_history = pb_utils.get_input_tensor_by_name(request, "history") is not None
            responses.append(pb_utils.InferenceResponse([
                pb_utils.Tensor("item_id", user + np.arange(3)),
                pb_utils.Tensor("score", np.tile(np.float32([3, 2, 1]), (len(user), 1))),
                pb_utils.Tensor("rung", np.full((len(user), 1), 0 if with_history else 3, np.uint8)),
                pb_utils.Tensor("reason", np.full((len(user), 1), 0 if with_history else 4, np.uint8)),
                pb_utils.Tensor("feature_age_s", np.zeros((len(user), 1), np.float32)),
            ]))
        with self.calls.open("a") as file:
            file.write(f"{len(requests)} {users}\\n")
        return responses
"""


def write_toy_repository(root: Path, models: tuple[str, ...] = ("recommend",), model: str = MODEL) -> Path:
    """Writes the models, their manifests and perf_input.json under `root`; returns `root`."""
    for name in models:
        version = root / name / "1"
        version.mkdir(parents=True)
        (root / name / "config.pbtxt").write_text(CONFIG.format(name=name))
        (version / "model.py").write_text(model)
    artifacts = {path: describe_file(root / path) for path in (f"{name}/1/model.py" for name in models)}
    manifest = Manifest("toy-1", 1, "fused", "cpu", DIMS, artifacts, {})
    for name in models:
        (root / name / "1" / "manifest.json").write_text(manifest.to_json())
    users = [{"user_id": [user], "history": {"content": [1, 2, 3, -1], "shape": [4]}} for user in range(20)]
    (root / "perf_input.json").write_text(json.dumps({"data": users}))
    return root
