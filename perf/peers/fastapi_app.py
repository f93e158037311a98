"""The funnel behind FastAPI and uvicorn: one request, one call; for one user as JSON, or for several as packed arrays.

Tuned by https://fastapi.tiangolo.com/async/ (``async def`` runs in the event loop, ``def`` in a thread pool),
https://fastapi.tiangolo.com/advanced/response-directly/ and https://www.uvicorn.org/settings/ (uvloop, httptools, no access
log, workers).
"""

from __future__ import annotations

import os
from pathlib import Path

import uvicorn
from fastapi import FastAPI, Request, Response
from peer import HOST, Query, Recommender, options

FUNNEL = "TRIREME_FUNNEL"
MAX_USERS = 64


def application() -> FastAPI:
    recommend = Recommender(Path(os.environ[FUNNEL]))
    app = FastAPI(openapi_url=None)

    @app.get("/health")
    async def health() -> Response:
        return Response()

    # Not `def`: on one core a thread pool only adds switches to work that never waits.
    @app.post("/recommend")
    async def answer(query: Query) -> Response:
        return Response(recommend([query.user_id])[0], media_type="application/json")

    @app.post("/recommend/packed")
    async def answer_many(request: Request) -> Response:
        user_ids = await request.body()
        if len(user_ids) % 8 or not 8 <= len(user_ids) <= 8 * MAX_USERS:
            allowed = f"8 for each of 1 to {MAX_USERS} users"
            return Response(f"the body has {len(user_ids)} bytes; allowed: {allowed}", 422, media_type="text/plain")
        return Response(recommend.packed(user_ids), media_type="application/octet-stream")

    return app


def main() -> None:
    given = options(__doc__, workers=1)
    os.environ[FUNNEL] = str(given.funnel)
    uvicorn.run(
        f"{Path(__file__).stem}:application",
        factory=True,
        workers=given.workers,
        host=HOST,
        port=given.port,
        loop="uvloop",
        http="httptools",
        access_log=False,
        log_level="warning",
    )


if __name__ == "__main__":
    main()
