"""What is refused before a server of NVIDIA's starts on TensorRT models; GPUs and TensorRT's library are stand-ins."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support.graph_repository import publish, write_graph_model, write_graph_repository
from tests.support.serving import ANY_PORT
from tests.support.toy_repository import write_toy_repository
from trireme_runtime.bundle import describe_file
from trireme_server import PlanError, TritonServer
from trireme_server.plans import check_plans
from trireme_server.plans.graphs import tensorrt_models
from trireme_server.plans.machine import Gpu, ask_nvidia_smi, capabilities, installed_tensorrt, visible_gpus
from trireme_server.plans.stamp import Origin, Stamp, plan_file

H100 = Gpu(0, "GPU-h100", "9.0", "NVIDIA H100")
L4 = Gpu(1, "GPU-l4", "8.9", "NVIDIA L4")
TWO_GPUS = "0, GPU-aa, 9.0, NVIDIA H100 80GB HBM3\n1, GPU-bb, 8.9, NVIDIA L4, passive\n"


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    return write_graph_repository(tmp_path / "repository")


def stamp_plans(repository: Path, tensorrt: str = "11.1.0", capability: str = "9.0") -> None:
    for model in tensorrt_models(repository):
        plan = plan_file(model, capability)
        plan.write_text(f"plan of {model.name}")
        Stamp(Origin.of(model, capability, tensorrt), describe_file(plan).sha256, "2026-11-27T05:39:07+00:00").write(
            plan
        )


def check(repository: Path, *gpus: Gpu, tensorrt: str = "11.1.0") -> None:
    check_plans(repository, gpus=lambda: list(gpus or (H100,)), tensorrt=lambda: tensorrt)


class TestCheck:
    def test_plans_that_fit(self, repository: Path) -> None:
        stamp_plans(repository)
        check(repository)
        check(repository, H100, H100)

    def test_a_plan_is_missing_for_each_model(self, repository: Path) -> None:
        with pytest.raises(PlanError) as error:
            check(repository)
        assert str(error.value) == (
            "model ranking has no plan for compute capability 9.0 (9.0.plan); "
            "model user_tower has no plan for compute capability 9.0 (9.0.plan); "
            f"run: trireme plans build {repository}"
        )

    def test_each_kind_of_visible_gpu_needs_one(self, repository: Path) -> None:
        stamp_plans(repository)
        with pytest.raises(PlanError, match=r"has no plan for compute capability 8\.9 .*; run: trireme plans build"):
            check(repository, H100, L4)

    def test_of_another_tensorrt(self, repository: Path) -> None:
        stamp_plans(repository, "10.12.0")
        with pytest.raises(PlanError, match=r"ranking has a plan for tensorrt 10\.12\.0, here is tensorrt 11\.1\.0"):
            check(repository)

    def test_of_another_bundle(self, repository: Path) -> None:
        stamp_plans(repository)
        publish(repository, "toy-2")
        with pytest.raises(PlanError, match="ranking has a plan for bundle_id toy-1, here is bundle_id toy-2"):
            check(repository)

    def test_of_another_graph(self, repository: Path) -> None:
        stamp_plans(repository)
        graph = repository / "ranking/1/model.onnx"
        graph.write_bytes(graph.read_bytes() + b"\n")
        publish(repository)
        with pytest.raises(
            PlanError, match=r"^model ranking has a plan for graph \w{12}…, .*, here is graph [^;]*; run"
        ):
            check(repository)

    def test_of_another_capability(self, repository: Path) -> None:
        stamp_plans(repository)
        for suffix in ("plan", "plan.json"):
            (repository / f"ranking/1/9.0.{suffix}").rename(repository / f"ranking/1/8.9.{suffix}")
        with pytest.raises(PlanError, match=r"a plan for compute_capability 9\.0, here is compute_capability 8\.9"):
            check(repository, L4)

    def test_a_damaged_one(self, repository: Path) -> None:
        stamp_plans(repository)
        (repository / "ranking/1/9.0.plan").write_text("plan of ran")
        with pytest.raises(PlanError, match=r"model ranking has a damaged plan \(9\.0\.plan\)"):
            check(repository)

    def test_without_a_stamp(self, repository: Path) -> None:
        stamp_plans(repository)
        (repository / "ranking/1/9.0.plan.json").unlink()
        with pytest.raises(PlanError, match=r"without a readable stamp \(9\.0\.plan\.json\)"):
            check(repository)

    def test_a_repository_without_tensorrt_models_needs_no_gpu(self, tmp_path: Path) -> None:
        repository = write_toy_repository(tmp_path / "other")
        write_graph_model(repository, "user_tower", engine="onnxruntime")
        publish(repository)
        check_plans(repository, gpus=lambda: pytest.fail("asked"), tensorrt=lambda: pytest.fail("asked"))


class TestStart:
    """A server that is not the embedded one is refused before it starts; a script stands in for NVIDIA's."""

    @pytest.fixture
    def started(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """The file that tells that the server was started."""
        program = tmp_path / "bin" / "tritonserver"
        program.parent.mkdir()
        program.write_text(f"#!/bin/sh\ntouch {tmp_path}/started\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
        monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path))
        (tmp_path / "libnvinfer.so.11.1.0").touch()
        return tmp_path / "started"

    def test_without_plans(self, repository: Path, started: Path) -> None:
        with pytest.raises(PlanError, match="no GPU is visible here: there is no nvidia-smi"):
            TritonServer(repository, **ANY_PORT).start()
        assert not started.exists()

    def test_of_target_cpu_nobody_asks_for_plans(self, repository: Path, started: Path) -> None:
        publish(repository, target="cpu")
        with pytest.raises(Exception, match="tritonserver ended"):
            TritonServer(repository, **ANY_PORT).start()
        assert started.exists()


class TestGpus:
    def test_all_of_them(self) -> None:
        assert visible_gpus(lambda: TWO_GPUS, {}) == [
            Gpu(0, "GPU-aa", "9.0", "NVIDIA H100 80GB HBM3"),
            Gpu(1, "GPU-bb", "8.9", "NVIDIA L4, passive"),
        ]

    @pytest.mark.parametrize(
        ("environment", "uuids"),
        [
            ({"CUDA_VISIBLE_DEVICES": "GPU-b"}, ["GPU-bb"]),
            ({"CUDA_VISIBLE_DEVICES": "1", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}, ["GPU-bb"]),
            ({"CUDA_VISIBLE_DEVICES": "1"}, ["GPU-aa", "GPU-bb"]),  # in an order that nvidia-smi does not know
            ({"CUDA_VISIBLE_DEVICES": "MIG-7"}, ["GPU-aa", "GPU-bb"]),
        ],
    )
    def test_those_that_cuda_shows(self, environment: dict[str, str], uuids: list[str]) -> None:
        assert [gpu.uuid for gpu in visible_gpus(lambda: TWO_GPUS, environment)] == uuids

    @pytest.mark.parametrize(
        ("answer", "shown", "message"),
        [
            ("", None, "^no GPU is visible here$"),
            (TWO_GPUS, "-1", "no GPU is visible here; CUDA_VISIBLE_DEVICES is '-1'"),
            (TWO_GPUS, "", "CUDA_VISIBLE_DEVICES is ''"),
            (TWO_GPUS, "GPU-cc", "CUDA_VISIBLE_DEVICES is 'GPU-cc'"),
            ("0, GPU-aa, [N/A], NVIDIA", None, "nvidia-smi answered '0, GPU-aa.*expected index"),
            ("No devices were found", None, "nvidia-smi answered 'No devices"),
        ],
    )
    def test_none(self, answer: str, shown: str | None, message: str) -> None:
        environment = {} if shown is None else {"CUDA_VISIBLE_DEVICES": shown}
        with pytest.raises(PlanError, match=message):
            visible_gpus(lambda: answer, environment)

    def test_nvidia_smi_fails(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        program = tmp_path / "nvidia-smi"
        program.write_text("#!/bin/sh\necho 'NVIDIA-SMI has failed'\nexit 9\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
        with pytest.raises(PlanError, match="nvidia-smi says 'NVIDIA-SMI has failed'"):
            ask_nvidia_smi()

    def test_one_of_each_capability_in_the_order_of_numbers(self) -> None:
        b200, twin = Gpu(2, "GPU-b200", "10.0", "NVIDIA B200"), Gpu(3, "GPU-twin", "9.0", "NVIDIA H100")
        assert list(capabilities([H100, b200, L4, twin]).items()) == [("8.9", L4), ("9.0", H100), ("10.0", b200)]


class TestTensorrt:
    @pytest.fixture
    def library(self, tmp_path: Path) -> Path:
        """As NVIDIA's packages install it."""
        (tmp_path / "libnvinfer.so.11.1.0").touch()
        (tmp_path / "libnvinfer.so.11").symlink_to("libnvinfer.so.11.1.0")
        (tmp_path / "libnvinfer_plugin.so.10.9.0").touch()
        return tmp_path / "libnvinfer.so.11"

    def test_of_the_library_path(self, library: Path) -> None:
        environment = {"LD_LIBRARY_PATH": f"/nothing:{library.parent}"}
        assert installed_tensorrt(environment, lambda: "") == "11.1.0"

    def test_of_the_loader(self, library: Path) -> None:
        listing = (
            "2 libs found in cache `/etc/ld.so.cache'\n"
            f"\tlibnvinfer_plugin.so.10 (libc6,x86-64) => {library.parent}/libnvinfer_plugin.so.10.9.0\n"
            f"\tlibnvinfer.so.11 (libc6,x86-64) => {library}\n"
        )
        assert installed_tensorrt({}, lambda: listing) == "11.1.0"

    def test_none(self) -> None:
        with pytest.raises(
            PlanError, match=r"TensorRT is not installed here: the loader finds no libnvinfer\.so\.X\.Y\.Z"
        ):
            installed_tensorrt({}, lambda: "")

    def test_what_this_machine_has_is_no_tensorrt(self) -> None:
        """The real loader is asked, which must not fail."""
        with pytest.raises(PlanError, match="TensorRT is not installed here"):
            installed_tensorrt(os.environ)
