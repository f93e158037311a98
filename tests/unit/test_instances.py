"""How many instances a server runs: the CPUs that it may use, and the configs that say so."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import ModelConfig

from trireme_runtime.cpu import usable_cpus
from trireme_runtime.schema import FRESHNESS
from trireme_server.instances import group_of, groups_of, has_gpu, link_repository, renew
from trireme_server.left_out import leave_out

AUTHORED = Path(__file__).parents[2] / "model_repository"


def v2(quota: str) -> dict[str, str]:
    return {"cpu.max": f"{quota} 100000\n"}


def v1(quota: str) -> dict[str, str]:
    return {"cpu.cfs_quota_us": f"{quota}\n", "cpu.cfs_period_us": "100000\n"}


@pytest.mark.parametrize(
    ("own", "groups", "cpus"),
    [
        ("0::/\n", {}, 8),
        ("0::/\n", {"": v2("max")}, 8),
        ("0::/\n", {"": v2("200000")}, 2),
        ("0::/\n", {"": v2("250000")}, 2),
        ("0::/\n", {"": v2("50000")}, 1),
        ("0::/\n", {"": v2("9900000")}, 8),
        # The group around it is the narrower one.
        ("0::/pods/one\n", {"pods": v2("300000"), "pods/one": v2("400000")}, 3),
        # In a container, the path may be that of the host, which is not there.
        ("0::/docker/abc\n", {"": v2("400000")}, 4),
        ("3:cpu,cpuacct:/a\n2:memory:/b\n0::/c\n", {"cpu,cpuacct/a": v1("300000")}, 3),
        ("3:cpu:/a\n", {"cpu/a": v1("-1"), "cpu": v1("500000")}, 5),
        ("3:cpuset:/a\n", {"cpu/a": v1("100000")}, 8),
        ("0::/\n", {"": {"cpu.max": "broken"}}, 8),
        (None, {}, 8),
    ],
)
def test_a_quota_counts_before_the_cpus_that_are_visible(
    tmp_path: Path, own: str | None, groups: dict[str, dict[str, str]], cpus: int
) -> None:
    for folder, files in groups.items():
        (tmp_path / "fs" / folder).mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            (tmp_path / "fs" / folder / name).write_text(content)
    if own is not None:
        (tmp_path / "own").write_text(own)
    assert usable_cpus(range(8), tmp_path / "fs", tmp_path / "own") == cpus


def test_the_server_decides_where_the_bundle_leaves_it_to_it(tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    configs = {
        "auto": 'instance_group { count: 9 } parameters { key: "instances" value { string_value: "auto" } }',
        "fixed": "instance_group { count: 3 }",
        "steps": 'instance_group { kind: KIND_CPU } parameters { key: "instances" value { string_value: "auto" } }',
        "ensemble": "",
    }
    for model, text in configs.items():
        (repository / model / "1").mkdir(parents=True)
        (repository / model / "1" / "model.py").write_text(model)
        (repository / model / "config.pbtxt").write_text(text)
    assert link_repository(repository, tmp_path / "linked", 2, gpu=False) == {"auto": 2, "fixed": 3, "steps": 2}
    on_gpu = link_repository(repository, tmp_path / "on_gpu", 2, gpu=True)
    assert on_gpu == {"auto": 9, "fixed": 3, "steps": 2}, "instances on a GPU are as many as the bundle says"
    for model, text in configs.items():
        assert (tmp_path / "linked" / model / "1" / "model.py").read_text() == model
        assert (repository / model / "config.pbtxt").read_text() == text  # the bundle stays as it was published
    served = text_format.Parse((tmp_path / "linked" / "auto" / "config.pbtxt").read_text(), ModelConfig())
    assert served.instance_group[0].count == 2


@pytest.mark.parametrize("fresh", [True, False])
def test_steps_tell_each_other_how_old_features_are_where_there_is_a_feature_store(tmp_path: Path, fresh: bool) -> None:
    """In the authored repositories of both targets, whose configs are otherwise the same."""
    for repository in sorted(AUTHORED.iterdir()):
        if repository.is_dir():
            folder = tmp_path / repository.name
            link_repository(repository, folder, 2, gpu=False, fresh=fresh)
            for file in repository.glob("*/config.pbtxt"):
                left, served = (
                    text_format.Parse(each.read_text(), ModelConfig())
                    for each in (file, folder / file.parent.name / file.name)
                )
                assert (FRESHNESS.name in str(served)) == (fresh and FRESHNESS.name in str(left))
                for config in (left, served):
                    leave_out(config, FRESHNESS.name)
                    del config.instance_group[:]
                assert served == left


def test_what_is_left_out_is_left_out_of_the_warm_up() -> None:
    config = ModelConfig()
    for name in ("query", FRESHNESS.name):
        config.input.add(name=name)
        config.model_warmup.add().inputs[name].input_data_file = name
    leave_out(config, FRESHNESS.name)
    assert [tensor.name for tensor in config.input] == ["query"]
    assert [list(sample.inputs) for sample in config.model_warmup] == [["query"], []]


def test_a_gpu_is_seen_by_its_device(tmp_path: Path) -> None:
    (tmp_path / "nvidiactl").touch()
    assert not has_gpu(tmp_path)
    (tmp_path / "nvidia0").touch()
    assert has_gpu(tmp_path)


def policies(folder: Path, model: str) -> dict[str, str]:
    config = text_format.Parse((folder / model / "config.pbtxt").read_text(), ModelConfig())
    assert all(group.count == 1 for group in config.instance_group)
    return {group.name: group.host_policy for group in config.instance_group}


def test_an_instance_is_replaced_by_a_new_policy_of_its_group(tmp_path: Path) -> None:
    repository, folder = tmp_path / "repository", tmp_path / "linked"
    configs = {
        "pair": "instance_group { kind: KIND_CPU count: 2 }",
        "bound": 'instance_group { count: 2 host_policy: "node_1" }',  # means something to the server that was told of it
        "ensemble": "",
    }
    for model, text in configs.items():
        (repository / model / "1").mkdir(parents=True)
        (repository / model / "config.pbtxt").write_text(text)
    assert link_repository(repository, folder, 2, gpu=False, separate=True) == {"pair": 2, "bound": 2}
    assert groups_of(folder) == {"pair_0": "pair", "pair_1": "pair"}
    assert policies(folder, "pair") == {"pair_0": "pair_0.0", "pair_1": "pair_1.0"}
    for _ in range(2):
        renew(folder, "pair", {"pair_1"})
    assert policies(folder, "pair") == {"pair_0": "pair_0.0", "pair_1": "pair_1.2"}
    assert sorted(path.name for path in folder.iterdir()) == ["bound", "ensemble", "pair"]
    assert (repository / "pair" / "config.pbtxt").read_text() == configs["pair"]


def test_the_group_of_an_instance_is_the_longest_that_fits() -> None:
    groups = ["a_1", "a_10", "a_1_0"]
    assert [group_of(name, groups) for name in ("a_1_0", "a_10_0", "a_1_0_0", "b_1_0")] == [
        "a_1",
        "a_10",
        "a_1_0",
        None,
    ]


def test_no_bytecode_of_a_model_lies_where_triton_looks_for_changes(tmp_path: Path) -> None:
    version = tmp_path / "repository" / "model" / "1"
    (version / "__pycache__").mkdir(parents=True)
    (version / "stage").mkdir()
    (version / "model.py").write_text("answer = 42")
    (version.parent / "config.pbtxt").write_text("")
    link_repository(tmp_path / "repository", tmp_path / "linked", 1, gpu=False)
    linked = tmp_path / "linked" / "model" / "1"
    assert (linked / "stage").resolve() == version / "stage"
    before = linked.stat().st_mtime_ns
    code = f"import sys; sys.path[0] = {str(linked)!r}; import model; assert model.answer == 42"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert linked.stat().st_mtime_ns == before
    assert (linked / "__pycache__").is_file()
