"""Serves the page to browsers."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager

import uvicorn
from fastapi import FastAPI
from nicegui import ui
from starlette.middleware.trustedhost import TrustedHostMiddleware

from trireme_client import TLS
from trireme_console.ask import Asker
from trireme_console.page import build
from trireme_console.readings import Source
from trireme_console.sampler import Sampler
from trireme_perf.errors import PerfError

__all__ = ["serve"]

FAVICON = """<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32"><rect width="32" height="32" rx="6" fill="#0b1016"/>
<g fill="#6cb6ff"><rect x="5" y="7" width="22" height="4" rx="2"/><rect x="5" y="14" width="15" height="4" rx="2"/>
<rect x="5" y="21" width="9" height="4" rx="2"/></g></svg>"""


def serve(
    url: str,
    metrics_url: str,
    model: str,
    callers_urls: Sequence[str],
    supervisor_url: str | None,
    *,
    tls: TLS | None = None,
    titles: Mapping[int, str],
    host: str,
    port: int,
    announce: Callable[[str], None],
) -> None:
    """Serves the page until a signal stops it.

    Args:
        url, metrics_url, model, callers_urls, supervisor_url, tls: see ``Source``.
        titles: by item id; empty where there are none.
        host, port: the address to listen on; port 0 picks a free one.
        announce: receives the address of the page once it can be opened.

    Raises:
        PerfError: the address is not available.
        ValidationError: ``url`` or ``model`` is malformed.
    """
    asker = Asker(url, model, tls)
    sampler = Sampler(Source(url, metrics_url, model, callers_urls, supervisor_url, tls))
    listening = _listen(host, port)
    where = f"http://{host}:{listening.getsockname()[1]}"

    @asynccontextmanager
    async def sampling(_: FastAPI) -> AsyncIterator[None]:
        sampler.start()
        announce(where)
        yield
        sampler.stop()
        asker.close()

    app = FastAPI(lifespan=sampling)
    if ipaddress.ip_address(listening.getsockname()[0]).is_loopback:
        # Protects against DNS rebinding: a foreign page whose name resolves to this machine must not read the console.
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=[host, "localhost", "127.0.0.1", "[::1]"])
    ui.run_with(
        app,
        root=lambda: build(sampler, asker, titles),
        title="Trireme console",
        favicon=FAVICON,
        dark=True,
        tailwind=False,
        show_welcome_message=False,
    )
    uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1)).run(sockets=[listening])


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address[:2], family=family)
    except (OSError, OverflowError) as error:
        raise PerfError(f"console cannot listen on host {host!r}, port {port}: {error}") from None
