"""The funnel behind BentoML with adaptive batching.

Tuned by https://docs.bentoml.com/en/latest/get-started/adaptive-batching.html (``batchable``, ``max_batch_size``,
``max_latency_ms``),
https://docs.bentoml.com/en/latest/reference/bentoml/configurations.html (one worker, no metrics, no access log) and
https://docs.bentoml.com/en/latest/build-with-bentoml/iotypes.html (annotated input and output types).
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import bentoml
from bentoml.validators import ContentType
from peer import HOST, Recommender, options
from pydantic import BeforeValidator, PlainSerializer
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

FUNNEL, WORKERS, BATCH = "TRIREME_FUNNEL", "TRIREME_WORKERS", "TRIREME_BATCH"


def in_list(user_id: object) -> list[object]:
    return [user_id]


def only(documents: list[bytes]) -> bytes:
    (document,) = documents
    return document


# A batchable method takes and gives lists; a request and its answer are lists of one.
UserIds = Annotated[list[int], BeforeValidator(in_list)]
Documents = Annotated[list[bytes], PlainSerializer(only), ContentType("application/json")]


async def health(request: Request) -> Response:
    return Response()


# The probes of BentoML itself have other paths; routes of a mounted application come after its own.
@bentoml.asgi_app(Starlette(routes=[Route("/health", health)]))
@bentoml.service(
    workers=int(os.environ.get(WORKERS, "1")),
    traffic={"timeout": 60},
    metrics={"enabled": False},
    logging={"access": {"enabled": False}},
)
class Recommendation:
    def __init__(self) -> None:
        self.recommender = Recommender(Path(os.environ[FUNNEL]))

    # Beyond max_latency_ms BentoML answers 503 by its own estimate; 20 and 100 refused requests under load.
    @bentoml.api(
        route="/recommend",
        batchable=True,
        max_batch_size=int(os.environ.get(BATCH, "16")),
        max_latency_ms=1000,
    )
    async def recommend(self, user_id: UserIds) -> Documents:
        return self.recommender(user_id)


def main() -> None:
    given = options(__doc__, workers=1, batch=16)
    os.environ |= {FUNNEL: str(given.funnel), WORKERS: str(given.workers), BATCH: str(given.batch)}
    here = Path(__file__)
    # In place of this process, so that its signals reach BentoML's own supervisor.
    serve = [sys.executable, "-m", "bentoml", "serve", f"{here.stem}:Recommendation", "--working-dir", str(here.parent)]
    os.execv(sys.executable, [*serve, "--host", HOST, "--port", str(given.port)])


if __name__ == "__main__":
    main()
