"""The two sides of an experiment: servers on one core, and a connection to each."""

from __future__ import annotations

import os
import sys
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from trireme_client import Telemetry
from trireme_perf.ab.blocks import Side
from trireme_perf.ab.connections import connect
from trireme_perf.ab.variants import MIXINS, Variant
from trireme_perf.host.place import Place
from trireme_perf.host.server import Command, Server
from trireme_perf.host.triton import INSTALLED, ready_address, serve_command, serving_program
from trireme_perf.repositories import append_code, copy_repository

__all__ = ["Opened", "open_variant"]

SPAN_DELAY, SPAN_DELAY_MS = "OTEL_BSP_SCHEDULE_DELAY", 500
#: The class of ``ab.models`` goes in front of the bundle's own, which says which stages it runs.
OVERRIDE = '''

from trireme_perf.ab.models import {mixin}  # noqa: E402


class TritonPythonModel({mixin}, TritonPythonModel):
    """As above, {mixin}."""
'''


@dataclass(frozen=True)
class Opened:
    """A variant that is ready to be asked. url: host:port of its server."""

    side: Side
    url: str
    list_length: int


async def open_variant(stack: AsyncExitStack, name: str, variant: Variant, place: Place) -> Opened:
    """Serves a variant and connects to it; both end with the ``stack``.

    Raises:
        PerfError: its repository cannot be copied. StartError: its server does not start.
    """
    otlp_url = "" if variant.traced is None else await _sink(stack, name, place)
    server, url = await _serve(stack, name, variant, place, otlp_url) if variant.repository else (None, variant.url)
    asker = await connect(stack, variant, url, _telemetry(stack, variant, otlp_url))
    return Opened(Side(name, asker.ask, server, asker.closed_loop), url, asker.list_length)


async def _serve(stack: AsyncExitStack, name: str, variant: Variant, place: Place, otlp_url: str) -> tuple[Server, str]:
    assert variant.repository is not None
    repository = variant.repository
    if variant.models:
        repository = with_mixin(MIXINS[variant.models], repository, place.folder / f"repository-{name}")
    program = serving_program(variant.checkout, "--checkout") if variant.checkout else INSTALLED
    command = serve_command(repository, program, (f"--otlp-url={otlp_url}",) if otlp_url else ())
    if otlp_url:
        command = replace(command, environment={SPAN_DELAY: str(SPAN_DELAY_MS)})
    server = Server(command, place.core, place.folder / f"{name}.log")
    stack.callback(server.stop)
    return server, await ready_address(server)


def with_mixin(mixin: str, original: Path, copy: Path) -> Path:
    """Copies a repository, all of whose models are of the class ``mixin`` of ``ab.models`` in the copy."""
    copy_repository(original, copy)
    append_code(copy, OVERRIDE.format(mixin=mixin))
    return copy


async def _sink(stack: AsyncExitStack, name: str, place: Place) -> str:
    """Starts a collector beside the client and returns its URL."""
    command = Command((sys.executable, "-m", "trireme_perf.ab.sink"), Path.cwd())
    sink = Server(command, min(os.sched_getaffinity(0)), place.folder / f"sink-{name}.log")
    stack.callback(sink.stop)
    return await ready_address(sink, "otlp_url")


def _telemetry(stack: AsyncExitStack, variant: Variant, otlp_url: str) -> Telemetry | None:
    if variant.traced is None:
        return None
    from trireme_perf.ab.tracing import sampling  # needs OpenTelemetry, as nothing else here

    telemetry, end = sampling(variant.traced, otlp_url, SPAN_DELAY_MS)
    stack.callback(end)
    return telemetry
