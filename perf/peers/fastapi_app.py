"""The funnel behind FastAPI and uvicorn: one request, one call.

Tuned by https://fastapi.tiangolo.com/async/ (``async def`` runs in the event loop, ``def`` in a thread pool),
https://fastapi.tiangolo.com/advanced/response-directly/ and https://www.uvicorn.org/settings/ (uvloop, httptools, no access log).
"""

from __future__ import annotations

import uvicorn
from fastapi import FastAPI, Response
from peer import HOST, Query, Recommender, options


def application(recommend: Recommender) -> FastAPI:
    app = FastAPI(openapi_url=None)

    @app.get("/health")
    async def health() -> Response:
        return Response()

    # Not `def`: on one core a thread pool only adds switches to work that never waits.
    @app.post("/recommend")
    async def answer(query: Query) -> Response:
        return Response(recommend([query.user_id])[0], media_type="application/json")

    return app


def main() -> None:
    funnel, port = options(__doc__)
    uvicorn.run(
        application(Recommender(funnel)),
        host=HOST,
        port=port,
        loop="uvloop",
        http="httptools",
        access_log=False,
        log_level="warning",
    )


if __name__ == "__main__":
    main()
