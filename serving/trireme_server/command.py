"""The command line and the environment of tritonserver, as pure functions."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from trireme_runtime.schema import OTLP_ENDPOINT
from trireme_server.binaries import Binaries
from trireme_server.errors import OptionError
from trireme_server.ports import Ports, is_ipv6
from trireme_server.tls import ServerTLS

# One thread per model instance: instances are scaled to the cores, thread pools inside would fight over them.
BACKEND_CONFIG, PREFIX_SETTING = "--backend-config", "shm-region-prefix-name"
# What only the holder of a key may ask for, and the header that carries it; HTTP takes the name of the header as it is.
ADMIN_HEADER = "admin-key"
CLOSED = ("model-repository", "shared-memory", "trace", "logging")
THREADS = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
# glibc raises both with the largest block that was ever freed, and then keeps what large messages took. Fixed at its defaults,
# they give it back.
ALLOCATION = {"MALLOC_MMAP_THRESHOLD_": "131072", "MALLOC_TRIM_THRESHOLD_": "131072"}


@dataclass(frozen=True)
class Access:
    """What a server does only for those who send a key: control of its models, shared memory, settings of traces and logs."""

    key: str
    http_inference: bool
    """Whether requests for inference over HTTP, which some servers do not survive, are taken without the key."""

    def arguments(self) -> list[str]:
        """For tritonserver."""
        http = CLOSED if self.http_inference else (*CLOSED, "inference")
        return [
            "--model-control-mode=explicit",
            "--load-model=*",
            f"--grpc-restricted-protocol={','.join(CLOSED)}:{ADMIN_HEADER}={self.key}",
            f"--http-restricted-api={','.join(http)}:{ADMIN_HEADER}={self.key}",
        ]


def server_command(
    binaries: Binaries,
    repository: Path,
    *,
    host: str,
    http_host: str | None = None,
    ports: Ports,
    shm_prefix: str,
    exit_timeout_s: int,
    shares_grpc: bool = False,
    access: Access | None = None,
    tls: ServerTLS | None = None,
    trace_arguments: Sequence[str] = (),
    extra_arguments: Sequence[str] = (),
) -> list[str]:
    """Arguments of tritonserver, program first; those of the user, ``extra_arguments``, come last.

    HTTP listens on ``http_host`` if that is given, all else on ``host``.
    With ``access``, models can be loaded again while the server runs, by those who send its key.

    Raises:
        OptionError: an extra argument is none, or one of those that are set here.
    """
    grpc_host = f"[{host}]" if is_ipv6(host) else host
    command = [
        str(binaries.server),
        f"--model-repository={repository}",
        f"--grpc-address={grpc_host}",
        f"--grpc-port={ports.grpc}",
        f"--http-address={_http_address(http_host or host)}",
        f"--http-port={ports.http}",
        f"--metrics-address={_http_address(host)}",
        f"--metrics-port={ports.metrics}",
        *("--allow-grpc=true", "--allow-http=true", "--allow-metrics=true"),
        # Configurations are complete; to complete them, every stub would start and stop once more (~1 s).
        "--disable-auto-complete-config",
        f"--exit-timeout-secs={exit_timeout_s}",
        # A prefix of its own separates this server's shared memory from that of others.
        f"{BACKEND_CONFIG}=python,{PREFIX_SETTING}={shm_prefix}",
    ]
    if binaries.backend_directory:
        command.append(f"--backend-directory={binaries.backend_directory}")
    if binaries.cache_directory:
        command.append(f"--cache-directory={binaries.cache_directory}")
    if shares_grpc:
        command.append("--reuse-grpc-port=true")
    if access is not None:
        command += access.arguments()
    if tls is not None:
        command += tls.arguments()
    command += trace_arguments
    _check_extra(extra_arguments, command[1:])
    return [*command, *extra_arguments]


def server_environment(binaries: Binaries, base: Mapping[str, str] | None = None) -> dict[str, str]:
    """Environment of tritonserver: ``base`` (default: ours) plus libraries, Python, thread counts, and, unless ``base`` has them,
    limits of what is kept of freed memory.

    The stub embeds an isolated Python: it ignores PYTHONPATH and PYTHONHOME and takes the environment
    (site-packages, editable installs) of the first ``python3`` on PATH. So ours comes first.
    """
    environment = {**ALLOCATION, **(os.environ if base is None else base)}
    libraries = [str(path) for path in binaries.library_path]
    if libraries:
        environment["LD_LIBRARY_PATH"] = _joined([*libraries, environment.get("LD_LIBRARY_PATH", "")])
    # The variable may be meant for other programs; `trace_environment` sets it again where spans are wanted.
    environment.pop(OTLP_ENDPOINT, None)
    environment["PATH"] = _joined([str(Path(sys.executable).parent), environment.get("PATH", os.defpath)])
    return environment | THREADS


def _check_extra(extra: Sequence[str], own: Sequence[str]) -> None:
    # There may be more settings of backends; of ours only the prefix would break the clean end.
    names = dict.fromkeys(argument.partition("=")[0] for argument in own if not argument.startswith(BACKEND_CONFIG))
    for argument in extra:
        name = argument.partition("=")[0]
        if not re.fullmatch("--[a-z].*", name):
            raise OptionError(f"argument of tritonserver {argument!r} is not allowed; allowed: --NAME or --NAME=VALUE")
        # tritonserver takes a beginning for the whole name.
        if any(known.startswith(name) for known in names) or PREFIX_SETTING in argument:
            raise OptionError(
                f"argument of tritonserver {argument!r} is not allowed; Trireme sets {', '.join(names)} "
                f"and {PREFIX_SETTING} itself"
            )


def _http_address(host: str) -> str:
    return f"ipv6:{host}" if is_ipv6(host) else host


def _joined(parts: Sequence[str]) -> str:
    return os.pathsep.join(dict.fromkeys(part for part in parts if part))
