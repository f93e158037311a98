"""The funnel behind LitServe: an HTTP process, an inference process, batches between them.

Tuned by https://lightning.ai/docs/litserve/features/batching (``max_batch_size``, ``batch_timeout``),
https://lightning.ai/docs/litserve/api-reference/litserver (``fast_queue`` beyond 100 requests/s, one worker per core) and
https://lightning.ai/docs/litserve/features/request-response-format (a typed request, a ready response).
"""

import signal
from pathlib import Path
from types import FrameType

import litserve
from fastapi import Response
from peer import HOST, Query, Recommender, options


class RecommendAPI(litserve.LitAPI):
    """Runs in the inference process, except for the parsing of the request."""

    def __init__(self, funnel: Path, batch: int, wait_ms: int) -> None:
        super().__init__(
            max_batch_size=batch,
            batch_timeout=wait_ms / 1000,
            api_path="/recommend",
        )
        self.path = funnel

    def setup(self, device: str) -> None:
        self.recommend = Recommender(self.path)

    def decode_request(self, request: Query) -> int:
        return request.user_id

    def batch(self, inputs: list[int]) -> list[int]:
        return inputs

    def predict(self, x: list[int]) -> list[bytes]:
        return self.recommend(x)

    def unbatch(self, output: list[bytes]) -> list[bytes]:
        return output

    def encode_response(self, output: bytes) -> Response:
        return Response(output, media_type="application/json")


def interrupt(signum: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def main() -> None:
    given = options(__doc__, workers=1, batch=8, wait_ms=1)
    # LitServe stops its processes on KeyboardInterrupt; a bare SIGTERM would leave them behind.
    signal.signal(signal.SIGTERM, interrupt)
    server = litserve.LitServer(
        RecommendAPI(given.funnel, given.batch, given.wait_ms),
        accelerator="cpu",
        workers_per_device=given.workers,
        fast_queue=True,  # as documented; 0.2.19 hands it on under a wrong name, so the queues stay those of multiprocessing
        disable_openapi_url=True,
    )
    server.run(
        host=HOST,
        port=given.port,
        num_api_servers=1,
        log_level="warning",
        generate_client_file=False,
        loop="uvloop",
        http="httptools",
        access_log=False,
    )


if __name__ == "__main__":
    main()
