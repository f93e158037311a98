"""Models of the backends ``tensorrt`` and ``onnxruntime`` on the embedded server, whose stand-ins serve their graphs."""

from __future__ import annotations

import json
import shutil
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException
from typer.testing import CliRunner

from tests.support.served_graphs import WEIGHTS, write_picker, write_tower
from tests.support.serving import served_briefly
from tests.support.toy_repository import DIMS
from trireme_cli.app import app
from trireme_runtime.bundle import Manifest
from trireme_server import TritonServer

TOWER = """
name: "{name}"
platform: "tensorrt_plan"
default_model_filename: "model.plan"
cc_model_filenames {{ key: "9.0" value: "9.0.plan" }}
max_batch_size: 8
input [ {{ name: "history_index" data_type: TYPE_INT32 dims: [ {width} ] {optional} }} ]
output [ {{ name: "{output}" data_type: {dtype} dims: [ 2 ] }} ]
dynamic_batching {{ max_queue_delay_microseconds: 100000 }}
{more}
"""
FITTING = {"width": "3", "optional": "", "output": "query", "dtype": "TYPE_FP32", "more": ""}

PICKER = """
name: "picker"
backend: "onnxruntime"
default_model_filename: "model.onnx"
max_batch_size: 8
input [
  { name: "query" data_type: TYPE_FP32 dims: [ 2 ] },
  { name: "column" data_type: TYPE_INT32 dims: [ 1 ] }
]
output [
  { name: "picked" data_type: TYPE_FP32 dims: [ 1 ] },
  { name: "doubled" data_type: TYPE_FP32 dims: [ 2 ] }
]
optimization { execution_accelerators { gpu_execution_accelerator [ { name: "tensorrt" } ] } }
dynamic_batching { max_queue_delay_microseconds: 100000 }
"""

ENTRY = """
name: "recommend"
platform: "ensemble"
max_batch_size: 8
input [
  { name: "history_index" data_type: TYPE_INT32 dims: [ 3 ] },
  { name: "column" data_type: TYPE_INT32 dims: [ 1 ] }
]
output [ { name: "picked" data_type: TYPE_FP32 dims: [ 1 ] } ]
ensemble_scheduling { step [
  { model_name: "tower" model_version: -1
    input_map { key: "history_index" value: "history_index" } output_map { key: "query" value: "query" } },
  { model_name: "picker" model_version: -1
    input_map { key: "query" value: "query" } input_map { key: "column" value: "column" }
    output_map { key: "picked" value: "picked" } }
] }
"""

#: What is other than in ``FITTING``, and the words that name it.
REFUSED = {
    "optional": (
        {"optional": "optional: true"},
        "'optional' is set to true for input 'history_index' while the backend",
    ),
    "on_cpu": ({"more": "instance_group [ { kind: KIND_CPU } ]"}, "TensorRT backend supports only GPU device"),
    "wide": ({"width": "4"}, "tensor 'history_index': the model expects 2 dimensions (shape [-1,3]) but the model"),
    "typed": (
        {"dtype": "TYPE_FP16"},
        "unexpected datatype TYPE_FP32 for inference output 'query', expecting TYPE_FP16",
    ),
    "named": ({"output": "other"}, "unexpected inference output 'other', allowed outputs are: query"),
    "no_graph": ({}, "model.onnx: cannot be loaded by ONNX Runtime"),
}


def write_repository(root: Path) -> Path:
    (root / "recommend" / "1").mkdir(parents=True)
    (root / "recommend" / "config.pbtxt").write_text(ENTRY)
    manifest = Manifest("toy-1", 1, "ensemble", "cpu", DIMS, {}, {})
    (root / "recommend" / "1" / "manifest.json").write_text(manifest.to_json())
    write_picker(root / "picker" / "1")
    (root / "picker" / "config.pbtxt").write_text(PICKER)
    for name, (changes, _) in {"tower": ({}, ""), **REFUSED}.items():
        write_tower(root / name / "1")
        (root / name / "config.pbtxt").write_text(TOWER.format(name=name, **{**FITTING, **changes}))
    shutil.rmtree(root / "no_graph" / "1")
    (root / "no_graph" / "1").mkdir()
    return root


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonServer]:
    folder = tmp_path_factory.mktemp("stand_ins")
    repository = write_repository(folder / "repository")
    arguments = ["--model-control-mode=explicit", "--load-model=recommend"]
    with served_briefly(repository, warm=False, log_path=folder / "log", extra_arguments=arguments) as server:
        yield server


@pytest.fixture
def client(server: TritonServer) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(server.grpc_url) as client:
        yield client


def tensor(name: str, array: np.ndarray) -> triton.InferInput:
    dtype = {"int32": "INT32", "float32": "FP32"}[array.dtype.name]
    given = triton.InferInput(name, list(array.shape), dtype)
    given.set_data_from_numpy(array)
    return given


def ask_picker(client: triton.InferenceServerClient, value: float, column: int) -> triton.InferResult:
    query = tensor("query", np.array([[value, value + 1]], np.float32))
    return client.infer("picker", [query, tensor("column", np.array([[column]], np.int32))])


def log_of(server: TritonServer) -> str:
    assert server.log_path is not None
    return server.log_path.read_text()


def test_an_ensemble_of_both_engines_answers(client: triton.InferenceServerClient) -> None:
    history = np.array([[1, 0, 2], [4, 5, 6], [0, 0, 7]], np.int32)
    column = np.array([[0], [1], [1]], np.int32)
    answer = client.infer("recommend", [tensor("history_index", history), tensor("column", column)])
    expected = np.take_along_axis(history.astype(np.float32) @ WEIGHTS, column, axis=1)
    assert answer.as_numpy("picked").tolist() == expected.tolist()


def test_an_output_that_is_not_asked_for_is_left_out(client: triton.InferenceServerClient) -> None:
    inputs = [tensor("query", np.ones((2, 2), np.float32)), tensor("column", np.zeros((2, 1), np.int32))]
    answer = client.infer("picker", inputs, outputs=[triton.InferRequestedOutput("doubled")])
    assert answer.as_numpy("doubled").tolist() == [[2, 2], [2, 2]]
    assert answer.as_numpy("picked") is None


def test_requests_are_batched_and_one_that_fails_does_not_fail_its_neighbours(
    client: triton.InferenceServerClient,
) -> None:
    def counted() -> tuple[int, int]:
        (found,) = client.get_inference_statistics("picker").model_stats
        return found.inference_count, found.execution_count

    def ask(value: int) -> list | str:
        try:
            return ask_picker(client, value, 5 if value == 3 else 1).as_numpy("picked").tolist()
        except InferenceServerException as error:
            return error.message()

    before = counted()
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(ask, range(8)))
    after = counted()
    assert [answer for value, answer in enumerate(answers) if value != 3] == [
        [[value + 1]] for value in range(8) if value != 3
    ]
    assert "picker: " in answers[3]
    assert "Out of range value in index tensor" in answers[3]
    assert after[1] - before[1] < 7  # of so many that succeeded


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ((1, 4), "unexpected shape for input 'history_index' for model 'tower'"),
        ((9, 3), "inference request batch-size must be <= 8 for 'tower'"),
        ((3,), "unexpected shape for input 'history_index'"),
        ((0, 3), "input byte size mismatch for input 'history_index' for model 'tower'. Expected 12, got 0"),
    ],
)
def test_a_malformed_request_gets_its_error_and_the_server_lives(
    shape: tuple[int, ...], words: str, client: triton.InferenceServerClient
) -> None:
    with pytest.raises(InferenceServerException) as caught:
        client.infer("tower", [tensor("history_index", np.ones(shape, np.int32))])
    assert words in caught.value.message()
    assert ask_picker(client, 5, 0).as_numpy("picked").tolist() == [[5]]


@pytest.mark.parametrize("name", REFUSED)
def test_what_the_real_backend_refuses_is_not_loaded_and_the_log_says_why(
    name: str, server: TritonServer, client: triton.InferenceServerClient
) -> None:
    _, words = REFUSED[name]
    with pytest.raises(InferenceServerException) as caught:
        client.load_model(name)
    assert words in caught.value.message()
    assert words in log_of(server)
    assert ask_picker(client, 5, 0).as_numpy("picked").tolist() == [[5]]


def test_stand_ins_say_that_they_are(server: TritonServer, client: triton.InferenceServerClient) -> None:
    log = log_of(server)
    for model, engine in (("tower", "tensorrt"), ("picker", "onnxruntime")):
        line = f"model {model}: a stand-in, ONNX Runtime on the CPU in place of the backend {engine}"
        assert log.count(line) == 1
    with urllib.request.urlopen(server.metrics_url, timeout=5) as answer:
        metrics = answer.read().decode().splitlines()
    found = [line for line in metrics if line.startswith("trireme_stand_in{")]
    assert sorted(found) == [
        'trireme_stand_in{engine="onnxruntime",model="picker"} 1',
        'trireme_stand_in{engine="tensorrt",model="tower"} 1',
    ]


def test_the_ledger_says_so(server: TritonServer, client: triton.InferenceServerClient) -> None:
    inputs = [tensor("history_index", np.ones((1, 3), np.int32)), tensor("column", np.zeros((1, 1), np.int32))]
    client.infer("recommend", inputs)
    command = ["ledger", "--url", server.grpc_url, "--metrics-url", server.metrics_url]
    told = CliRunner().invoke(app, command)
    assert "tower: a stand-in, ONNX Runtime on the CPU in place of TensorRT" in told.output
    read = CliRunner().invoke(app, [*command, "--json"])
    assert json.loads(read.stdout.splitlines()[-1])["stand_ins"] == ["tower", "picker"]
