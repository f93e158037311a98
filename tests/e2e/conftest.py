"""One real tritonserver for all end-to-end tests that need a trained bundle; and a Redis for each that needs one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import grpc
import pytest
from redis import Redis
from tritonclient.grpc.service_pb2_grpc import GRPCInferenceServiceStub

from tests.support.redis_server import RedisServer, redis_server
from tests.support.serving import CLOSED, served_briefly
from trireme_export.checkpoint import Checkpoint
from trireme_export.config import PipelineConfig
from trireme_export.data import Dataset, SyntheticConfig, read_dataset, write_synthetic
from trireme_export.pipeline import export_bundle, train_checkpoint
from trireme_server import TritonServer

PLANS = ("recommend", "recommend_fused")

#: Small enough to train in seconds; every path of the pipeline is the real one.
PIPELINE = PipelineConfig.model_validate(
    {
        "data": {"holdout_users": 0.2},
        "training": {
            "threads": 1,  # more wait for one another wherever other programs run, and it takes ten times as long
            "history_length": 20,
            "tower": {"dim": 32, "heads": 2, "hidden": 32, "max_epochs": 3, "batch_size": 128},
            "ranker": {"dim": 16, "hidden": 16, "history": 8, "heads": 2, "candidates": 40, "max_epochs": 2},
        },
        # Not precision auto: which one is faster depends on what else the machine does.
        "serving": {
            "candidates": 60,
            "list_length": 40,
            "max_batch_size": 32,
            "instances": 1,
            "precision": "float32",
        },
    }
)


@dataclass(frozen=True)
class Served:
    """A bundle and the server that serves it."""

    data: Path
    dataset: Dataset
    checkpoint: Checkpoint
    repository: Path
    server: TritonServer

    @property
    def url(self) -> str:
        return self.server.grpc_url


def streaming(checkpoint: Checkpoint) -> Checkpoint:
    """Returns the checkpoint with ``serving.stream``."""
    serving = checkpoint.config.serving.model_copy(update={"stream": True})
    return replace(checkpoint, config=checkpoint.config.model_copy(update={"serving": serving}))


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("served")
    write_synthetic(folder / "data", SyntheticConfig(users=600, items=400, interactions=12_000))
    dataset = read_dataset(folder / "data", PIPELINE.data)
    train_checkpoint(dataset, PIPELINE, progress=False).save(folder / "checkpoint")
    checkpoint = Checkpoint.load(folder / "checkpoint")
    export_bundle(checkpoint, folder / "repository", "both")
    with served_briefly(folder / "repository", access=CLOSED) as server:
        yield Served(folder / "data", dataset, checkpoint, folder / "repository", server)


@pytest.fixture(scope="session")
def fused_repository(served: Served, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same checkpoint, the fused plan alone: a server of it is up in half the time, for what asks no other plan."""
    repository = tmp_path_factory.mktemp("fused") / "repository"
    export_bundle(served.checkpoint, repository, "fused")
    return repository


@pytest.fixture
def own_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A Redis of the test alone, which may kill it."""
    with redis_server(tmp_path_factory.mktemp("redis")) as running:
        yield running


@pytest.fixture
def redis(own_redis: RedisServer) -> Iterator[Redis]:
    with own_redis.connect() as connection:
        yield connection


@pytest.fixture(params=PLANS)
def plan(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def stub(served: Served) -> Iterator[GRPCInferenceServiceStub]:
    with grpc.insecure_channel(served.url) as channel:
        yield GRPCInferenceServiceStub(channel)
