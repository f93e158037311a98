"""The repository of target gpu as it is written: configs against graphs, edges, profiles, engines and links."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from google.protobuf import json_format
from tritonclient.grpc.model_config_pb2 import ModelConfig

from tests.support.own_ranker import Backwards
from tests.support.random_checkpoint import random_checkpoint
from trireme_export.checkpoint import Checkpoint
from trireme_export.errors import ExportError
from trireme_export.exporters import bundle_dims
from trireme_export.repository import RealRequests, ServingSettings, write_repository
from trireme_export.repository.configs import parse_config
from trireme_export.targets import TARGETS
from trireme_export.targets.built import Wanted
from trireme_export.targets.gpu import ENGINES
from trireme_runtime.bundle import CONFIG, SAMPLES, verify_repository
from trireme_runtime.onnx_model import OnnxModel
from trireme_runtime.schema import ENTRY, FUSED, LAYOUTS
from trireme_runtime.triton.engines import check_model
from trireme_server.plans.profile import Profile

LAYOUT = LAYOUTS["gpu"]
MOST = 24


def write(
    out: Path, checkpoint: Checkpoint, engine: str = "tensorrt", plan: str = "both", cuda_graphs: bool = False
) -> Path:
    """Writes a repository without asking the gate: nobody trained these models."""
    users = checkpoint.tables.user_ids[:40, None]
    scratch = out.with_name(f"{out.name}-scratch")
    scratch.mkdir(parents=True)
    built = TARGETS["gpu"](checkpoint, Wanted(plan, engine, scratch, users))
    length = checkpoint.tables.history.shape[1]
    write_repository(
        out,
        built.contents,
        bundle_dims(checkpoint),
        plan=plan,
        settings=ServingSettings(MOST, 100, None, cuda_graphs=cuda_graphs),
        requests=RealRequests(users, np.full((len(users), length), -1)),
        source=built.record,
    )
    return out


def configs(repository: Path) -> dict[str, ModelConfig]:
    return {file.parent.name: parse_config(file) for file in sorted(repository.glob(f"*/{CONFIG}"))}


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    return random_checkpoint()


@pytest.fixture(scope="module", params=[*ENGINES, "own ranker"])
def repository(
    request: pytest.FixtureRequest, checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Of both engines; and with a ranker that reads nothing but the score of retrieval."""
    out = tmp_path_factory.mktemp("gpu") / "repository"
    if request.param in ENGINES:
        return write(out, checkpoint, request.param)
    return write(out, replace(checkpoint, models=replace(checkpoint.models, ranker=Backwards())))


@pytest.mark.parametrize("model", sorted(LAYOUT.graphs))
def test_a_config_fits_its_graph_as_the_engines_check_it(repository: Path, model: str) -> None:
    config, graph = configs(repository)[model], OnnxModel(repository / model / "1")
    document = json_format.MessageToDict(config, preserving_proto_field_name=True)
    for engine in ENGINES:  # the stricter of them decides
        check_model(engine, repository / model, model, document, graph.signature)
    wrong = {**document, "output": [{**document["output"][0], "dims": [1]}, *document["output"][1:]]}
    with pytest.raises(Exception, match="configuration specifies"):
        check_model("tensorrt", repository / model, model, wrong, graph.signature)


@pytest.mark.parametrize("entry", [ENTRY, FUSED])
def test_every_edge_has_the_same_type_and_size_on_both_ends(repository: Path, entry: str) -> None:
    found = configs(repository)
    ensemble = found[entry]
    edges = {tensor.name: (tensor.data_type, list(tensor.dims)) for tensor in ensemble.input}
    read = set()
    for step in ensemble.ensemble_scheduling.step:
        model = found[step.model_name]
        assert set(step.input_map) == {tensor.name for tensor in model.input}
        for tensor in model.input:
            assert edges[step.input_map[tensor.name]] == (tensor.data_type, list(tensor.dims)), step.model_name
        read |= set(step.input_map.values())
        outputs = {tensor.name: (tensor.data_type, list(tensor.dims)) for tensor in model.output}
        for name, edge in step.output_map.items():
            assert edge not in edges, "two producers"
            edges[edge] = outputs[name]
    for tensor in ensemble.output:
        assert edges[tensor.name] == (tensor.data_type, list(tensor.dims))
    assert set(edges) == read | {tensor.name for tensor in ensemble.output}, "Triton refuses an edge that nobody reads"


@pytest.mark.parametrize("model", sorted(LAYOUT.graphs))
def test_the_profile_takes_every_batch_that_the_config_allows(repository: Path, model: str) -> None:
    config = configs(repository)[model]
    profile = Profile.of(config)
    assert (profile.least, profile.most) == (1, config.max_batch_size) == (1, MOST)
    assert {name: list(dims) for name, dims in profile.dims.items()} == {
        tensor.name: list(tensor.dims) for tensor in config.input
    }
    assert sorted(sample.batch_size for sample in config.model_warmup) == [1, profile.typical, MOST]
    graph = OnnxModel(repository / model / "1")
    with np.load(repository / model / "1" / SAMPLES) as samples:
        for rows in (1, profile.typical, MOST):
            inputs = {name: samples[f"in:{name}"][:rows] for name in graph.inputs}
            for name, answer in graph.answers(inputs).items():
                np.testing.assert_allclose(answer, samples[f"out:{name}"][:rows], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("model", sorted(LAYOUT.graphs))
def test_an_engine_gets_what_it_needs(checkpoint: Checkpoint, repository: Path, model: str) -> None:
    config = configs(repository)[model]
    parity = json.loads(config.parameters["parity"].string_value)
    assert parity == {"score_difference": 0.03, "index_recall": 0.98}
    assert not config.instance_group[0].kind, "AUTO: a GPU where there is one"
    if config.platform:
        assert (config.platform, config.backend) == ("tensorrt_plan", "")
        assert config.cc_model_filenames["9.0"] == "9.0.plan"
        assert not config.HasField("optimization"), "CUDA graphs are off"
        return
    assert (config.backend, config.default_model_filename) == ("onnxruntime", "model.onnx")
    assert config.parameters["intra_op_thread_count"].string_value == "1"
    (accelerator,) = config.optimization.execution_accelerators.gpu_execution_accelerator
    length = checkpoint.tables.history.shape[1]
    for bound, rows in (("min", 1), ("opt", MOST // 2), ("max", MOST)):
        assert f"history_index:{rows}x{length}" in accelerator.parameters[f"trt_profile_{bound}_shapes"].split(",")


def test_an_own_ranker_has_only_the_inputs_that_it_reads(checkpoint: Checkpoint, tmp_path: Path) -> None:
    own = replace(checkpoint, models=replace(checkpoint.models, ranker=Backwards()))
    found = configs(write(tmp_path / "repository", own))
    assert [tensor.name for tensor in found["ranking"].input] == ["retrieval_score"]


def test_cuda_graphs_are_captured_for_the_sizes_of_the_profile(checkpoint: Checkpoint, tmp_path: Path) -> None:
    config = configs(write(tmp_path / "repository", checkpoint, cuda_graphs=True))["user_tower"]
    assert config.optimization.cuda.graphs
    specs = config.optimization.cuda.graph_spec
    assert [spec.batch_size for spec in specs] == [1, MOST // 2, MOST]
    for tensor in config.input:
        assert [list(spec.input[tensor.name].dim) for spec in specs] == [list(tensor.dims)] * 3


@pytest.mark.parametrize("plan", ["ensemble", "fused"])
def test_a_plan_has_its_models_and_no_others(checkpoint: Checkpoint, tmp_path: Path, plan: str) -> None:
    repository = write(tmp_path / "repository", checkpoint, plan=plan)
    models = LAYOUT.ensemble if plan == "ensemble" else LAYOUT.fused
    assert set(configs(repository)) == {ENTRY, *models}
    assert verify_repository(repository).target == "gpu"


def test_both_plans_share_files(repository: Path) -> None:
    version = repository / "features" / "1"
    assert (version / "feature_transform").readlink() == Path("../../feature_transform/1/feature_transform")
    assert not (version / "exclusion").is_symlink()


@pytest.mark.parametrize(
    ("target", "serving", "engine", "complaint"),
    [
        (
            "gpu",
            {"precision": "int8"},
            "tensorrt",
            "serving.precision is 'int8', which is for target cpu; allowed: auto, float32, float16",
        ),
        (
            "cpu",
            {"precision": "float16"},
            "",
            "serving.precision is 'float16', which is for target gpu; allowed: auto, float32, int8",
        ),
        (
            "gpu",
            {"cuda_graphs": True},
            "onnxruntime",
            "serving.cuda_graphs is for the engine tensorrt; allowed with onnxruntime: false",
        ),
        (
            "cpu",
            {"cuda_graphs": True},
            "",
            "serving.cuda_graphs is for target gpu with the engine tensorrt; allowed with target cpu: false",
        ),
        ("gpu", {"stream": True}, "tensorrt", "serving.stream is for target cpu; allowed with target gpu: false"),
        ("gpu", {}, "openvino", "the engine is 'openvino'; allowed for target gpu: tensorrt, onnxruntime"),
    ],
)
def test_what_a_target_does_not_have_is_refused(
    checkpoint: Checkpoint, tmp_path: Path, target: str, serving: dict, engine: str, complaint: str
) -> None:
    wanted = checkpoint.config.serving.model_copy(update=serving)
    asked = replace(checkpoint, config=checkpoint.config.model_copy(update={"serving": wanted}))
    with pytest.raises(ExportError) as raised:
        TARGETS[target](asked, Wanted("both", engine, tmp_path, checkpoint.tables.user_ids[:4, None]))
    assert str(raised.value) == complaint
