"""Repositories: what export writes, and how a reader refuses one that is not whole."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.support import toy
from trireme_export.errors import ExportError
from trireme_export.perf_input import read_perf_input
from trireme_export.repository import Contents, RealRequests, ServingSettings, serve_version, write_repository
from trireme_export.repository.configs import parse_config
from trireme_export.repository.versions import locked
from trireme_runtime.bundle import Manifest, read_manifest, verify_repository, verify_version
from trireme_runtime.errors import BundleError
from trireme_runtime.schema import Dims
from trireme_runtime.stages.chain import Funnel

SETTINGS = ServingSettings(max_batch_size=32, max_queue_delay_us=300, instances=2)


def write(
    out: Path,
    plan: str = "both",
    settings: ServingSettings = SETTINGS,
    stream: bool = False,
    dims: Dims = toy.DIMS,
) -> Manifest:
    requests = RealRequests(toy.user_ids()[:, None], np.full((toy.USERS, toy.DIMS.history), -1, dtype=np.int64))
    funnel = toy.funnel(out.parent / "onnx")
    stages = {stage.name: stage for stage in funnel.stages}
    contents = Contents("cpu", stages, funnel.staged(user_id=requests.user_id[:1]))
    return write_repository(
        out,
        contents,
        dims,
        plan=plan,
        settings=settings,
        requests=requests,
        source={"data": "toy"},
        stream=stream,
    )


def flip_a_bit(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    write(tmp_path / "repository")
    return tmp_path / "repository"


def test_a_written_repository_verifies_and_loads(repository: Path, tmp_path: Path) -> None:
    manifest = verify_repository(repository)
    assert (manifest.version, manifest.plan, manifest.dims) == (1, "both", toy.DIMS)
    users = toy.user_ids()[:, None]
    expected = toy.funnel(tmp_path)(users)
    assert Funnel.load(repository / "recommend_fused" / "1")(users).item_id.tolist() == expected.item_id.tolist()


@pytest.mark.parametrize(
    ("plan", "models"),
    [
        ("fused", {"recommend"}),
        ("ensemble", {"recommend", "features", "retrieval", "ranking"}),
    ],
)
def test_a_plan_has_its_models_and_no_others(tmp_path: Path, plan: str, models: set[str]) -> None:
    write(tmp_path / "repository")
    write(tmp_path / "repository", plan)
    assert {path.name for path in (tmp_path / "repository").iterdir() if path.is_dir()} == models
    config = parse_config(tmp_path / "repository" / "recommend" / "config.pbtxt")
    assert config.HasField("ensemble_scheduling") == (plan == "ensemble")
    assert verify_repository(tmp_path / "repository").version == 2


@pytest.mark.parametrize("plan", ["ensemble", "fused", "both"])
def test_a_model_that_answers_twice_shares_the_artifacts_of_the_others(tmp_path: Path, plan: str) -> None:
    repository = tmp_path / "repository"
    plain = write(repository, plan)
    manifest = write(repository, plan, stream=True)
    assert (plain.streams, manifest.streams) == (False, True)
    version = repository / "recommend_stream" / "2"
    assert [path.name for path in version.iterdir() if path.is_dir() and not path.is_symlink()] == []
    assert parse_config(version / "config.pbtxt").model_transaction_policy.decoupled
    users = toy.user_ids()[:, None]
    assert Funnel.load(version)(users).item_id.tolist() == toy.funnel(tmp_path)(users).item_id.tolist()
    assert verify_repository(repository) == manifest


@pytest.mark.parametrize("context", [{}, {"device": ("mobile", "tv"), "hour": ("9",)}], ids=["none", "two"])
def test_models_that_clients_ask_take_a_context_if_there_is_one(
    tmp_path: Path, context: dict[str, tuple[str, ...]]
) -> None:
    repository = tmp_path / "repository"
    settings, dims = replace(SETTINGS, context=context), replace(toy.DIMS, context=len(context))
    write(repository, settings=settings, stream=True, dims=dims)
    for model in ("recommend", "recommend_fused", "recommend_stream"):
        config = parse_config(repository / model / "config.pbtxt")
        widths = {tensor.name: list(tensor.dims) for tensor in config.input}
        assert widths.get("context") == ([2] if context else None)
        assert ("context" in config.parameters) == bool(context)
        if context:
            told = json.loads(config.parameters["context"].string_value)
            assert told == {"device": ["mobile", "tv"], "hour": ["9"]}


def test_a_version_without_a_model_that_answers_twice_puts_it_away(tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    write(repository)
    write(repository, stream=True)
    serve_version(repository, 1)
    assert not (repository / "recommend_stream").exists()
    serve_version(repository, 2)
    assert (repository / "recommend_stream" / "config.pbtxt").is_file()
    write(repository)
    assert not (repository / "recommend_stream").exists()


def test_a_second_export_is_the_next_version_and_keeps_the_first(repository: Path) -> None:
    first = read_manifest(repository)
    second = write(repository)
    assert (first.version, second.version) == (1, 2)
    assert (repository / "recommend" / "1" / "manifest.json").is_file()
    for model in repository.glob("*/config.pbtxt"):
        config = parse_config(model)
        assert list(config.version_policy.specific.versions) == [2]
        assert {step.model_version for step in config.ensemble_scheduling.step} <= {2}


def test_configs_carry_the_settings_and_the_dims(repository: Path) -> None:
    config = parse_config(repository / "retrieval" / "config.pbtxt")
    assert config.max_batch_size == 32
    assert config.dynamic_batching.max_queue_delay_microseconds == 300
    assert config.instance_group[0].count == 2
    assert {tensor.name: list(tensor.dims) for tensor in config.output} == {
        "candidate_index": [toy.DIMS.candidates],
        "retrieval_score": [toy.DIMS.candidates],
    }
    assert {warmup.batch_size for warmup in config.model_warmup} == {1, 16}
    for warmup in config.model_warmup:
        for name, entry in warmup.inputs.items():
            size = (repository / "retrieval" / "warmup" / entry.input_data_file).stat().st_size
            assert size == 4 * entry.dims[0], name


@pytest.mark.parametrize(("most", "sizes"), [(1, [1]), (3, [1, 3]), (16, [1, 16])])
def test_no_warm_up_is_larger_than_the_largest_batch(tmp_path: Path, most: int, sizes: list[int]) -> None:
    """Triton refuses a model whose warm-up is, and its own end crashes."""
    write(tmp_path / "repository", settings=ServingSettings(max_batch_size=most, max_queue_delay_us=0, instances=1))
    for model in ("features", "retrieval", "ranking", "recommend_fused"):
        config = parse_config(tmp_path / "repository" / model / "config.pbtxt")
        assert [warmup.batch_size for warmup in config.model_warmup] == sizes


def test_artifacts_that_two_models_need_are_one_file(repository: Path) -> None:
    pair = [repository / "retrieval" / "1", repository / "recommend_fused" / "1"]
    assert len({(folder / "retrieval" / "index" / "model.onnx").stat().st_ino for folder in pair}) == 1


@pytest.mark.parametrize("copied", [False, True], ids=["as written", "cp -r"])
def test_every_graph_of_every_version_can_be_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, copied: bool
) -> None:
    """The onnx package refuses constants in a file that is a link, or that has a second name."""
    monkeypatch.setattr("trireme_export.exporters.onnx_graph.OUTSIDE", 1)  # all constants lie beside the graph
    repository = tmp_path / "repository"
    write(repository)
    write(repository)
    if copied:
        subprocess.run(["cp", "-r", repository, tmp_path / "copy"], check=True)
        shutil.rmtree(repository)
        repository = tmp_path / "copy"
    verify_repository(repository)
    graphs = list(repository.glob("*/*/*/**/model.onnx"))
    linked = list(repository.glob("recommend_fused/*/*/index/model.onnx"))
    assert len(linked) == 2
    for graph in {*graphs, *linked}:
        onnx.load(str(graph))


def test_a_failed_export_leaves_the_repository_as_it_was(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = sorted(str(path) for path in repository.rglob("*"))
    monkeypatch.setattr("trireme_export.repository.write.write_perf_input", lambda repository, user_id: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write(repository)
    assert sorted(str(path) for path in repository.rglob("*")) == before
    assert not [path for path in repository.parent.iterdir() if path.name.startswith(".")]
    with pytest.raises(ZeroDivisionError):
        write(repository.parent / "new")
    assert not any((repository.parent / "new").iterdir())


def test_an_export_keeps_the_folder_that_is_mounted_and_the_link_that_leads_to_it(tmp_path: Path) -> None:
    mounted = tmp_path / "mounted"
    write(mounted)
    link = tmp_path / "link"
    link.symlink_to(mounted)
    before = mounted.stat().st_ino
    write(link)
    assert link.is_symlink()
    assert mounted.stat().st_ino == before
    assert verify_repository(mounted).version == 2


@pytest.mark.parametrize("moves", [0, 1, 4, 7])
def test_an_export_that_dies_at_any_moment_leaves_a_whole_repository(
    repository: Path, monkeypatch: pytest.MonkeyPatch, moves: int
) -> None:
    """Up to the configs, which name the version that is served: the entry model's is the last of them."""
    moved = 0

    class Killed(BaseException):
        pass

    rename = Path.rename

    def dying(self: Path, target: Path) -> Path:
        nonlocal moved
        if ".export-" in str(self) and ".bundle-" not in str(self):
            moved += 1
            if moved > moves:
                raise Killed
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", dying)
    with pytest.raises(Killed):
        write(repository)
    assert verify_repository(repository).version == 1
    monkeypatch.undo()
    write(repository)
    assert verify_repository(repository).version > 1


def test_the_last_versions_are_kept_and_can_be_served_again(repository: Path) -> None:
    for _ in range(4):
        write(repository)
    for model in repository.glob("*/config.pbtxt"):
        held = sorted(path.name for path in model.parent.iterdir() if path.name.isdecimal())
        assert held == ["3", "4", "5"]
    serve_version(repository, 3)
    assert verify_repository(repository).version == 3
    for model in repository.glob("*/config.pbtxt"):
        config = parse_config(model)
        assert list(config.version_policy.specific.versions) == [3]
        for warmup in config.model_warmup:
            for entry in warmup.inputs.values():
                assert (model.parent / "warmup" / entry.input_data_file).is_file()
    with pytest.raises(ExportError, match="holds no version 2; it holds 3, 4, 5"):
        serve_version(repository, 2)
    assert write(repository).version == 6


def test_models_that_a_version_does_not_have_are_out_of_sight_while_it_is_served(tmp_path: Path) -> None:
    """A server loads every model that it finds, and an ensemble of another version finds none of its steps."""
    repository = tmp_path / "repository"
    write(repository, "fused")
    write(repository, "both")
    versions = ({"recommend"}, {"features", "ranking", "recommend", "recommend_fused", "retrieval"})
    for version in (1, 2, 1):
        serve_version(repository, version)
        assert verify_repository(repository).version == version
        assert {path.name for path in repository.iterdir() if path.is_dir()} == versions[version - 1]
    write(repository, "both")
    serve_version(repository, 2)
    assert verify_repository(repository).version == 2
    write(repository, "fused")
    assert {path.name for path in repository.iterdir() if path.is_dir()} == {"recommend"}
    assert not (repository / "recommend" / ".unserved").exists()


def test_a_version_of_a_plan_that_is_gone_is_not_served(repository: Path) -> None:
    write(repository, "fused")
    with pytest.raises(ExportError, match="another plan or target was exported since"):
        serve_version(repository, 1)
    assert verify_repository(repository).version == 2


def test_a_version_of_another_format_is_not_served(repository: Path) -> None:
    write(repository)
    manifest = repository / "recommend" / "1" / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"format_version": 5', '"format_version": 1'))
    with pytest.raises(BundleError, match="format_version is 1, expected 5; export the checkpoint again"):
        serve_version(repository, 1)
    assert verify_repository(repository).version == 2


def test_two_exports_at_once_are_one_too_many(repository: Path) -> None:
    with locked(repository), pytest.raises(ExportError, match="another export writes to it"):
        write(repository)


def test_perf_input_holds_real_users(repository: Path) -> None:
    assert read_perf_input(repository).tolist() == toy.user_ids().tolist()


def test_the_bundle_id_follows_the_content(tmp_path: Path) -> None:
    assert write(tmp_path / "a").bundle_id == write(tmp_path / "b").bundle_id
    assert write(tmp_path / "c", "fused").bundle_id != write(tmp_path / "d", "ensemble").bundle_id


class TestDamage:
    def test_no_directory(self, tmp_path: Path) -> None:
        with pytest.raises(BundleError, match="no such directory"):
            verify_repository(tmp_path / "nowhere")

    def test_no_entry_model(self, tmp_path: Path) -> None:
        with pytest.raises(BundleError, match="has no model 'recommend'"):
            verify_repository(tmp_path)

    def test_no_version(self, tmp_path: Path) -> None:
        (tmp_path / "recommend").mkdir()
        with pytest.raises(BundleError, match="has no version directory"):
            verify_repository(tmp_path)

    def test_no_manifest(self, repository: Path) -> None:
        (repository / "recommend" / "1" / "manifest.json").unlink()
        with pytest.raises(BundleError, match=r"manifest\.json: cannot be read"):
            verify_repository(repository)

    @pytest.mark.parametrize("text", ["no json", "{}", '{"format_version": 7}'])
    def test_another_manifest(self, repository: Path, text: str) -> None:
        (repository / "recommend" / "1" / "manifest.json").write_text(text)
        with pytest.raises(BundleError, match="is not a manifest of this format"):
            verify_repository(repository)

    def test_a_missing_file_is_named(self, repository: Path) -> None:
        (repository / "ranking" / "1" / "ranking" / "model.onnx").unlink()
        with pytest.raises(BundleError, match=r"ranking/1/ranking/model\.onnx: is missing"):
            verify_repository(repository)

    def test_a_flipped_bit_is_found(self, repository: Path) -> None:
        file = repository / "features" / "1" / "feature_transform" / "history.npy"
        flip_a_bit(file)
        with pytest.raises(BundleError, match=r"history\.npy: has sha256"):
            verify_repository(repository)

    def test_a_cut_file_is_found(self, repository: Path) -> None:
        file = repository / "retrieval" / "1" / "retrieval" / "index" / "model.onnx"
        file.write_bytes(file.read_bytes()[:-1])
        with pytest.raises(BundleError, match=r"model\.onnx: has \d+ bytes"):
            verify_repository(repository)

    @pytest.mark.parametrize("file", ["perf_input.json", "ranking/config.pbtxt", "features/warmup/1/user_id"])
    def test_what_lies_outside_of_the_versions_is_looked_at(self, repository: Path, file: str) -> None:
        path = repository / file
        path.write_bytes(path.read_bytes()[::-1])
        with pytest.raises(BundleError, match=file):
            verify_repository(repository)

    def test_a_model_looks_at_its_own_version(self, repository: Path) -> None:
        file = repository / "features" / "1" / "feature_transform" / "history.npy"
        flip_a_bit(file)
        verify_version(repository / "retrieval", "1", hashes=True)
        verify_version(repository / "features", "1", hashes=False)
        for model in ("features", "recommend_fused"):  # which reads the same file
            with pytest.raises(BundleError, match=r"history\.npy: has sha256"):
                verify_version(repository / model, "1", hashes=True)
        file.write_bytes(file.read_bytes()[:-1])
        with pytest.raises(BundleError, match=r"history\.npy: has \d+ bytes"):
            verify_version(repository / "features", "1", hashes=False)
