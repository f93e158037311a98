"""The funnel behind Ray Serve with dynamic request batching, on a local cluster of one CPU.

Tuned by https://docs.ray.io/en/latest/serve/advanced-guides/performance.html (throughput-optimized flags, ``async``,
``max_ongoing_requests``), https://docs.ray.io/en/latest/serve/advanced-guides/dyn-req-batch.html (``serve.batch``) and
https://docs.ray.io/en/latest/serve/advanced-guides/haproxy-guide.html (HAProxy in place of the Python proxy).
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import tempfile
import threading
from pathlib import Path

import ray
from peer import HOST, Query, Recommender, options
from pydantic import ValidationError
from ray import serve
from starlette.requests import Request
from starlette.responses import Response


def recommendation(batch: int, wait_ms: int) -> type:
    """Returns what a replica runs; the settings of ``serve.batch`` are part of the class."""

    class Recommendation:
        """Everything but /recommend is the health check."""

        def __init__(self, funnel: Path) -> None:
            self.recommender = Recommender(funnel)

        async def __call__(self, request: Request) -> Response:
            if request.url.path != "/recommend":
                return Response()
            try:
                query = Query.model_validate_json(await request.body())
            except ValidationError as error:
                return Response(error.json(), status_code=422, media_type="application/json")
            return Response(await self.recommend(query.user_id), media_type="application/json")

        @serve.batch(
            max_batch_size=batch,
            batch_wait_timeout_s=wait_ms / 1000,
        )
        async def recommend(self, user_ids: list[int]) -> list[bytes]:
            return self.recommender(user_ids)

    return Recommendation


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def private_environment(directory: Path) -> dict[str, str]:
    """What Ray would otherwise keep at fixed places: a second cluster on this machine would meet it there."""
    return {
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_SERVE_HAPROXY_STATS_PORT": str(free_port()),
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(free_port()),
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(directory / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(directory / "haproxy.sock"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(directory),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(directory / "haproxy-state"),
    }


def main() -> None:
    given = options(__doc__, workers=1, batch=16, wait_ms=0)
    stop = threading.Event()
    temporary = tempfile.mkdtemp(prefix="ray")
    os.environ.update(private_environment(Path(temporary)))
    ray.init(
        address="local",
        num_cpus=given.workers,
        include_dashboard=False,
        configure_logging=False,
        log_to_driver=False,
        object_store_memory=100 * 1024 * 1024,
        _temp_dir=temporary,
    )
    # Ray's own handler, installed by init, aborts the process and leaves its files behind.
    signal.signal(signal.SIGTERM, lambda signum, frame: stop.set())
    try:
        serve.start(http_options={"host": HOST, "port": given.port}, logging_config={"enable_access_log": False})
        deployment = serve.deployment(
            num_replicas=given.workers, max_ongoing_requests=1000, ray_actor_options={"num_cpus": 1}
        )(recommendation(given.batch, given.wait_ms))
        serve.run(deployment.bind(given.funnel), route_prefix="/")
        stop.wait()
    finally:
        serve.shutdown()
        ray.shutdown()
        shutil.rmtree(temporary, ignore_errors=True)


if __name__ == "__main__":
    main()
