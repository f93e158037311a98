"""Parity on a real tritonserver: graph models that answer right, with the answers of earlier requests, or wrong.

TensorRT is not here, so Python models of the same names answer; the repository that parity reads says that they are graphs.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from google.protobuf import text_format

from tests.support.graph_repository import VERSION, graph_config, publish, write_graph_model
from tests.support.serving import served_briefly
from tests.support.toy_repository import write_toy_repository
from trireme_server import ParityError, TritonServer, process
from trireme_server.api import Api
from trireme_server.plans import check_parity

BEHAVIOURS = ("right", "stale", "wrong", "broken")

#: Runs the graph; what it answers then depends on the model's name. A stale one answers full batches, as a CUDA graph is
#: captured for, with what the one before got.
MODEL = """
from pathlib import Path

import numpy as np
import onnxruntime
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, args):
        self.name = args["model_name"]
        graph = Path(args["model_repository"], args["model_version"], "model.onnx").resolve()
        self.session = onnxruntime.InferenceSession(graph)
        self.earlier = {}

    def answer(self, users):
        (query,) = self.session.run(["query"], {"user_number": users})
        if self.name == "stale" and len(users) == 8:
            query, self.earlier[8] = self.earlier.get(8, query), query
        return query + np.float32(0.2 * (self.name == "wrong"))

    def execute(self, requests):
        if self.name == "broken":
            raise ValueError("no such kernel")
        users = [pb_utils.get_input_tensor_by_name(each, "user_number").as_numpy() for each in requests]
        return [pb_utils.InferenceResponse([pb_utils.Tensor("query", self.answer(each))]) for each in users]
"""


def as_python_model(repository: Path, name: str) -> None:
    config = graph_config(name, ("user_number",), "query")
    config.ClearField("platform")
    config.ClearField("cc_model_filenames")
    config.backend, config.default_model_filename = "python", "model.py"
    (repository / name / str(VERSION) / "model.py").write_text(MODEL)
    (repository / name / "config.pbtxt").write_text(text_format.MessageToString(config))


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """That of a server with a Python model for each behaviour."""
    repository = write_toy_repository(tmp_path_factory.mktemp("served"))
    for name in BEHAVIOURS:
        write_graph_model(repository, name, graph="user_tower")
        as_python_model(repository, name)
    with served_briefly(repository, warm=False) as server:
        yield server.api


def graphs(folder: Path, name: str) -> Path:
    """A repository with the one graph model `name`."""
    repository = write_toy_repository(folder / "graphs")
    write_graph_model(repository, name, graph="user_tower")
    publish(repository)
    return repository


def test_a_model_that_answers_right(api: Api, tmp_path: Path) -> None:
    check_parity(api, graphs(tmp_path, "right"))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "stale",
            r"^model stale, batches of 8: output query for sample \d+ is that of another request, for sample \d+",
        ),
        (
            "wrong",
            r"^model wrong, batches of 1: output query differs by 0\.\d+ standard .* expected; allowed: 0\.0300$",
        ),
        ("broken", r"^model broken does not answer the samples of its bundle: .*no such kernel"),
        ("absent", r"^model absent does not answer the samples of its bundle: .*unknown model: 'absent'"),
    ],
)
def test_a_model_that_does_not(api: Api, tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(ParityError, match=message):
        check_parity(api, graphs(tmp_path, name))


def test_a_server_is_ready_only_with_parity_on_a_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The models of the toy repository are no graphs; what counts is who is asked when."""
    repository = write_toy_repository(tmp_path / "repository")
    calls = repository / "recommend" / "calls.txt"
    asked: list[tuple[Path, bool]] = []

    def refuse(api: Api, repository: Path) -> None:
        asked.append((repository, calls.exists()))
        raise ParityError("model user_tower: output query differs")

    monkeypatch.setattr(process, "check_parity", refuse)
    monkeypatch.setattr(process, "check_plans", lambda repository: pytest.fail("the embedded server needs no plans"))
    with served_briefly(repository):
        assert asked == []
    calls.unlink()
    publish(repository, target="gpu")
    server: TritonServer = served_briefly(repository)
    with pytest.raises(ParityError, match="output query differs"):
        server.start()
    assert asked == [(repository, True)]
    assert not server.is_running
