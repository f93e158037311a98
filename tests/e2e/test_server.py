"""The real tritonserver, started, stopped and killed in every way, on a model that only adds numbers."""

from __future__ import annotations

import ctypes
import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from tritonclient import grpc

from tests.support.serving import (
    ANY_PORT,
    eventually,
    is_ready,
    processes_of,
    serve_process,
    served_briefly,
    shared_memory_of,
)
from tests.support.toy_repository import MODEL, write_toy_repository
from trireme_client import Client
from trireme_server import PortInUseError, Ready, RepositoryError, StartError, TritonServer, WarmupError

#: For a model, which runs in a stub: a child of the server.
KILL_THE_SERVER = "import signal; os.kill(os.getppid(), signal.SIGKILL)"


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_toy_repository(tmp_path_factory.mktemp("repository"), ("recommend", "recommend_fused"))


@pytest.fixture
def temporary(tmp_path: Path) -> Path:
    """Where `serving` puts temporary files."""
    (tmp_path / "temporary").mkdir()
    return tmp_path / "temporary"


@pytest.fixture
def serving(repository: Path, temporary: Path) -> Iterator[subprocess.Popen[str]]:
    """A process in `serve`, after it has printed its ready line (kept in `.ready_line`)."""
    with serve_process(repository, subprocess.PIPE, {"TMPDIR": str(temporary)}) as process:
        yield process


def test_is_ready_only_after_warm_up_and_leaves_nothing_behind(tmp_path: Path) -> None:
    repository = write_toy_repository(tmp_path / "repository", ("recommend", "recommend_fused"))
    others = set(shared_memory_of(os.getpid()))
    with TritonServer(repository, cpu_affinity=(0,), log_path=tmp_path / "server.log", **ANY_PORT) as server:
        ready = Ready.of(server)
        for model in ("recommend", "recommend_fused"):
            calls = np.loadtxt(repository / model / "calls.txt", dtype=int)
            assert calls[:, 1].sum() >= 2 * (8 + 3 * 64 + 16)  # with and without history
            assert calls[:, 0].max() > 1, "no dynamic batch formed"
            assert calls[:, 1].max() == 16, "the largest batch was never tried"
        user = grpc.InferInput("user_id", [1, 1], "INT64")
        user.set_data_from_numpy(np.int64([[41]]))
        with grpc.InferenceServerClient(server.grpc_url) as client:
            assert client.infer("recommend", [user]).as_numpy("item_id").tolist() == [[41, 42, 43]]
        assert ready.models == ("recommend", "recommend_fused")
        assert (ready.plan, ready.bundle_id, ready.version) == ("fused", "toy-1", 1)
        assert ready.load_s > 0
        assert ready.warmup_requests == 2 * 2 * (8 + 3 * 64 + 1)
        # Of four instances; the links to the models; and the mark of a server that is ready.
        assert len(set(shared_memory_of(os.getpid())) - others) == 6
    assert processes_of(repository) == []
    assert set(shared_memory_of(os.getpid())) <= others
    assert "recommend" in (tmp_path / "server.log").read_text()


def health_check(prefix: str) -> list[str]:
    """The command of the image, for the server whose shared memory has this prefix: other tests may serve here, too."""
    text = (Path(__file__).parents[2] / "docker" / "Dockerfile").read_text()
    (found,) = set(
        re.findall(r"^HEALTHCHECK .*\\\n +CMD (\[.*\])$", text, flags=re.MULTILINE)
    )  # both images have the same
    command = json.loads(found)
    assert command[0] == "python3"
    assert "trireme_*_ready" in command[2]
    return [sys.executable, command[1], command[2].replace("trireme_*", f"{prefix}*")]


def test_the_image_is_healthy_only_after_the_warm_up(tmp_path: Path) -> None:
    gate = tmp_path / "go"
    waiting = f"import time\n        while not Path({str(gate)!r}).exists(): time.sleep(0.01)\n        "
    model = MODEL.replace("responses, users = [], 0", waiting + "responses, users = [], 0")
    server = served_briefly(write_toy_repository(tmp_path / "repository", model=model))
    with ThreadPoolExecutor() as pool:
        starting = pool.submit(server.start)
        assert eventually(lambda: server.pid is not None and is_ready(server.http_url))
        healthy = health_check(server.shm_prefix.rstrip("_"))
        assert subprocess.run(healthy, capture_output=True).returncode == 1
        gate.touch()
        starting.result()
    try:
        assert subprocess.run(healthy).returncode == 0
        assert server.pid is not None
        os.kill(server.pid, signal.SIGSTOP)
        assert subprocess.run(healthy, capture_output=True).returncode == 1
    finally:
        server.stop()
    assert subprocess.run(healthy, capture_output=True).returncode == 1
    assert not list(Path("/dev/shm").glob(f"{server.shm_prefix}*"))


def test_models_see_our_packages_one_thread_and_the_given_cpus(tmp_path: Path) -> None:
    repository = write_toy_repository(tmp_path / "repository")
    with served_briefly(repository, cpu_affinity=(0,), warm=False) as server:
        about = json.loads((repository / "recommend" / "about.json").read_text())
        assert not (repository / "recommend" / "calls.txt").exists()
        assert server.log_path is None
    import trireme_runtime

    assert about["stages"] == trireme_runtime.__file__
    assert about["prefix"] == sys.prefix
    assert about["cpus"] == [0]
    assert about["OMP_NUM_THREADS"] == about["MKL_NUM_THREADS"] == "1"


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_signal_ends_every_process(serving: subprocess.Popen[str], repository: Path, signum: int) -> None:
    assert re.match(r"ready: grpc 127\.0\.0\.1:\d+ · http://.* plan fused, bundle toy-1", serving.ready_line)  # type: ignore[attr-defined]
    assert len(processes_of(repository)) > 3
    serving.send_signal(signum)
    _, errors = serving.communicate(timeout=30)
    assert serving.returncode == 0, errors
    assert "error: " not in errors
    assert processes_of(repository) == []
    assert shared_memory_of(serving.pid) == []


def test_a_stop_signal_that_interrupts_no_system_call_is_seen(serving: subprocess.Popen[str]) -> None:
    """As one does that comes just before a call that blocks; here another thread of the process takes it."""
    tasks = [int(task.name) for task in Path(f"/proc/{serving.pid}/task").iterdir()]
    other = next(task for task in tasks if task != serving.pid)
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.tgkill(serving.pid, other, signal.SIGTERM) == 0
    _, errors = serving.communicate(timeout=30)
    assert serving.returncode == 0, errors


def test_serving_writes_no_file(serving: subprocess.Popen[str], temporary: Path) -> None:
    assert serving.poll() is None
    assert list(temporary.iterdir()) == []


def test_a_server_that_is_killed_while_it_starts_names_the_signal(tmp_path: Path) -> None:
    suicidal = MODEL.replace("def initialize(self, args):", f"def initialize(self, args):\n        {KILL_THE_SERVER}")
    repository = write_toy_repository(tmp_path / "repository", model=suicidal)
    with pytest.raises(StartError, match="tritonserver was killed by SIGKILL while it was starting"):
        TritonServer(repository, **ANY_PORT).start()
    assert processes_of(repository) == []


def held_model(asked: Path, gate: Path) -> str:
    """A model that says when user 666 asks, and answers them only when the gate is there."""
    held = f"""if user[0, 0] == 666:
                import time
                Path({str(asked)!r}).touch()
                while not Path({str(gate)!r}).exists(): time.sleep(0.01)"""
    tells = """def initialize(self, args):
        from trireme_runtime.triton.busy import noting
        self.execute = noting(self.execute)"""
    model = MODEL.replace("def initialize(self, args):", tells)
    return model.replace("users += len(user)", f"users += len(user)\n            {held}")


def test_a_second_ctrl_c_does_not_interrupt_the_stop(tmp_path: Path) -> None:
    """While the server has a request to answer."""
    gate, asked = tmp_path / "go", tmp_path / "asked"
    repository = write_toy_repository(tmp_path / "repository", model=held_model(asked, gate))
    with serve_process(repository, subprocess.DEVNULL, {}) as process, ThreadPoolExecutor() as pool:
        ready: str = process.ready_line  # type: ignore[attr-defined]
        http_url, (grpc_url,) = re.findall(r"http://[0-9.:]+", ready)[0], re.findall(r"grpc (\S+)", ready)
        with Client(grpc_url, timeout=30) as client:
            client.recommend(41)
            answer = pool.submit(client.recommend, 666, 3)
            assert eventually(asked.exists)
            process.send_signal(signal.SIGINT)
            assert eventually(lambda: not is_ready(http_url))
            process.send_signal(signal.SIGINT)
            gate.touch()
            assert answer.result().item_ids.tolist() == [666, 667, 668]
        assert process.wait(timeout=30) == 0
    assert processes_of(repository) == []


def test_killing_the_owner_ends_server_and_stubs(serving: subprocess.Popen[str], repository: Path) -> None:
    serving.kill()
    assert eventually(lambda: not processes_of(repository))
    assert shared_memory_of(serving.pid) == []


def test_a_frozen_server_is_killed_after_the_grace(tmp_path: Path) -> None:
    repository = write_toy_repository(tmp_path / "repository")
    server = TritonServer(repository, stop_grace_s=1.0, **ANY_PORT).start()
    assert server.pid is not None
    os.kill(server.pid, signal.SIGSTOP)
    started = time.monotonic()
    server.stop()
    assert time.monotonic() - started < 5
    assert processes_of(repository) == []


def test_a_stop_answers_what_was_asked_and_does_not_wait_for_the_models_to_unload(tmp_path: Path) -> None:
    """Meanwhile, callers would be told that there is no such model."""
    gate, asked, ended = (tmp_path / name for name in ("go", "asked", "ended"))
    unloads = (
        f"\n    def finalize(self):\n        import time\n        time.sleep(5)\n        Path({str(ended)!r}).touch()\n"
    )
    repository = write_toy_repository(tmp_path / "repository", model=held_model(asked, gate) + unloads)
    server = TritonServer(repository, **ANY_PORT).start()
    with ThreadPoolExecutor() as pool, Client(server.grpc_url, timeout=30) as client:
        client.recommend(41)
        answer = pool.submit(client.recommend, 666, 3)
        assert eventually(asked.exists)
        stopping = pool.submit(server.stop)
        assert eventually(lambda: not is_ready(server.http_url))
        gate.touch()
        assert answer.result().item_ids.tolist() == [666, 667, 668]
        stopping.result()
    assert not ended.exists()
    assert processes_of(repository) == []


def test_a_stopped_server_can_be_started_again(tmp_path: Path) -> None:
    server = served_briefly(write_toy_repository(tmp_path / "repository"), warm=False)
    for _ in range(2):
        with server:
            assert server.is_running
        assert not server.is_running


def test_a_server_that_is_started_again_keeps_its_ports_and_its_log(tmp_path: Path) -> None:
    log = tmp_path / "server.log"
    with served_briefly(write_toy_repository(tmp_path / "repository"), warm=False, log_path=log) as server:
        assert server.pid is not None
        before = (server.grpc_url, server.http_url, server.metrics_url)
        os.kill(server.pid, signal.SIGKILL)
        assert server.wait() == -signal.SIGKILL
        server.restart()
        assert server.is_running
        assert (server.grpc_url, server.http_url, server.metrics_url) == before
        assert log.read_text().count("Started GRPCInferenceService at ") == 2


def test_a_model_that_does_not_load_is_named_with_its_reason(tmp_path: Path) -> None:
    broken = MODEL + '\nraise ValueError("weights.npy is truncated")\n'
    repository = write_toy_repository(tmp_path / "repository", model=broken)
    with pytest.raises(StartError) as caught:
        TritonServer(repository, log_path=tmp_path / "server.log", **ANY_PORT).start()
    message = str(caught.value)
    assert "model recommend version 1" in message
    assert "ValueError: weights.npy is truncated" in message
    assert "model.py(" in message
    assert "\n" not in message
    assert str(tmp_path / "server.log") in message
    assert processes_of(repository) == []


def test_a_config_that_triton_refuses_is_named(tmp_path: Path) -> None:
    repository = write_toy_repository(tmp_path / "repository")
    config = repository / "recommend" / "config.pbtxt"
    config.write_text(config.read_text() + "\nno_such_field: 1\n")
    with pytest.raises(RepositoryError, match=r"recommend/config\.pbtxt: is not .*no_such_field"):
        TritonServer(repository, **ANY_PORT).start()
    assert processes_of(repository) == []


def test_a_failing_warm_up_is_not_ready(tmp_path: Path) -> None:
    failing = MODEL.replace("responses, users = [], 0", 'raise RuntimeError("no such table: items")')
    repository = write_toy_repository(tmp_path / "repository", model=failing)
    with pytest.raises(WarmupError, match=r"model recommend failed: .*no such table: items") as caught:
        served_briefly(repository).start()
    assert "\n" not in str(caught.value)
    assert processes_of(repository) == []


def test_loading_longer_than_the_timeout_is_an_error(tmp_path: Path) -> None:
    slow = MODEL.replace(
        "def initialize(self, args):", "def initialize(self, args):\n        import time; time.sleep(60)"
    )
    repository = write_toy_repository(tmp_path / "repository", model=slow)
    with pytest.raises(StartError, match="not ready after 2 s"):
        TritonServer(repository, ready_timeout_s=2, stop_grace_s=1, **ANY_PORT).start()
    assert processes_of(repository) == []


def test_a_server_on_ipv6_is_ready_and_answers(repository: Path) -> None:
    with served_briefly(repository, host="::1") as server:
        assert re.fullmatch(r"\[::1\]:\d+", server.grpc_url)
        assert is_ready(server.http_url)
        with urllib.request.urlopen(server.metrics_url, timeout=5) as metrics:
            assert b"nv_inference_request_success" in metrics.read()
        with Client(server.grpc_url) as client:
            assert client.recommend(41, 3).item_ids.tolist() == [41, 42, 43]
        port = int(server.grpc_url.rpartition(":")[2])
        with pytest.raises(PortInUseError, match=f"port {port} on ::1 is already in use"):
            TritonServer(repository, host="::1", grpc_port=port, http_port=0, metrics_port=0).start()


def test_ports_of_a_running_server_are_refused(repository: Path) -> None:
    with served_briefly(repository, warm=False) as server:
        port = int(server.grpc_url.rpartition(":")[2])
        with pytest.raises(PortInUseError, match=f"port {port} .*--grpc-port"):
            TritonServer(repository, grpc_port=port, http_port=0, metrics_port=0).start()
        assert server.is_running


def test_a_corrupted_artifact_is_refused(tmp_path: Path) -> None:
    repository = write_toy_repository(tmp_path / "repository")
    (repository / "recommend" / "1" / "model.py").write_text(MODEL.replace("user +", "user -"))
    with pytest.raises(RepositoryError, match=r"recommend/1/model\.py: has sha256"):
        TritonServer(repository, **ANY_PORT).start()
