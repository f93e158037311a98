"""The repository of target gpu on the embedded server, whose stand-ins host its graphs: the answers of target cpu.

What cannot be here is TensorRT and a GPU; the repository is the one that NVIDIA's container would serve, byte for byte.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
from tritonclient.grpc.model_config_pb2 import DataType
from tritonclient.grpc.service_pb2_grpc import GRPCInferenceServiceStub
from tritonclient.utils import InferenceServerException, np_to_triton_dtype, triton_to_np_dtype
from typer.testing import CliRunner

from tests.e2e.conftest import PLANS, Served
from tests.e2e.test_answers import assert_same_answer, history_ids
from tests.e2e.test_bad_requests import history, message, users
from tests.support.own_ranker import Backwards
from tests.support.published import wait_until_published
from tests.support.serving import served_briefly
from trireme_cli.app import app
from trireme_client import ANONYMOUS, Client, Request, Rung
from trireme_export.exporters import export_funnel
from trireme_export.pipeline import export_bundle
from trireme_runtime.bundle import read_manifest, verify_repository
from trireme_runtime.schema import LAYOUTS
from trireme_server import TritonServer

ENGINES = ("tensorrt", "onnxruntime")
GRAPHS = sorted(LAYOUTS["gpu"].graphs)


class Target:
    """A repository of target gpu that is served."""

    def __init__(self, repository: Path, server: TritonServer) -> None:
        self.repository, self.server = repository, server

    def ask(self, plan: str, requests: list[Request]) -> list:
        with Client(self.server.grpc_url, model=plan, timeout=120) as client:
            return client.recommend_many(requests)


@pytest.fixture(scope="module", params=ENGINES)
def target(
    request: pytest.FixtureRequest, served: Served, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Target]:
    out = tmp_path_factory.mktemp("gpu") / request.param
    serving = served.checkpoint.config.serving.model_copy(update={"precision": "auto"})
    checkpoint = replace(served.checkpoint, config=served.checkpoint.config.model_copy(update={"serving": serving}))
    export_bundle(checkpoint, out, "both", "gpu", engine=request.param)
    with served_briefly(out) as server:
        yield Target(out, server)


def everybody(served: Served, k: int) -> list[Request]:
    """Known users, unknown ones with a history, and anonymous ones: more than a thousand requests."""
    users = served.dataset.user_ids.tolist()
    histories = [history_ids(served, user) for user in users]
    return [
        *(Request(user, k) for user in users),
        *(Request(10**15 + user, k, history) for user, history in zip(users, histories, strict=True)),
        *(Request(ANONYMOUS, k, history[:1]) for history in histories[:50]),
        Request(ANONYMOUS, k),
    ]


def test_everybody_gets_the_lists_of_target_cpu(served: Served, target: Target, plan: str) -> None:
    requests = everybody(served, 40)
    assert len(requests) > 1000
    with Client(served.url, model=plan, timeout=120) as client:
        expected = client.recommend_many(requests)
    found = target.ask(plan, requests)
    half = read_manifest(target.repository).source["precision"]["chosen"] == "float16"
    common = []
    for ours, theirs in zip(expected, found, strict=True):
        assert (ours.rung, ours.reason) == (theirs.rung, theirs.reason)
        # Rounded to half, another item may be the last candidate; it counts twice in a list if it is a popular one as well.
        assert abs(len(ours) - len(theirs)) <= (2 if half else 0)
        common.append(np.isin(theirs.item_ids[:10], ours.item_ids[:10]).mean())
        if not half:
            assert_same_answer(theirs.item_ids, theirs.scores, ours.item_ids, ours.scores)
    assert np.mean(common) > (0.97 if half else 0.999)


def test_float16_is_for_tensorrt_and_passed_the_gate(target: Target) -> None:
    source = read_manifest(target.repository).source
    assert source["precision"]["chosen"] == {"tensorrt": "float16", "onnxruntime": "float32"}[source["engine"]]
    assert (source["gate"]["verdict"], source["gate_fused"]["verdict"]) == ("passed", "passed")


def test_what_is_served_is_what_was_exported(target: Target) -> None:
    manifest = verify_repository(target.repository)
    assert manifest.target == "gpu"
    assert {path.split("/")[0] for path in manifest.artifacts} == set(LAYOUTS["gpu"].names("both"))


def test_exclusions_and_k_reach_both_plans(served: Served, target: Target, plan: str) -> None:
    user = int(served.dataset.test.user_id[0])
    (first,) = target.ask(plan, [Request(user, 10)])
    (second,) = target.ask(plan, [Request(user, 7, exclude=first.item_ids[:4].tolist())])
    assert second.item_ids.tolist() == [*first.item_ids[4:].tolist(), *second.item_ids[6:].tolist()]
    assert len(second) == 7


def test_a_wrong_request_is_refused_alone(served: Served, target: Target, plan: str) -> None:
    asked = [Request(user, 5) for user in served.dataset.test.user_id[:4].tolist()]
    right = target.ask(plan, asked)
    length = served.checkpoint.config.training.history_length
    with grpc.insecure_channel(target.server.grpc_url) as channel:
        stub = GRPCInferenceServiceStub(channel)
        for change, complaint in ((users(-7), "user_id is -7"), (history(3, -5), r"history\[3\] is -5")):
            request = message(plan, length)
            change(request)
            with pytest.raises(grpc.RpcError, match=complaint):
                stub.ModelInfer(request)
    after = target.ask(plan, asked)
    assert [answer.item_ids.tolist() for answer in after] == [answer.item_ids.tolist() for answer in right]


@pytest.mark.parametrize("model", GRAPHS)
def test_a_graph_refuses_what_does_not_fit_its_profile(target: Target, model: str) -> None:
    with triton.InferenceServerClient(target.server.grpc_url) as client:
        config = client.get_model_config(model).config
        for rows, width, complaint in (
            (1, 3, "unexpected shape for input 'history_index'"),
            (config.max_batch_size + 1, None, "batch-size must be <="),
        ):
            tensors = []
            for field in config.input:
                dtype = triton_to_np_dtype(DataType.Name(field.data_type).removeprefix("TYPE_"))
                size = width if width and field.name == "history_index" else field.dims[0]
                tensors.append(triton.InferInput(field.name, [rows, size], np_to_triton_dtype(dtype)))
                tensors[-1].set_data_from_numpy(np.zeros((rows, size), dtype))
            with pytest.raises(InferenceServerException, match=complaint):
                client.infer(model, tensors)
        assert client.is_server_ready()


def test_requests_become_batches_of_every_model(served: Served, target: Target, plan: str) -> None:
    with triton.InferenceServerClient(target.server.grpc_url) as client:
        steps = [step.model_name for step in client.get_model_config(plan).config.ensemble_scheduling.step]

        def counted() -> dict[str, tuple[int, int]]:
            return {
                name: (stats.inference_count, stats.execution_count)
                for name in steps
                for stats in client.get_inference_statistics(name).model_stats
            }

        before = counted()
        target.ask(plan, [Request(user, 5) for user in served.dataset.user_ids.tolist()])
        after = counted()
    for name in steps:
        users, runs = (after[name][place] - before[name][place] for place in (0, 1))
        assert users > 2 * runs, name


def test_the_ledger_names_the_stand_ins(target: Target, plan: str) -> None:
    wait_until_published(target.server.metrics_url)
    url = ["--url", target.server.grpc_url, "--metrics-url", target.server.metrics_url, "--model", plan]
    result = CliRunner().invoke(app, ["ledger", *url, "--json"])
    assert result.exit_code == 0, result.output
    document = json.loads(result.output.splitlines()[-1])
    models = LAYOUTS["gpu"].ensemble if plan == PLANS[0] else LAYOUTS["gpu"].fused
    assert [row["stage"] for row in document["stages"]] == list(models)
    assert document["stand_ins"] == [name for name in models if name in GRAPHS]
    assert all(row["budget_us"] > 0 for row in document["stages"])


def test_an_own_ranker_is_a_graph_as_well(served: Served, tmp_path: Path) -> None:
    """It reads none of the features, so its graph and the edges of the ensemble have fewer inputs."""
    checkpoint = replace(served.checkpoint, models=replace(served.checkpoint.models, ranker=Backwards()))
    export_bundle(checkpoint, tmp_path / "gpu", "both", "gpu", ["popularity"], "tensorrt")
    expected = export_funnel(checkpoint, tmp_path / "cpu")[0]
    users = served.dataset.user_ids
    slate = expected(users[:, None])
    with served_briefly(tmp_path / "gpu") as server:
        target = Target(tmp_path / "gpu", server)
        for plan in PLANS:
            for row, answer in enumerate(target.ask(plan, [Request(user, 40) for user in users.tolist()])):
                known = slate.rung[row, 0] == Rung.FULL
                assert answer.rung == slate.rung[row, 0]
                if known:
                    assert_same_answer(answer.item_ids, answer.scores, slate.item_id[row], slate.score[row])
