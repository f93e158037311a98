"""`serve` on the real tritonserver, while its processes are killed: what is noticed, what comes back, what is left behind."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tritonclient import grpc
from tritonclient.utils import InferenceServerException

from tests.support.serving import eventually, processes_of, serve_process, server_pid, shared_memory_of
from tests.support.toy_repository import MODEL, write_toy_repository
from trireme_client import Client, TriremeError
from trireme_server.stubs import Stub, find_stubs

ENSEMBLE = """
platform: "ensemble"
max_batch_size: 16
input [
  { name: "user_id" data_type: TYPE_INT64 dims: [ 1 ] },
  { name: "history" data_type: TYPE_INT64 dims: [ 4 ] optional: true }
]
output [
  { name: "item_id" data_type: TYPE_INT64 dims: [ 3 ] },
  { name: "score" data_type: TYPE_FP32 dims: [ 3 ] },
  { name: "rung" data_type: TYPE_UINT8 dims: [ 1 ] },
  { name: "reason" data_type: TYPE_UINT8 dims: [ 1 ] },
  { name: "feature_age_s" data_type: TYPE_FP32 dims: [ 1 ] }
]
ensemble_scheduling { step [ { model_name: "recommend_fused" model_version: -1 MAPS } ] }
"""


def write_ensemble(root: Path) -> Path:
    """A toy repository whose entry model is an ensemble of one step."""
    maps = [f'input_map {{ key: "{name}" value: "{name}" }}' for name in ("user_id", "history")]
    outputs = ("item_id", "score", "rung", "reason", "feature_age_s")
    maps += [f'output_map {{ key: "{name}" value: "{name}" }}' for name in outputs]
    write_toy_repository(root, ("recommend", "recommend_fused"))
    (root / "recommend" / "config.pbtxt").write_text(ENSEMBLE.replace("MAPS", " ".join(maps)))
    return root


@dataclass
class Serving:
    """A process in `serve`, and what it has written to standard error."""

    process: subprocess.Popen[str]
    repository: Path
    errors: Path

    @property
    def grpc_url(self) -> str:
        (url,) = re.findall(r"grpc (\S+)", self.process.ready_line)  # type: ignore[attr-defined]
        return str(url)

    @property
    def http_urls(self) -> list[str]:
        """Of tritonserver, its metrics, and the health endpoint."""
        return re.findall(r"http://\S+", self.process.ready_line)  # type: ignore[attr-defined]

    def status(self, url: str, body: bytes | None = None) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(url, body, timeout=5) as answer:
                return answer.status, answer.read().decode().strip()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode().strip()

    @property
    def readiness(self) -> tuple[int, str]:
        return self.status(self.http_urls[2])

    def answers(self) -> bool:
        try:
            with Client(self.grpc_url, timeout=5) as client:
                return client.recommend(41, 3).item_ids.tolist() == [41, 42, 43]
        except TriremeError:
            return False

    def failures(self, requests: int) -> int:
        """Of so many requests one after the other, those that get no answer, or a wrong one."""
        return sum(not self.answers() for _ in range(requests))

    def stubs(self) -> list[Stub]:
        return find_stubs(f"trireme_{self.process.pid}_")

    def said(self, pattern: str) -> bool:
        return re.search(pattern, self.errors.read_text(), flags=re.MULTILINE) is not None

    def stop(self) -> None:
        """Stops it as a person would; nothing of it may be left."""
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(timeout=30) == 0
        assert processes_of(self.repository) == []
        # tritonserver would count down to its own limit: it never gets done with unloading a model with a dead instance.
        assert not self.said(r"Timeout 9: Found \d+ live models")
        assert shared_memory_of(self.process.pid) == []


@contextmanager
def serve_toy(repository: Path, folder: Path, **options: Any) -> Iterator[Serving]:
    errors = folder / "errors"
    with errors.open("w") as file, serve_process(repository, file, {}, **options) as process:
        yield Serving(process, repository, errors)


@pytest.fixture
def serving(tmp_path: Path) -> Iterator[Serving]:
    with serve_toy(write_toy_repository(tmp_path / "repository"), tmp_path) as served:
        yield served


def test_a_killed_server_is_back_on_its_port_and_its_end_is_said(serving: Serving) -> None:
    killed = server_pid(serving.repository)
    assert serving.readiness == (200, "ready")
    (mark,) = (path for path in shared_memory_of(serving.process.pid) if path.name.endswith("_ready"))
    assert mark.read_text() == serving.http_urls[2]  # where the health check of the image asks
    os.kill(killed, signal.SIGSTOP)
    assert serving.readiness == (503, "tritonserver does not answer that it is ready (timed out)")
    os.kill(killed, signal.SIGCONT)
    assert eventually(lambda: serving.readiness == (200, "ready"))
    os.kill(killed, signal.SIGKILL)
    assert eventually(lambda: serving.readiness == (503, f"tritonserver (process {killed}) was killed by SIGKILL"))
    assert eventually(lambda: serving.said(r"^tritonserver is ready again \(process \d+\): bundle toy-1 version 1"))
    assert serving.answers()
    assert serving.readiness == (200, "ready")
    assert server_pid(serving.repository) != killed
    # What it wrote before it was ready, such as that there is no driver for a GPU, is not the reason.
    said = r"after \d+ s: its log tells of no error since it was ready; it is started again at once$"
    assert serving.said(rf"^tritonserver \(process {killed}\) was killed by SIGKILL {said}")
    serving.stop()


def test_a_server_that_hangs_is_killed_and_back(serving: Serving) -> None:
    hanging = server_pid(serving.repository)
    os.kill(hanging, signal.SIGSTOP)
    assert eventually(
        lambda: serving.said(r"is given up \(it has not answered 5 questions in a row whether it lives\)")
    )
    assert eventually(lambda: serving.said(r"^tritonserver is ready again"))
    assert serving.answers()
    assert server_pid(serving.repository) != hanging
    serving.stop()


def test_a_server_whose_guardian_is_killed_is_back(serving: Serving) -> None:
    guardian = int(Path(f"/proc/{server_pid(serving.repository)}/stat").read_text().rpartition(")")[2].split()[1])
    os.kill(guardian, signal.SIGKILL)
    assert eventually(lambda: serving.said(r"^tritonserver is ready again"))
    assert serving.answers()
    serving.stop()


def test_a_bundle_that_is_overwritten_is_not_served_until_it_is_whole_again(serving: Serving) -> None:
    file = serving.repository / "recommend" / "1" / "model.py"
    exported = file.read_text()
    file.write_text(exported.replace("np.arange(3)", "1"))
    assert eventually(lambda: serving.readiness[0] == 503)
    assert serving.said(rf"is given up \({re.escape(str(file))} was changed in place while it was served\)")
    assert eventually(lambda: serving.said(r"did not come up again: .*model.py: has [0-9]+ bytes"))
    file.write_text(exported)
    assert eventually(lambda: serving.readiness == (200, "ready"))
    assert serving.answers()
    serving.stop()


def test_an_ensemble_goes_on_while_an_instance_of_its_step_is_replaced(tmp_path: Path) -> None:
    """Under load: what Triton gives to the dead instance before it is gone fails after a second each, and nothing else does."""
    with serve_toy(write_ensemble(tmp_path / "repository"), tmp_path) as serving, ThreadPoolExecutor() as pool:
        answered: list[bool] = []
        done = threading.Event()

        def ask() -> None:
            while not done.is_set():
                answered.append(serving.answers())

        callers = [pool.submit(ask) for _ in range(4)]
        os.kill(serving.stubs()[0].pid, signal.SIGKILL)
        replaced = eventually(lambda: serving.said(r"^replaced recommend_fused_0 of model recommend_fused$"))
        done.set()
        for caller in callers:
            caller.result()
        assert replaced
        assert answered.count(False) < min(20, 0.2 * len(answered))
        assert serving.failures(100) == 0
        serving.stop()


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGSTOP])
def test_a_stub_that_ends_or_is_stopped_is_replaced_alone(serving: Serving, signum: signal.Signals) -> None:
    server, (victim, other) = server_pid(serving.repository), serving.stubs()
    os.kill(victim.pid, signum)
    assert eventually(lambda: serving.said(rf"^replaced {victim.instance.removesuffix('_0')} of model recommend$"))
    assert serving.said(
        rf"^the stub of instance {victim.instance} \(process {victim.pid}\) .*; it is replaced at once$"
    )
    assert serving.failures(100) == 0
    now, still = serving.stubs()
    assert (now.instance, still) == (victim.instance, other)
    assert now.pid != victim.pid
    assert server_pid(serving.repository) == server
    serving.stop()


def test_all_stubs_of_a_model_are_replaced(serving: Serving) -> None:
    server = server_pid(serving.repository)
    for stub in serving.stubs():
        os.kill(stub.pid, signal.SIGKILL)
    assert eventually(lambda: serving.readiness == (503, "no instance works of recommend"))
    assert eventually(lambda: serving.said(r"^replaced recommend_0.* of model recommend$"))
    assert eventually(lambda: len(serving.stubs()) == 2)
    assert serving.failures(100) == 0
    assert server_pid(serving.repository) == server
    serving.stop()


def test_only_inference_health_and_descriptions_are_open_and_inference_not_over_http(serving: Serving) -> None:
    server = server_pid(serving.repository)
    with grpc.InferenceServerClient(serving.grpc_url) as client:
        for closed in (
            lambda: client.unload_model("recommend"),
            lambda: client.load_model("recommend"),
            lambda: client.get_model_repository_index(),
            lambda: client.get_system_shared_memory_status(),
            lambda: client.update_log_settings({"log_verbose_level": 9}),
            lambda: client.update_trace_settings("recommend", {"trace_level": ["TIMESTAMPS"]}),
        ):
            with pytest.raises(InferenceServerException, match="This protocol is restricted"):
                closed()
        assert client.get_model_config("recommend").config.name == "recommend"
        assert client.get_inference_statistics("recommend").model_stats
    http, metrics, _ = serving.http_urls
    # This one ends a server that is open.
    too_large = {"inputs": [{"name": "user_id", "datatype": "INT64", "shape": [2**32, 1], "data": [1]}]}
    for path in ("models/recommend/infer", "models/recommend/generate", "repository/index", "logging"):
        status, line = serving.status(f"{http}/v2/{path}", json.dumps(too_large).encode())
        assert (status, "This API is restricted" in line) == (403, True)
    assert serving.status(f"{http}/v2/health/ready") == (200, "")
    assert "nv_inference_request_success" in serving.status(metrics)[1]
    assert serving.answers()
    assert server_pid(serving.repository) == server


def test_http_is_open_on_request_with_a_warning(tmp_path: Path) -> None:
    repository = write_toy_repository(tmp_path / "repository")
    with serve_toy(repository, tmp_path, http=True) as serving:
        assert serving.said("^warning: inference over HTTP is open")
        user = {"name": "user_id", "datatype": "INT64", "shape": [1, 1], "data": [41]}
        status, answer = serving.status(
            f"{serving.http_urls[0]}/v2/models/recommend/infer", json.dumps({"inputs": [user]}).encode()
        )
        assert status == 200
        assert json.loads(answer)["outputs"][0]["data"] == [41, 42, 43]


def test_a_stop_during_a_restart_leaves_nothing_behind(serving: Serving) -> None:
    killed = server_pid(serving.repository)
    os.kill(killed, signal.SIGKILL)
    assert eventually(lambda: serving.said(r"it is started again at once$"))
    assert not serving.said(r"ready again")
    serving.stop()


def test_a_server_that_takes_more_and_more_memory_is_started_again(tmp_path: Path) -> None:
    leaks = "users += len(user)\n            if user[0, 0] == 777: self.kept = np.ones(100_000_000)"
    repository = write_toy_repository(tmp_path / "repository", model=MODEL.replace("users += len(user)", leaks))
    with serve_toy(repository, tmp_path, memory_limit_gb=0.7) as serving:
        before = server_pid(serving.repository)
        assert not serving.said("its memory is not watched")
        with (
            Client(serving.grpc_url, timeout=30) as client,
            suppress(TriremeError),
        ):  # it may be noticed before the answer
            client.recommend(777)
        assert eventually(lambda: serving.said(r"is given up \(it takes \d\.\d+ GB of memory; the limit is 0\.70 GB\)"))
        assert eventually(lambda: serving.said(r"^tritonserver is ready again"))
        assert serving.failures(20) == 0
        assert server_pid(serving.repository) != before
        serving.stop()
