"""The commands against the served bundle, as a user calls them."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import tritonclient.grpc as triton
from typer.testing import CliRunner

from tests.e2e.conftest import PIPELINE, PLANS, Served
from tests.support.commands import TRIREME, document, trireme, trireme_process
from tests.support.published import wait_until_published
from trireme_cli.app import app
from trireme_cli.data import data
from trireme_cli.perf import perf
from trireme_client import Client
from trireme_export.checkpoint import Checkpoint
from trireme_export.config import PipelineConfig
from trireme_perf.stats.percentiles import FEWEST_FOR_P99
from trireme_runtime.bundle import read_manifest
from trireme_runtime.schema import BUDGET, LAYOUTS, STAGES

#: Every command, by its words.
COMMANDS = [
    *((command.name or command.callback.__name__,) for command in app.registered_commands if command.callback),
    *(
        (name, command.name or command.callback.__name__)
        for name, group in (("data", data), ("perf", perf))
        for command in group.registered_commands
        if command.callback
    ),
]


@pytest.fixture
def refused(tmp_path: Path) -> Callable[..., str]:
    """Runs a command in an empty folder, where it must fail; returns its error line."""

    def run_refused(*arguments: object) -> str:
        done = trireme(*arguments, cwd=tmp_path)
        assert done.returncode == 1
        (*_, line) = filter(None, done.stderr.splitlines())
        assert line.startswith("error: ")
        return line

    return run_refused


@pytest.mark.parametrize("model", PLANS)
def test_recommend(served: Served, model: str) -> None:
    user = int(served.dataset.test.user_id[0])
    asked = ("recommend", "--url", served.url, "--user", user, "-k", 4, "--model", model, "--json")
    result = document(trireme_process(*asked))
    assert (result["user_id"], result["rung"], result["feature_age_s"], len(result["items"])) == (user, 0, 0.0, 4)
    scores = [item["score"] for item in result["items"]]
    assert scores == sorted(scores, reverse=True)
    first = [item["item_id"] for item in result["items"]]
    others = document(trireme(*asked, "--exclude", f"{first[0]},{first[2]}", "--background"))
    without = [item["item_id"] for item in others["items"]]
    assert without[:2] == [first[1], first[3]]
    assert len(set(without) - set(first)) == 2


@pytest.mark.parametrize("model", PLANS)
def test_a_call_is_accounted_for(served: Served, model: str) -> None:
    user = int(served.dataset.test.user_id[0])
    ledger = document(
        trireme("recommend", "--url", served.url, "--user", user, "--model", model, "--ledger", "--json")
    )["ledger"]
    assert ledger["exact"]
    assert ledger["batch_users"] == 1
    bars = ledger["bars"]
    assert min(bar["us"] for bar in bars) >= 0
    assert sum(bar["us"] for bar in bars if bar["depth"] == 0) == pytest.approx(ledger["total_us"], rel=1e-6)
    rpc = next(bar["us"] for bar in bars if bar["part"] == "rpc")
    inside_rpc = [bar["us"] for bar in bars if bar["depth"] == 1]
    assert 0 < sum(inside_rpc[:-1]) <= rpc + inside_rpc[-1] + 1
    assert 0 <= ledger["unaccounted_us"] < ledger["total_us"]
    inside = [bar["part"] for bar in bars if bar["depth"] == 2]
    assert inside == (["hand-over", *STAGES] if model == "recommend_fused" else [])


@pytest.fixture
def any_round_trip_is_good(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets a client ask for the server's clock once when it connects, also on a busy machine: a test counts what it asks for."""
    monkeypatch.setattr("trireme_client.clock._GOOD_ROUND_TRIP_NS", 10**12)


@pytest.mark.usefixtures("any_round_trip_is_good")
@pytest.mark.parametrize("model", PLANS)
def test_the_ledger_has_percentiles_of_every_stage(served: Served, model: str, tmp_path: Path) -> None:
    ledger = ("ledger", "--url", served.url, "--metrics-url", served.server.metrics_url, "--model", model, "--json")
    reading = tmp_path / "reading.json"
    user = int(served.dataset.test.user_id[0])
    with Client(served.url, model=model, timeout=30) as client:
        client.model_info()  # which asks for the server's clock, too
        wait_until_published(served.server.metrics_url)
        document(trireme(*ledger, "--save", reading))
        for _ in range(FEWEST_FOR_P99):
            client.recommend(user, 10)
    wait_until_published(served.server.metrics_url)
    rows = document(trireme(*ledger, "--since", reading))["percentiles"]
    assert [row["stage"] for row in rows] == list(STAGES)
    for row in rows:
        assert row["batches"] == FEWEST_FOR_P99  # one request at a time is a batch of its own
        assert 0 < row["p50_us"] <= row["p95_us"] <= row["p99_us"]
        assert row["within_budget"] == (row["p99_us"] <= row["budget_us"])


@pytest.mark.usefixtures("any_round_trip_is_good")
def test_the_ledger_of_two_moments(served: Served, tmp_path: Path) -> None:
    ledger = ("ledger", "--url", served.url, "--model", "recommend_fused", "--json")
    metrics, reading = ("--metrics-url", served.server.metrics_url), tmp_path / "reading.json"
    with Client(served.url, model="recommend_fused", timeout=30) as client:
        client.recommend(1)
        assert document(trireme(*ledger, *metrics, "--save", reading))["requests"] > 0
        nothing = trireme(*ledger, "--since", reading)
        assert "answered no request in the time watched" in nothing.stderr
        for _ in range(3):
            client.recommend(1)
    since = document(trireme(*ledger, "--since", reading, *metrics))
    assert since["requests"] == 3
    assert [row["model"] for row in since["cold_start"]] == ["recommend_fused"]
    assert since["cold_start"][0]["load_s"] > 0
    assert since["cold_start"][0]["first_batch_ms"] > 0
    both = trireme(*ledger, "--since", reading, "--seconds", 1)
    assert f"--since {reading} cannot be combined with --seconds" in both.stderr
    watched = trireme(*ledger, "--save", reading, "--watch")
    assert f"--save {reading} cannot be combined with --watch" in watched.stderr


def test_the_ledger_is_watched(served: Served) -> None:
    watching = subprocess.Popen(
        [*TRIREME, "ledger", "--url", served.url, "--watch", "--seconds", "0.5", "--json"],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert watching.stdout
    assert json.loads(watching.stdout.readline())["requests"] == 0
    with Client(served.url, timeout=30) as client:
        answered = 0
        while not answered:
            client.recommend(1)
            answered = json.loads(watching.stdout.readline())["requests"]
    watching.send_signal(signal.SIGINT)
    assert watching.wait(timeout=30) == 0


def test_a_call_is_drawn(served: Served) -> None:
    user = int(served.dataset.test.user_id[0])
    done = trireme("recommend", "--url", served.url, "--user", user, "--model", "recommend_fused", "--ledger")
    assert done.returncode == 0, done.stderr
    assert "network, gRPC" in done.stdout
    assert "reranking" in done.stdout


def test_the_budget_is_read_from_the_server(served: Served) -> None:
    with triton.InferenceServerClient(served.url) as client:
        for model in PLANS:
            parameters = client.get_model_config(model).config.parameters
            assert json.loads(parameters[BUDGET].string_value) == PIPELINE.budget.model_dump()


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_has_a_help(command: tuple[str, ...]) -> None:
    done = CliRunner().invoke(app, [*command, "--help"])
    assert done.exit_code == 0, done.exception
    assert "Usage" in done.output


def test_recommend_prints_a_table(served: Served) -> None:
    asked = ("recommend", "--url", served.url, "--history", "1,2,3", "-k", 3, "--repository", served.repository)
    done = trireme(*asked)
    assert done.returncode == 0, done.stderr
    assert "anonymous user" in done.stdout
    titles = dict(zip(served.dataset.item_ids.tolist(), served.dataset.item_titles, strict=True))
    items = document(trireme(*asked, "--json"))["items"]
    assert [item["title"] for item in items] == [titles[item["item_id"]] for item in items]
    assert all(item["title"] in done.stdout for item in items)


def test_evaluate(served: Served, tmp_path: Path) -> None:
    checkpoint = tmp_path / "checkpoint"
    served.checkpoint.save(checkpoint)
    result = document(
        trireme("evaluate", "--data", served.data, "--checkpoint", checkpoint, "--url", served.url, "--json")
    )
    assert result["users"] == served.dataset.test.n_users
    for part in (result, result["history_only"]):
        for name, value in part["offline"].items():
            assert part["served"][name] == pytest.approx(value, abs=1e-3)
        assert set(part["popularity"]) == {"ndcg@10", "recall@20", "recall@40"}  # lists have 40 items


def test_evaluate_names_another_bundle_at_the_server(
    served: Served, tmp_path: Path, refused: Callable[..., str]
) -> None:
    served.checkpoint.save(tmp_path / "checkpoint")
    other = Checkpoint.load(tmp_path / "checkpoint")
    with torch.no_grad():
        next(other.models.ranker.parameters()).add_(1)
    other.save(tmp_path / "other")
    mine, theirs = Checkpoint.load(tmp_path / "other").fingerprint, served.checkpoint.fingerprint
    asked = ("evaluate", "--data", served.data, "--url", served.url)
    line = refused(*asked, "--checkpoint", tmp_path / "other")
    assert f"checkpoint {theirs} at {served.url}, {mine} here; allowed: the bundle of this checkpoint" in line
    (tmp_path / "short.yaml").write_text("serving: {candidates: 60, list_length: 20}")
    line = refused(*asked, "--checkpoint", tmp_path / "checkpoint", "--config", tmp_path / "short.yaml")
    assert f"list_length 40 at {served.url}, 20 here" in line


def test_evaluate_uses_the_settings_of_the_export(served: Served, tmp_path: Path) -> None:
    served.checkpoint.with_settings(
        PipelineConfig.model_validate({"serving": {"candidates": 60, "list_length": 10}})
    ).save(tmp_path / "checkpoint")
    (tmp_path / "served.yaml").write_text("serving: {candidates: 60, list_length: 40}")
    asked = ("evaluate", "--data", served.data, "--checkpoint", tmp_path / "checkpoint", "--json")
    assert set(document(trireme(*asked))["offline"]) == {"ndcg@10", "recall@10"}
    result = document(trireme(*asked, "--url", served.url, "--config", tmp_path / "served.yaml"))
    assert set(result["served"]) == {"ndcg@10", "recall@20", "recall@40"}


@pytest.mark.parametrize("model", PLANS)
def test_ledger(served: Served, model: str) -> None:
    user = int(served.dataset.test.user_id[0])
    watching = subprocess.Popen(
        [*TRIREME, "ledger", "--url", served.url, "--model", model, "--seconds", "1", "--json"],
        stdout=subprocess.PIPE,
        text=True,
    )
    with Client(served.url, model=model, timeout=30) as client:
        while watching.poll() is None:
            client.recommend(user, 10)
    result = json.loads(watching.communicate()[0].splitlines()[-1])
    assert result["requests"] > 0
    # How small the unaccounted part is depends on how busy the machine is; that the account is complete does not.
    whole = result["end_to_end_us"]
    parts = [stage[f"{part}_us"] for stage in result["stages"] for part in ("queue", "input", "compute", "output")]
    assert sum(parts) + result["unaccounted_us"] == pytest.approx(whole)
    assert sum(stage["share"] for stage in result["stages"]) == pytest.approx(sum(parts) / whole)
    expected = list(LAYOUTS["cpu"].ensemble) if model == "recommend" else [model]
    assert [stage["stage"] for stage in result["stages"]] == expected


def test_export_trains_nothing_and_writes_a_repository(served: Served, tmp_path: Path) -> None:
    served.checkpoint.save(tmp_path / "checkpoint")
    result = document(
        trireme(
            "export", "--checkpoint", tmp_path / "checkpoint", "--out", tmp_path / "repo", "--plan", "fused", "--json"
        )
    )
    assert (result["version"], result["plan"], result["target"]) == (1, "fused", "cpu")
    assert result["source"]["parity"]["ranking"]["relative"] < 1e-4


def test_export_prints_what_the_gate_measured(served: Served, tmp_path: Path) -> None:
    served.checkpoint.save(tmp_path / "checkpoint")
    done = trireme("export", "--checkpoint", tmp_path / "checkpoint", "--out", tmp_path / "repo", "--plan", "fused")
    assert done.returncode == 0, done.stderr
    gate = read_manifest(tmp_path / "repo").source["gate"]
    for row in ("float", "exported", "popularity"):
        assert re.search(rf"{row} .*{gate[row]['ndcg@10']:.4f}", done.stdout)
    assert f"gate passed: ndcg_loss {gate['ndcg_loss']:.2%}" in done.stdout


def test_without_a_test_part_the_export_is_refused_unless_it_is_waived(
    served: Served, tmp_path: Path, refused: Callable[..., str]
) -> None:
    replace(served.checkpoint, test=None).save(tmp_path / "checkpoint")
    command = ("export", "--checkpoint", tmp_path / "checkpoint", "--out", tmp_path / "repo", "--plan", "fused")
    assert "no test part" in refused(*command)
    assert not (tmp_path / "repo").exists()
    result = document(trireme(*command, "--waive-gate", "measurement", "--json"))
    assert result["source"]["gate"]["verdict"] == "waived"


def test_an_export_takes_other_settings_and_warns_of_shorter_lists(served: Served, tmp_path: Path) -> None:
    served.checkpoint.save(tmp_path / "checkpoint")
    export = ("export", "--checkpoint", tmp_path / "checkpoint", "--out", tmp_path / "repo", "--plan", "fused")
    sizes = "serving: {candidates: 60, list_length: %d, max_batch_size: 8, instances: 1, precision: float32}"
    for name, length in (("longer", 30), ("shorter", 20)):
        (tmp_path / f"{name}.yaml").write_text(sizes % length)
    first = trireme(*export, "--config", tmp_path / "longer.yaml", "--json")
    assert document(first)["version"] == 1
    assert "warning" not in first.stderr
    assert read_manifest(tmp_path / "repo").dims.list_length == 30
    second = trireme(*export, "--config", tmp_path / "shorter.yaml")
    assert second.returncode == 0, second.stderr
    assert read_manifest(tmp_path / "repo").dims.list_length == 20
    warning = (
        f"warning: {tmp_path / 'repo'} had lists of 30 items, version 2 has 20; calls with a larger k get fewer items"
    )
    assert warning in second.stderr.splitlines()
    assert document(trireme("rollback", "1", "--repository", tmp_path / "repo", "--json"))["version"] == 1
    assert read_manifest(tmp_path / "repo").dims.list_length == 30
    assert "holds no version 7; it holds 1, 2" in trireme("rollback", "7", "--repository", tmp_path / "repo").stderr
    (tmp_path / "other.yaml").write_text("training: {seed: 99}")
    refused = trireme(*export, "--config", tmp_path / "other.yaml")
    assert refused.returncode == 1
    assert "error: training.seed is 99, the checkpoint was trained with 0" in refused.stderr


def test_serve_says_ready_answers_and_stops_clean(served: Served) -> None:
    process = subprocess.Popen(
        [*TRIREME, "serve", str(served.repository), "--grpc-port=0", "--http-port=0", "--metrics-port=0", "--json"],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    ready = json.loads(process.stdout.readline())
    done = trireme("recommend", "--url", ready["grpc_url"], "-k", 1, "--json")
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 0
    assert document(done)["rung"] == 3


def test_serve_passes_arguments_on_to_tritonserver(served: Served, tmp_path: Path) -> None:
    """In a directory whose default repository is this one, so that none has to be named."""
    (tmp_path / "build").mkdir()
    (tmp_path / "build" / "model_repository").symlink_to(served.repository)
    ports = ("--grpc-port=0", "--http-port=0", "--metrics-port=0", "--log", "log", "--json")
    process = subprocess.Popen(
        [*TRIREME, "serve", *ports, "--", "--log-verbose=1"], stdout=subprocess.PIPE, text=True, cwd=tmp_path
    )
    assert process.stdout is not None
    assert json.loads(process.stdout.readline())["models"] == list(PLANS)
    process.terminate()
    assert process.wait(timeout=60) == 0
    assert "] New request handler for ModelInferHandler" in (tmp_path / "log").read_text().replace('"', "")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["recommend", "--url", "localhost:1", "--user", "1"], "no connection"),
        (["recommend", "--history", "1,x"], "--history holds 'x'"),
        (["recommend", "--exclude", "1,x"], "--exclude holds 'x'"),
        (["ledger", "--url", "localhost:1"], "localhost:1"),
        (["export", "--checkpoint", "nowhere"], "nowhere/train.json: cannot be read"),
        (["export", "--checkpoint", "nowhere", "--target", "gpu"], "nowhere"),
        (["serve", "nowhere"], "no such directory"),
        (["train", "--data", "nowhere"], "nowhere"),
        (["evaluate", "--data", "nowhere", "--checkpoint", "nowhere"], "nowhere"),
        (["perf", "sweep", "nowhere"], "nowhere has no entry model"),
        (["perf", "limit", "nowhere"], "no such directory"),
    ],
    ids=lambda value: " ".join(value[:3]) if isinstance(value, list) else "",
)
def test_what_a_user_can_do_wrong_is_one_line(refused: Callable[..., str], arguments: list[str], words: str) -> None:
    assert words in refused(*arguments)


def test_serve_refuses_what_it_sets_itself_and_names_a_limit_that_passed(
    served: Served, refused: Callable[..., str]
) -> None:
    ports = ("--grpc-port=0", "--http-port=0", "--metrics-port=0")
    line = refused("serve", served.repository, *ports, "--", "--grpc-port=9")
    assert "argument of tritonserver '--grpc-port=9' is not allowed; Trireme sets --model-repository, " in line
    line = refused("serve", served.repository, *ports, "--ready-timeout", "0.1")
    assert "tritonserver not ready after 0.1 s" in line


def test_a_process_that_was_refused_fails_without_a_traceback(tmp_path: Path) -> None:
    done = trireme_process("serve", "nowhere", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"error: {tmp_path / 'nowhere'}: no such directory")


def test_a_repository_for_a_gpu_is_exported_and_asks_for_plans(
    served: Served, tmp_path: Path, refused: Callable[..., str]
) -> None:
    served.checkpoint.save(tmp_path / "checkpoint")
    options = ["--checkpoint", tmp_path / "checkpoint", "--out", tmp_path / "repo", "--target", "gpu"]
    result = document(trireme("export", *options, "--plan", "fused", "--json"))
    assert (result["target"], result["plan"], result["source"]["engine"]) == ("gpu", "fused", "tensorrt")
    line = refused("plans", "build", tmp_path / "repo")
    assert "TensorRT is missing here" in line
    assert "docker run --rm --gpus all" in line
    line = refused("perf", "limit", tmp_path / "repo")
    assert "is of target 'gpu'; allowed here: cpu" in line


def test_holdout_out_of_range_is_named(served: Served, tmp_path: Path, refused: Callable[..., str]) -> None:
    line = refused("train", "--data", served.data, "--out", tmp_path / "c", "--holdout-users", "1.5")
    assert "data.holdout_users: 1.5 is not allowed" in line
