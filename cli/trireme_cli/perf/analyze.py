"""``trireme perf analyze``"""

from __future__ import annotations

import os
from typing import Annotated

import typer

from trireme_cli.tls import TLSCa, TLSCert, TLSKey, client_tls

__all__ = ["analyze"]


def analyze(
    arguments: Annotated[
        list[str] | None, typer.Argument(help="After --: the arguments of perf_analyzer.", metavar="ARGS")
    ] = None,
    tls_ca: TLSCa = None,
    tls_cert: TLSCert = None,
    tls_key: TLSKey = None,
) -> None:
    """Run perf_analyzer, Triton's load generator, from the wheel that `trireme perf sweep` uses.

    For example: trireme perf analyze -- -m recommend_fused -i grpc -u localhost:8001
    --input-data build/model_repository/perf_input.json --concurrency-range 1:32
    """
    from trireme_perf.sweep.binary import find_perf_analyzer
    from trireme_perf.sweep.perf_analyzer import tls_arguments

    tool, certificates = find_perf_analyzer(), tls_arguments(client_tls(tls_ca, tls_cert, tls_key))
    os.execve(tool.path, [str(tool.path), *(arguments or []), *certificates], {**os.environ, **tool.environment})
