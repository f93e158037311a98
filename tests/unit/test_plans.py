"""Plans are built, kept and rebuilt as they should be; TensorRT and GPUs are stand-ins, for neither can be here."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import onnx
import pytest
from onnx import helper
from tritonclient.grpc.model_config_pb2 import ModelConfig
from typer.testing import CliRunner

from tests.support import fake_trtexec
from tests.support.graph_repository import config_of, graph_config, publish, write_graph_model, write_graph_repository
from trireme_cli.app import app
from trireme_runtime.bundle import verify_repository
from trireme_server import PlanError, RepositoryError
from trireme_server.plans import PlanBuild, prepare_builds
from trireme_server.plans.builders import find_builder, telling_lines
from trireme_server.plans.job import Job
from trireme_server.plans.machine import Gpu
from trireme_server.plans.profile import Profile
from trireme_server.plans.python_builder import build
from trireme_server.plans.stamp import Stamp

FAKE_TENSORRT = Path(__file__).parents[1] / "support" / "fake_tensorrt"
H100 = Gpu(0, "GPU-h100", "9.0", "NVIDIA H100")
L4 = Gpu(1, "GPU-l4", "8.9", "NVIDIA L4")

Prepare = Callable[..., list[PlanBuild]]


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    return write_graph_repository(tmp_path / "repository")


@pytest.fixture
def python_api(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that imports tensorrt gets the stand-in."""
    monkeypatch.setenv("PYTHONPATH", str(FAKE_TENSORRT))


@pytest.fixture
def trtexec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stand-in for trtexec on PATH, and no Python API."""
    folder = tmp_path / "bin"
    folder.mkdir()
    program = folder / "trtexec"
    program.write_text(Path(fake_trtexec.__file__).read_text().replace("/usr/bin/env python3", sys.executable))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    return program


@pytest.fixture
def prepare(repository: Path, tmp_path: Path) -> Prepare:
    def prepared(gpus: tuple[Gpu, ...] = (H100,), **options: object) -> list[PlanBuild]:
        return prepare_builds(repository, cache=tmp_path / "cache", gpus=lambda: list(gpus), **options)  # type: ignore[arg-type]

    return prepared


class TestProfile:
    @pytest.mark.parametrize("most", [1, 2, 7, 64])
    @pytest.mark.parametrize("preferred", [(), (1,), (4, 8), (64,)])
    def test_it_covers_every_batch_that_the_config_allows(self, most: int, preferred: tuple[int, ...]) -> None:
        config = graph_config("ranking", ("user_number", "candidate_index"), "ranking_score", max_batch_size=most)
        config.dynamic_batching.preferred_batch_size.extend(size for size in preferred if size <= most)
        shapes = Profile.of(config).shapes()
        assert shapes.keys() == {"user_number", "candidate_index"}
        for name, (least, typical, largest) in shapes.items():
            dims = next(list(tensor.dims) for tensor in config.input if tensor.name == name)
            assert [least[1:], typical[1:], largest[1:]] == [dims] * 3
            assert all(least[0] <= batch <= largest[0] for batch in range(1, most + 1))
            assert least[0] <= typical[0] <= largest[0] == most

    def test_kernels_are_chosen_for_the_largest_preferred_batch_else_for_half_of_the_largest(self) -> None:
        config = graph_config("user_tower", ("user_number",), "query", max_batch_size=64)
        assert Profile.of(config).typical == 32
        config.dynamic_batching.preferred_batch_size.extend([8, 16])
        assert Profile.of(config).typical == 16

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda config: setattr(config, "max_batch_size", 0), "user_tower: .*max_batch_size 0; a plan needs"),
            (lambda config: config.dynamic_batching.preferred_batch_size.append(9), r"is \[9\] and max_batch_size 8"),
            (lambda config: config.input[0].dims.__setitem__(0, -1), r"input user_number has dims \[-1\]"),
        ],
    )
    def test_a_config_that_allows_no_plan(self, change: Callable[[ModelConfig], None], message: str) -> None:
        config = graph_config("user_tower", ("user_number",), "query")
        change(config)
        with pytest.raises(PlanError, match=message):
            Profile.of(config)


@dataclass(frozen=True)
class Copies:
    """A builder whose plans are copies of the graphs."""

    version: str
    name: str = "cp"

    def command(self, job: Job) -> list[str]:
        return ["cp", str(job.graph), str(job.plan)]


class TestUpToDate:
    @pytest.fixture
    def copy(self, prepare: Prepare) -> Prepare:
        def prepared(version: str = "10.12.0", **options: object) -> list[PlanBuild]:
            return prepare(builder=lambda: Copies(version), **options)

        return prepared

    def test_only_plans_and_stamps_are_new(self, repository: Path, copy: Prepare) -> None:
        before = {file: file.read_bytes() for file in repository.rglob("*") if file.is_file()}
        for each in copy():
            each.run()
        after = {file: file.read_bytes() for file in repository.rglob("*") if file.is_file()}
        assert {file.name for file in after.keys() - before.keys()} == {"9.0.plan", "9.0.plan.json"}
        assert {file: after[file] for file in before} == before
        assert not list(repository.rglob(".plan-*"))

    def test_a_plan_that_fits_is_kept(self, repository: Path, copy: Prepare) -> None:
        first = copy()[1].run()
        plan = repository / "user_tower/1/9.0.plan"
        written = plan.stat()
        again = copy()[1].run()
        assert (first.built, again.built) == (True, False)
        assert plan.stat().st_mtime_ns == written.st_mtime_ns

    @pytest.mark.parametrize("change", ["graph", "bundle", "profile", "tensorrt", "damage", "no stamp", "broken stamp"])
    def test_a_plan_of_something_else_is_built_again(self, repository: Path, copy: Prepare, change: str) -> None:
        copy()[1].run()
        folder = repository / "user_tower/1"
        if change == "graph":
            model = onnx.load(folder / "model.onnx", load_external_data=False)
            model.doc_string = "another"
            (folder / "model.onnx").write_bytes(model.SerializeToString())
            publish(repository)
        elif change == "bundle":
            publish(repository, "toy-2")
        elif change == "profile":
            with config_of(repository, "user_tower") as config:
                config.max_batch_size = 16
        elif change == "damage":
            (folder / "9.0.plan").write_bytes(b"{}")
        elif change == "no stamp":
            (folder / "9.0.plan.json").unlink()
        elif change == "broken stamp":
            (folder / "9.0.plan.json").write_text("[]")
        version = "11.1.0" if change == "tensorrt" else "10.12.0"
        assert copy(version)[1].run().built
        assert (folder / "9.0.plan").read_bytes() == (folder / "model.onnx").read_bytes()
        assert not copy(version)[1].run().built

    def test_a_gpu_that_the_config_does_not_know(self, copy: Prepare) -> None:
        with pytest.raises(PlanError, match=r"capability 12\.1 is not one .*; allowed: 7\.5, .*, 12\.0$"):
            copy(gpus=(replace(H100, capability="12.1"),))

    def test_a_graph_that_is_not_the_exported_one(self, repository: Path, copy: Prepare) -> None:
        data = repository / "user_tower/1/model.data"
        data.write_bytes(data.read_bytes()[::-1])
        with pytest.raises(RepositoryError, match=r"user_tower/1/model\.data: has sha256"):
            copy()

    def test_a_repository_without_tensorrt_models(self, repository: Path, copy: Prepare) -> None:
        for name in ("user_tower", "ranking"):
            shutil.rmtree(repository / name)
        write_graph_model(repository, "user_tower", engine="onnxruntime")
        publish(repository)
        with pytest.raises(RepositoryError, match="has no TensorRT models; export it with --target gpu"):
            copy()


@pytest.mark.usefixtures("python_api")
class TestPythonApi:
    def test_a_plan_of_each_model_for_each_kind_of_gpu_on_that_gpu(self, repository: Path, prepare: Prepare) -> None:
        twin = replace(H100, index=2, uuid="GPU-twin")
        done = [each.run() for each in prepare((H100, L4, twin), workspace_mib=256)]
        assert [(plan.model, plan.compute_capability, plan.built) for plan in done] == [
            ("ranking", "8.9", True),
            ("user_tower", "8.9", True),
            ("ranking", "9.0", True),
            ("user_tower", "9.0", True),
        ]
        made = json.loads((repository / "user_tower/1/9.0.plan").read_text())
        assert made == {
            "strongly_typed": True,
            "shapes": {"user_number": [[1, 5], [4, 5], [8, 5]]},
            "workspace": 256 << 20,
            "gpu": "GPU-h100",
            "earlier_timings": 1,  # of the ranker, on the same GPU
        }
        assert json.loads((repository / "ranking/1/8.9.plan").read_text())["gpu"] == "GPU-l4"
        assert json.loads((repository / "ranking/1/8.9.plan").read_text())["earlier_timings"] == 0

    def test_a_stamp_says_what_a_plan_is_of(self, repository: Path, prepare: Prepare) -> None:
        prepare()[1].run()
        stamp = json.loads((repository / "user_tower/1/9.0.plan.json").read_text())
        published = verify_repository(repository).artifacts
        assert stamp.pop("built_at").endswith("+00:00")
        assert len(stamp.pop("plan_sha256")) == 64
        assert stamp == {
            "bundle_id": "toy-1",
            "sha256": {name: published[f"user_tower/1/{name}"].sha256 for name in ("model.onnx", "model.data")},
            "compute_capability": "9.0",
            "tensorrt": "10.12.0",
            "profile": {"batch": [1, 4, 8], "dims": {"user_number": [5]}},
        }

    def test_each_node_that_cannot_be_run_is_named_and_the_old_plan_stays(
        self, repository: Path, prepare: Prepare
    ) -> None:
        prepare()[1].run()
        plan = repository / "user_tower/1/9.0.plan"
        old = plan.read_bytes()
        graph = repository / "user_tower/1/model.onnx"
        model = onnx.load(graph, load_external_data=False)
        model.graph.node.append(helper.make_node("Lookup", ["product"], ["a"], name="first"))
        model.graph.node.append(helper.make_node("Remap", ["a"], ["b"], name="second"))
        graph.write_bytes(model.SerializeToString())
        publish(repository)
        with pytest.raises(PlanError) as error:
            prepare()[1].run()
        assert str(error.value) == (
            "model user_tower: no plan for compute capability 9.0; TensorRT's Python API 10.12.0 failed: "
            "TensorRT cannot run the graph: node 'first' (Lookup): no importer for Lookup; "
            "node 'second' (Remap): no importer for Remap"
        )
        assert plan.read_bytes() == old
        assert not list(repository.rglob(".plan-*"))

    def test_a_build_that_fails_says_what_tensorrt_says(
        self, prepare: Prepare, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("FAKE_TENSORRT", '{"no_plan": true}')
        with pytest.raises(
            PlanError, match=r"failed: \S+ \[TRT\] \[E\] Error Code 10: no implementation for node project$"
        ):
            prepare()[1].run()

    def test_inputs_that_the_graph_does_not_have(self, repository: Path, prepare: Prepare) -> None:
        with config_of(repository, "user_tower") as config:
            config.input[0].name = "user_numbers"
        with pytest.raises(PlanError, match="model user_tower: no plan"):
            prepare()[1].run()

    @pytest.mark.parametrize("kept", [b"torn", b"of another GPU"])
    def test_timings_that_tensorrt_refuses_are_made_anew(self, prepare: Prepare, tmp_path: Path, kept: bytes) -> None:
        timings = tmp_path / "cache/tensorrt/timings-10.12.0-9.0"
        timings.parent.mkdir(parents=True)
        timings.write_bytes(kept)
        prepare()[1].run()
        assert timings.read_bytes() == b"kernel;"

    def test_a_place_for_timings_that_cannot_be_written_costs_time_only(self, prepare: Prepare, tmp_path: Path) -> None:
        (tmp_path / "cache").write_text("a file")
        assert prepare()[1].run().built

    @pytest.mark.parametrize("version", ["8.6.1", "9.3.0", "10.11.0.33"])
    def test_an_old_tensorrt_is_refused(self, prepare: Prepare, monkeypatch: pytest.MonkeyPatch, version: str) -> None:
        monkeypatch.setenv("FAKE_TENSORRT", json.dumps({"version": version}))
        short = ".".join(version.split(".")[:3])
        with pytest.raises(PlanError, match=f"Python API is of TensorRT {short}; plans need TensorRT 10.12 or newer"):
            prepare()


class TestTrtexec:
    def test_its_flags_say_what_is_built(
        self, repository: Path, prepare: Prepare, trtexec: Path, tmp_path: Path
    ) -> None:
        done = [each.run() for each in prepare(workspace_mib=256)]
        assert [plan.built for plan in done] == [True, True]
        made = json.loads((repository / "ranking/1/9.0.plan").read_text())
        assert made.pop("--saveEngine").startswith(f"{repository}/ranking/1/.plan-")
        assert made == {
            "--onnx": f"{repository}/ranking/1/model.onnx",
            "--stronglyTyped": "",
            "--skipInference": "",
            "--minShapes": "user_number:1x5,candidate_index:1x6",
            "--optShapes": "user_number:4x5,candidate_index:4x6",
            "--maxShapes": "user_number:8x5,candidate_index:8x6",
            "--memPoolSize": "workspace:256",
            "--timingCacheFile": f"{tmp_path}/cache/tensorrt/timings-11.1.0-9.0",
            "gpu": "GPU-h100",
        }
        assert Stamp.read(repository / "ranking/1/9.0.plan").origin.tensorrt == "11.1.0"

    def test_it_is_found_off_the_path(self, trtexec: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PATH", "/usr/bin:/bin")
        assert find_builder([trtexec.parent / "nothing"]) is None
        found = find_builder([trtexec.parent])
        assert found is not None
        assert (found.name, found.version) == ("trtexec", "11.1.0")

    def test_python_is_preferred(self, trtexec: Path, python_api: None) -> None:
        found = find_builder()
        assert found is not None
        assert found.name == "TensorRT's Python API"

    @pytest.mark.parametrize(("number", "version"), [("8601", "8.6.1"), ("101100", "10.11.0")])
    def test_an_old_one_is_refused(
        self, prepare: Prepare, trtexec: Path, monkeypatch: pytest.MonkeyPatch, number: str, version: str
    ) -> None:
        monkeypatch.setenv("FAKE_TRTEXEC_VERSION", number)
        with pytest.raises(PlanError, match=f"trtexec is of TensorRT {version}; plans need TensorRT 10.12"):
            prepare()

    def test_one_that_says_no_version(self, prepare: Prepare, trtexec: Path) -> None:
        trtexec.write_text("#!/bin/sh\necho hello\n")
        with pytest.raises(PlanError, match="trtexec does not say which version of TensorRT it is of"):
            prepare()

    def test_a_failure_says_what_it_says(
        self, prepare: Prepare, trtexec: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("FAKE_TRTEXEC_FAILS", "1")
        with pytest.raises(PlanError, match=r"trtexec 11\.1\.0 failed: .* While parsing node number 0 \[MatMul\]"):
            prepare()[0].run()


def test_the_lines_that_explain_a_failure() -> None:
    assert telling_lines("") == "it says nothing"
    assert telling_lines("one\nlast\n\n") == "last"
    assert telling_lines("[E] a\n[E] a\n[E] b\nlast") == "[E] a; [E] b"
    assert telling_lines("[E] a\nerror: the graph") == "the graph"


def test_a_job_goes_through_json(tmp_path: Path) -> None:
    job = Job(tmp_path / "a", tmp_path / "b", {"x": ([1], [2], [3])}, 5, tmp_path / "c")
    assert Job.from_json(job.to_json()) == replace(job, shapes={"x": [[1], [2], [3]]})
    bare = Job(tmp_path / "a", tmp_path / "b", {})
    assert Job.from_json(bare.to_json()) == bare


def test_without_a_workspace_the_limit_is_tensorrts_own(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(FAKE_TENSORRT)
    import tensorrt

    shapes = {"user_number": ([1, 5], [4, 5], [8, 5])}
    build(tensorrt, Job(repository / "user_tower/1/model.onnx", tmp_path / "plan", shapes))
    assert json.loads((tmp_path / "plan").read_text())["workspace"] is None


class TestCommand:
    @pytest.fixture
    def smi(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """A stand-in for nvidia-smi on PATH, with one GPU."""
        program = tmp_path / "nvidia" / "nvidia-smi"
        program.parent.mkdir()
        program.write_text("#!/bin/sh\necho '0, GPU-1, 9.0, NVIDIA H100 80GB HBM3'\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        return program

    @pytest.mark.usefixtures("python_api", "smi")
    def test_it_ends_with_what_was_built(self, repository: Path) -> None:
        runner = CliRunner()
        done = runner.invoke(app, ["plans", "build", str(repository), "--json"], catch_exceptions=False)
        result = json.loads(done.stdout.splitlines()[-1])
        assert (result["bundle_id"], result["tensorrt"]) == ("toy-1", "10.12.0")
        assert [(plan["model"], plan["compute_capability"], plan["built"]) for plan in result["plans"]] == [
            ("ranking", "9.0", True),
            ("user_tower", "9.0", True),
        ]
        again = runner.invoke(app, ["plans", "build", str(repository)], catch_exceptions=False)
        assert again.stdout.count("up to date") == 2

    def test_without_tensorrt_one_line_says_where_there_is_one(self, repository: Path, smi: Path) -> None:
        done = CliRunner().invoke(app, ["plans", "build", str(repository)])
        assert isinstance(done.exception, PlanError)
        (line,) = str(done.exception).splitlines()
        assert line.startswith("TensorRT is missing here: neither Python's tensorrt nor trtexec is installed")
        assert "docker run --rm --gpus all" in line
        assert f"-v {repository}:/models" in line
        assert line.endswith("trireme plans build /models")

    @pytest.mark.usefixtures("python_api", "smi")
    def test_without_a_gpu_one_line_says_so(self, repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PATH", "/usr/bin:/bin")
        done = CliRunner().invoke(app, ["plans", "build", str(repository)])
        assert isinstance(done.exception, PlanError)
        assert str(done.exception) == "no GPU is visible here: there is no nvidia-smi"

    def test_a_limit_of_no_memory_is_refused(self, repository: Path) -> None:
        done = CliRunner().invoke(app, ["plans", "build", str(repository), "--workspace-mib", "0"])
        assert done.exit_code == 2
        assert "0; allowed: at least 1" in done.output
