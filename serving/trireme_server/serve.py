"""``trireme serve``: a server in the foreground until it is stopped."""

from __future__ import annotations

import secrets
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from trireme_runtime.bundle import Manifest
from trireme_runtime.control_groups import usable_memory
from trireme_runtime.cpu import cpu_model
from trireme_server.command import Access
from trireme_server.health import HealthEndpoint
from trireme_server.memory_watch import GB
from trireme_server.ports import shared_port
from trireme_server.process import TritonServer
from trireme_server.replicas import PORT_STEP, Replicas
from trireme_server.tls import ServerTLS

HEALTH_PORT = 8003
MEMORY_SHARE = 0.9  # of what there is
HTTP_WARNING = (
    "warning: inference over HTTP is open: a single malformed request ends tritonserver 2.51, and perhaps others; "
    "let only those reach the HTTP port whom you trust"
)
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@dataclass(frozen=True)
class Replica:
    """What a server has alone where several share the gRPC port."""

    http_url: str
    metrics_url: str
    pid: int


@dataclass(frozen=True)
class Ready:
    """What a server reports when it is ready; with replicas, of the first one if not said otherwise. Durations in seconds."""

    grpc_url: str
    tls: bool
    """Whether gRPC is encrypted; the other endpoints never are."""
    http_url: str
    metrics_url: str
    health_url: str
    models: tuple[str, ...]
    plan: str
    bundle_id: str
    version: int
    pid: int
    load_s: float
    warmup_s: float
    warmup_requests: int
    instances: dict[str, int]
    chosen_on: str | None
    """The CPU on which the bundle's index and precision were chosen by measurement, if it is another one."""
    replicas: tuple[Replica, ...]
    """All of them."""

    @classmethod
    def of(cls, server: TritonServer, *others: TritonServer) -> Ready:
        """Describes a started server, and those that share its gRPC port."""
        warmup = server.warmup
        return cls(
            grpc_url=server.grpc_url,
            tls=server.tls is not None,
            http_url=server.http_url,
            metrics_url=server.metrics_url,
            health_url=server.health_url,
            models=server.models,
            plan=server.manifest.plan,
            bundle_id=server.manifest.bundle_id,
            version=server.manifest.version,
            pid=server.pid or 0,
            load_s=round(server.load_s, 3),
            warmup_s=round(warmup.seconds, 3) if warmup else 0.0,
            warmup_requests=warmup.requests if warmup else 0,
            instances=server.instances,
            chosen_on=_other_cpu(server.manifest),
            replicas=tuple(Replica(one.http_url, one.metrics_url, one.pid or 0) for one in (server, *others)),
        )

    def __str__(self) -> str:
        urls = [url for replica in self.replicas for url in (replica.http_url, replica.metrics_url)]
        count = f"{len(self.replicas)} replicas · " if len(self.replicas) > 1 else ""
        return (
            f"ready: {count}grpc {self.grpc_url}{' (TLS)' * self.tls} · {' · '.join(urls)} · "
            f"{self.health_url} · plan {self.plan}, "
            f"bundle {self.bundle_id} version {self.version} · loaded in {self.load_s:.1f} s, "
            f"warmed in {self.warmup_s:.1f} s ({self.warmup_requests} requests) · "
            f"instances of a model: {max(self.instances.values(), default=0)}"
        )

    @property
    def note(self) -> str:
        """What is worth knowing beside; empty if there is nothing."""
        if self.chosen_on is None:
            return ""
        return f"the bundle's index and precision were chosen on another CPU ({self.chosen_on}); here is {cpu_model()}"

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def _other_cpu(manifest: Manifest) -> str | None:
    chosen_on = manifest.source.get("cpu")
    return None if chosen_on == cpu_model() else chosen_on


def print_ready(ready: Ready) -> None:
    """Writes the ready line to standard output at once, for people and supervisors; a note goes to standard error."""
    if ready.note:
        sys.stderr.write(f"note: {ready.note}\n")
    sys.stdout.write(f"{ready}\n")
    sys.stdout.flush()


def serve(
    repository: Path,
    *,
    host: str = "127.0.0.1",
    grpc_port: int = 8001,
    http_port: int = 8000,
    metrics_port: int = 8002,
    health_port: int | None = None,
    replicas: int = 1,
    memory_limit_gb: float | None = None,
    http: bool = False,
    tls: ServerTLS | None = None,
    log_path: Path | None = None,
    ready_timeout_s: float = 120.0,
    warm: bool = True,
    otlp_url: str | None = None,
    features: str | None = None,
    extra_arguments: Sequence[str] = (),
    announce: Callable[[Ready], None] = print_ready,
) -> None:
    """Serves until Ctrl-C or SIGTERM, then stops every process and returns. Call it from the main thread.

    A server that has been ready and dies is started again, and a stub that ends is replaced, see ``Supervisor``.

    Nothing but inference, health, statistics and descriptions is open to callers, over gRPC. HTTP is for this machine alone.

    Args:
        health_port: of ``/ready``, ``/live`` and ``/metrics``; 0 picks a free one, as None does where ``grpc_port`` is 0, else
            8003.
        replicas: tritonservers that share ``grpc_port``. The first has the other ports, the next ones those 10, 20 … above. Each
            has a file of its own beside ``log_path``.
        memory_limit_gb: 10⁹ bytes that all servers together may take before one that has grown is started again; None is 9/10 of
            what the machine or the container has.
        http: open HTTP on ``host``, inference over it included.
        log_path: for the server's log; None is standard error.
        announce: is called once, when the server is ready.

    The other arguments are those of ``TritonServer``.

    Raises:
        ServerError: it did not come up (see the tree in ``errors``).
    """
    if http:
        sys.stderr.write(f"{HTTP_WARNING}\n")
    if health_port is None:
        health_port = HEALTH_PORT if grpc_port else 0

    def make(index: int, grpc_port: int, health_url: str) -> TritonServer:
        return TritonServer(
            repository,
            host=host,
            grpc_port=grpc_port,
            http_port=http_port and http_port + PORT_STEP * index,
            metrics_port=metrics_port and metrics_port + PORT_STEP * index,
            shares_grpc=replicas > 1,
            log_path=_log_path(log_path, index),
            show_log=log_path is None,
            ready_timeout_s=ready_timeout_s,
            warm=warm,
            otlp_url=otlp_url,
            features=features,
            access=Access(secrets.token_hex(16), http),
            tls=tls,
            health_url=health_url,
            extra_arguments=extra_arguments,
        )

    limit = MEMORY_SHARE * usable_memory() if memory_limit_gb is None else GB * memory_limit_gb
    serving = Replicas(replicas, limit / replicas)
    with _stop_signals() as stop_requested, ExitStack() as held:
        try:
            health = held.enter_context(HealthEndpoint(host, health_port, serving.ready, serving.metrics.page))
            if replicas > 1:
                grpc_port = held.enter_context(shared_port(host, grpc_port, "--grpc-port"))
            _run(serving, [make(index, grpc_port, health.url) for index in range(replicas)], announce)
        except stop_requested:
            pass


def _run(serving: Replicas, servers: Sequence[TritonServer], announce: Callable[[Ready], None]) -> None:
    try:
        serving.start(servers)
        announce(Ready.of(*servers))
        serving.run()
    finally:
        serving.stop()


def _log_path(path: Path | None, index: int) -> Path | None:
    """Returns the file of a replica: ``server.log``, ``server-2.log`` …"""
    return path.with_name(f"{path.stem}-{index + 1}{path.suffix}") if path and index else path


class _StopRequested(BaseException):
    """Raised in the main thread by a stop signal; no ``except Exception`` on the way may swallow it."""


@contextmanager
def _stop_signals() -> Iterator[type[_StopRequested]]:
    """Turns the first stop signal into ``_StopRequested``; ignores the rest: nothing may interrupt the stop."""

    def request_stop(signum: int, frame: FrameType | None) -> None:
        for number in STOP_SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        raise _StopRequested

    before = {number: signal.signal(number, request_stop) for number in STOP_SIGNALS}
    try:
        yield _StopRequested
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
