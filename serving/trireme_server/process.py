"""A tritonserver as a context manager: it starts, is warmed when it is ready, and leaves nothing behind."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import asdict
from pathlib import Path

from trireme_runtime.bundle import PERF_INPUT
from trireme_runtime.cpu import usable_cpus
from trireme_runtime.features.address import FEATURES, StoreAddress
from trireme_runtime.schema import BUSY_PREFIX
from trireme_runtime.triton.busy import read_busy
from trireme_server import guardian
from trireme_server.api import Api
from trireme_server.artifact_watch import ArtifactWatch
from trireme_server.binaries import Binaries, find_binaries
from trireme_server.command import Access, server_command, server_environment
from trireme_server.errors import ServerError, StartError
from trireme_server.instances import has_gpu, link_repository
from trireme_server.log import telling_lines
from trireme_server.log_file import LogFile
from trireme_server.output import Output, Sink
from trireme_server.plans import check_parity, check_plans
from trireme_server.ports import Ports, address, choose_ports, listens, loopback, reachable
from trireme_server.preflight import check_affinity, check_repository, entry_models
from trireme_server.tls import ServerTLS
from trireme_server.trace_options import check_otlp_url, trace_arguments, trace_environment
from trireme_server.waiting import ends
from trireme_server.warmup import Warmup, read_samples, warm_up

POLL_S = 0.05
UNLOADING = "All models are stopped, unloading models"  # tritonserver, when no request waits in a queue
LAST_BATCH_S, IDLE_POLL_S, SENT_S = 5.0, 0.002, 0.01
START_TRIES = 3  # for what the next start may not meet, see `_lost_a_race`
LOCK_FAILED = "boost::interprocess::lock_exception"  # seen of tritonserver 2.51, on a busy machine


class TritonServer:
    """One tritonserver on one model repository.

    ``start`` (or entering the context) returns when the server is ready and listens on all ports, and its entry models
    have answered real requests; on a GPU, also its graphs, as they did at the export. ``stop`` (or leaving) ends the
    server, its stubs and their shared memory.
    They also end when this process dies, however it dies.

    Args:
        repository: model repository made by ``trireme export``.
        host: address or name to listen on; a name stands for its IPv4 address. HTTP: see ``http_host``.
        grpc_port, http_port, metrics_port: 0 picks a free one; see ``grpc_url`` and its siblings.
        shares_grpc: listen on ``grpc_port`` beside other servers, among which the kernel divides the connections.
        log_path: file for the server's log, which is appended to, and set aside when it is full, see ``LogFile``.
        show_log: write the server's log to standard error; not together with ``log_path``.
        cpu_affinity: CPUs the server and its stubs may use; None for all.
        ready_timeout_s: how long loading may take, in seconds.
        warm: send real requests to the entry models before calling the server ready.
        stop_grace_s: seconds for the requests in flight before the processes are killed.
        otlp_url: where spans go, the full URL of an OTLP/HTTP endpoint for traces; None sends none.
        features: address of the feature store, see ``StoreAddress``; None for that in the environment, if there is one.
        access: what takes a key, among it to load models again while the server runs, for which every instance gets a group of
            its own; None leaves all open, and the models as they are.
        tls: certificates of the gRPC endpoint; None leaves it in plain text, as those of HTTP and metrics always are.
        health_url: where the health check of the image asks once the server is ready; None for the server itself.
        extra_arguments: more arguments of tritonserver, such as ``--log-verbose=1``; none that is set here.
    """

    def __init__(
        self,
        repository: Path,
        *,
        host: str = "127.0.0.1",
        grpc_port: int = 8001,
        http_port: int = 8000,
        metrics_port: int = 8002,
        shares_grpc: bool = False,
        log_path: Path | None = None,
        show_log: bool = False,
        cpu_affinity: tuple[int, ...] | None = None,
        ready_timeout_s: float = 120.0,
        warm: bool = True,
        stop_grace_s: float = 15.0,
        otlp_url: str | None = None,
        features: str | None = None,
        access: Access | None = None,
        tls: ServerTLS | None = None,
        health_url: str | None = None,
        extra_arguments: Sequence[str] = (),
    ) -> None:
        self.repository = Path(repository).absolute()
        self.host = host
        self.log_path = log_path
        self.load_s = 0.0
        self.warmup: Warmup | None = None
        self.pid: int | None = None
        self.instances: dict[str, int] = {}
        self._asked = {"grpc": grpc_port, "http": http_port, "metrics": metrics_port}
        self._shares_grpc = shares_grpc
        self._affinity = cpu_affinity
        self._ready_timeout_s = ready_timeout_s
        self._warm = warm
        self._grace_s = stop_grace_s
        self._otlp_url = otlp_url
        self._features = features or os.environ.get(FEATURES)
        self.access = access
        self.tls = tls
        self._health_url = health_url
        self.lost_instances = False
        """To be set when a stub of the server has ended: tritonserver then never gets done with unloading that model."""
        self._extra = tuple(extra_arguments)
        self._ports = Ports(**self._asked)
        self._show_log = show_log
        self.shm_prefix = ""
        self._output: Output | None = None
        self._guardian: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()
        self._is_closed = False

    def __enter__(self) -> TritonServer:
        return self.start()

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    @property
    def grpc_url(self) -> str:
        """``host:port`` for gRPC clients on this machine."""
        return address(reachable(self.host), self._ports.grpc)

    @property
    def http_url(self) -> str:
        """Base URL of the HTTP endpoint."""
        return f"http://{address(reachable(self.http_host), self._ports.http)}"

    @property
    def http_host(self) -> str:
        """The address on which HTTP listens: where inference over it is closed, one that only this machine reaches. Others have
        nothing to ask there, and tritonserver reads the whole body of a request that it then refuses."""
        closed = self.access is not None and not self.access.http_inference
        return loopback(self.host) if closed else self.host

    @property
    def api(self) -> Api:
        """Asks this server, with its key."""
        return Api(self.http_url, self.access.key if self.access else None)

    @property
    def metrics_url(self) -> str:
        """URL of the Prometheus metrics."""
        return f"http://{address(reachable(self.host), self._ports.metrics)}/metrics"

    @property
    def health_url(self) -> str:
        """URL that answers 200 when requests should come."""
        return self._health_url or f"{self.http_url}/v2/health/ready"

    @property
    def models(self) -> tuple[str, ...]:
        """The entry models of the repository."""
        return entry_models(self.repository)

    @property
    def linked(self) -> Path:
        """The model repository as the server reads it; goes with the server."""
        # In shared memory, which Triton's Python backend needs anyway: a container may have no other place to write to.
        return guardian.SHARED_MEMORY / f"{self.shm_prefix}models"

    @property
    def busy_prefix(self) -> str:
        """Where instances tell since when they have been computing, as the beginning of the paths of their files."""
        return str(guardian.SHARED_MEMORY / f"{self.shm_prefix}busy_")

    @property
    def is_running(self) -> bool:
        """Whether the server's process lives."""
        process = self._guardian
        return process is not None and process.poll() is None

    def start(self) -> TritonServer:
        """Starts the server, waits until it is ready, and warms it.

        Raises:
            ServerError: see the tree in ``errors``; nothing is left running then.
        """
        if self._guardian is not None:
            raise ServerError(f"this server was started already (process {self.pid}); stop it first")
        check_affinity(self._affinity, os.sched_getaffinity(0))
        check_otlp_url(self._otlp_url)
        if self._features:
            StoreAddress.parse(self._features)
        self.manifest = check_repository(self.repository, warm=self._warm)
        self.artifacts = ArtifactWatch(self.repository, self.manifest.artifacts)
        binaries = find_binaries()
        on_gpu = self.manifest.target == "gpu"
        if on_gpu and not binaries.is_embedded:
            check_plans(self.repository)
        try:
            self._start_until_ready(binaries)
            if self._warm:
                samples = read_samples(self.repository / PERF_INPUT)
                self.warmup = warm_up(self.api, self.models, samples)
            if on_gpu:
                check_parity(self.api, self.repository)
        except BaseException:
            self.stop()
            raise
        assert self._output is not None
        self._output.forget()
        self._mark_ready()
        return self

    def restart(self) -> None:
        """Stops what is left of the server and starts it as it was, on the same ports; its log goes on.

        Raises:
            ServerError: as ``start`` does.
        """
        self.stop()
        self._asked = asdict(self._ports)
        self.start()

    def kill(self) -> None:
        """Kills tritonserver, and leaves what it started to ``stop`` or ``restart``."""
        if self.pid is not None:  # 0 would be our own group
            with suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)

    def stop(self) -> None:
        """Ends the server and all it started when it has answered what it was asked, or after the grace.

        Returns when all is gone. May be called more than once.
        """
        with self._lock:
            guardian_process, self._guardian = self._guardian, None
        if guardian_process is None:
            return
        assert guardian_process.stdin is not None
        assert guardian_process.stdout is not None
        assert self._output is not None
        # Unloading takes seconds, in which callers get NOT_FOUND, and does not end after faults or many cancelled calls. Only the
        # last spans are worth it, which the stages send then.
        if self._otlp_url is None or self.lost_instances:
            self._output.when_said(UNLOADING, self._kill_when_idle)
        guardian_process.stdin.close()
        try:
            reported = guardian_process.stdout.read()
            guardian_process.wait()
        finally:
            guardian_process.stdout.close()
        if b"exit" not in reported and self.pid is not None:
            guardian.end_unguarded(self.pid, self._grace_s, self.shm_prefix)
        self._output.finish()
        self._files.close()

    def close(self) -> None:
        """Stops the server for good: a start that another thread is making fails."""
        with self._lock:
            self._is_closed = True
        self.stop()

    def wait(self) -> int:
        """Blocks until the server has ended; its exit code (negative: the signal that killed it)."""
        while (code := self.ended(POLL_S)) is None:
            pass
        return code

    def ended(self, within_s: float) -> int | None:
        """Returns the exit code (negative: the signal that killed it) when the server ends, or None after ``within_s``."""
        process = self._guardian
        if process is None:
            if self._is_closed:
                return 0
            raise ServerError("this server is not started")
        if not ends(process.pid, within_s):  # where a stop in another thread was first, it has
            return None
        code = process.wait()
        assert self._output is not None
        self._output.finish()
        return guardian.SIGNAL_BASE - code if code > guardian.SIGNAL_BASE else code

    def log(self) -> str:
        """The last lines of the server's log; when it has become ready, only those since then."""
        return self._output.text() if self._output else ""

    def _start_until_ready(self, binaries: Binaries) -> None:
        for attempt in range(1, START_TRIES + 1):
            self._ports = choose_ports(
                self.host, **self._asked, shares_grpc=self._shares_grpc, http_host=self.http_host
            )
            with self._lock:
                if self._is_closed:
                    raise ServerError("this server was closed")
                self._launch(binaries)
            try:
                self._wait_until_ready()
                return
            except StartError:
                if attempt == START_TRIES or not self._lost_a_race():
                    raise
                self.stop()

    def _lost_a_race(self) -> bool:
        """Whether the next start may do better: another program took a port, or instances of tritonserver, which start at the
        same time, fell over a lock that they share."""
        log = self.log()
        return (0 in self._asked.values() and "already in use" in log) or LOCK_FAILED in log

    def _launch(self, binaries: Binaries) -> None:
        """Starts the guardian, which starts the server; sets ``pid``."""
        self.lost_instances = False
        self.shm_prefix = f"trireme_{os.getpid()}_{secrets.token_hex(4)}_"
        linked = self.linked
        with ExitStack() as files:
            sink: Sink | None = sys.stderr if self._show_log else None
            if self.log_path is not None:
                sink = files.enter_context(closing(LogFile(self.log_path)))
            files.callback(shutil.rmtree, linked, ignore_errors=True)
            # A host policy that means something leaves none for telling instances apart.
            policies = any(argument.startswith("--host-policy") for argument in self._extra)
            separate = self.access is not None and not policies
            self.instances = link_repository(
                self.repository, linked, usable_cpus(self._affinity), has_gpu(), separate, fresh=bool(self._features)
            )
            self._files = files.pop_all()
        command = server_command(
            binaries,
            linked,
            host=self.host,
            http_host=self.http_host,
            ports=self._ports,
            shm_prefix=self.shm_prefix,
            exit_timeout_s=max(1, int(self._grace_s)),
            shares_grpc=self._shares_grpc,
            access=self.access,
            tls=self.tls,
            trace_arguments=trace_arguments(self._otlp_url),
            extra_arguments=self._extra,
        )
        environment = server_environment(binaries) | trace_environment(self._otlp_url, self.manifest)
        if self._features:
            environment[FEATURES] = self._features
        environment[BUSY_PREFIX] = self.busy_prefix
        environment["TRIREME_REPOSITORY"] = str(self.repository)  # tells servers apart, whose command lines show links
        cpus = ",".join(map(str, sorted(self._affinity or os.sched_getaffinity(0))))
        guard = [sys.executable, "-I", "-S", guardian.__file__, str(self._grace_s), cpus, self.shm_prefix]
        self._started_at = time.monotonic()
        self._guardian = subprocess.Popen(
            [*guard, *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
            start_new_session=True,
        )
        assert self._guardian.stdout is not None
        assert self._guardian.stderr is not None
        self._output = Output(self._guardian.stderr, sink)
        reported = self._guardian.stdout.readline().split()
        self.pid = int(reported[1]) if reported[:1] == [b"pid"] else None

    def _kill_when_idle(self) -> None:
        """Kills tritonserver once its instances have computed what they have begun, and the answers are sent."""
        deadline = time.monotonic() + min(LAST_BATCH_S, self._grace_s)
        while self._is_computing() and time.monotonic() < deadline:
            time.sleep(IDLE_POLL_S)
        time.sleep(SENT_S)
        self.kill()

    def _is_computing(self) -> bool:
        """Whether an instance has a batch; of those that tell."""
        files = Path(self.busy_prefix).parent.glob(f"{Path(self.busy_prefix).name}*")
        return any(busy is not None and busy[0] for busy in map(read_busy, files))

    def _wait_until_ready(self) -> None:
        deadline = self._started_at + self._ready_timeout_s
        ports = self._ports
        waiting_for = [(self.host, ports.grpc), (self.http_host, ports.http), (self.host, ports.metrics)]
        while not self._is_ready(waiting_for):
            if not self.is_running:
                raise StartError(self._report(f"tritonserver {how_it_ended(self.wait())} while it was starting"))
            if time.monotonic() > deadline:
                raise StartError(self._report(f"tritonserver not ready after {self._ready_timeout_s:g} s"))
            time.sleep(POLL_S)
        self.load_s = time.monotonic() - self._started_at

    def _is_ready(self, waiting_for: list[tuple[str, int]]) -> bool:
        """Whether it listens on all ports, and its models are loaded."""
        while waiting_for:
            host, port = waiting_for[0]
            if not listens(reachable(host), port):
                return False
            waiting_for.pop(0)
        return self.api.is_ready()

    def _mark_ready(self) -> None:
        """Tells the health check of the image, for Triton says that it is ready before the warm-up.

        The mark lies where a read-only container can be written, and the guardian removes it with the shared memory.
        """
        mark = guardian.SHARED_MEMORY / f"{self.shm_prefix}ready"
        with self._lock:
            if self._is_closed:
                raise ServerError("this server was closed")
            mark.write_text(self.health_url)

    def _report(self, what: str) -> str:
        kept = f"; log: {self.log_path}" if self.log_path else ""
        return f"{what}: {'; '.join(telling_lines(self.log())) or 'its log is empty'}{kept}"


def how_it_ended(code: int) -> str:
    """Returns what happened to a server, as the rest of a sentence, from the code that ``wait`` returned."""
    if code >= 0:
        return f"ended with exit code {code}"
    return f"was killed by {signal.Signals(-code).name}"
