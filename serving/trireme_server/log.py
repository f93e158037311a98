"""Finds the few lines of tritonserver's log that explain why it did not start, or ended."""

from __future__ import annotations

import re

MAX_LINES = 6
_ROW = re.compile(r"^\|(?P<model>[^|]*)\|(?P<version>[^|]*)\|(?P<status>.*)\|\s*$")
# Prefix of a line: Triton's own, protobuf's (a config that cannot be parsed), or that of its last message.
_ERROR = re.compile(r"[EF]\d{4} \S+ \d+ \S+\] |\[libprotobuf ERROR [^]]*\] |error: ")
_INFO = re.compile(r"I\d{4} ")
# What has no GPU, what only sums up, and what a stub says when its server has died.
_NOISE = re.compile(
    r"CudaDriverHelper|CUDA driver version|NVML|DCGM|failed to load all models|Non-graceful termination detected"
)
_CONSEQUENCE = re.compile(r"depends on '?\S+'? which has no loaded version|which is not available")


def telling_lines(log: str, *, info: bool = True) -> list[str]:
    """At most ``MAX_LINES`` lines of a server's log: models that did not load, else errors, else the end.

    Args:
        log: what the server wrote.
        info: whether the end may hold what Triton notes while all is well.
    """
    failed = _failed_models(log)
    if failed:
        causes = [line for line in failed if not _CONSEQUENCE.search(line)]
        return (causes or failed)[:MAX_LINES]
    lines = [line.strip() for line in log.splitlines() if line.strip() and not _NOISE.search(line)]
    if not info:
        lines = [line for line in lines if not _INFO.match(line)]
    errors = [line for line in lines if _ERROR.match(line)]
    return [_unquoted(_ERROR.sub("", line)) for line in errors[-MAX_LINES:]] or lines[-MAX_LINES:]


def _failed_models(log: str) -> list[str]:
    """Model, version and reason for each row of the model table that is not READY, with its place."""
    found: list[str] = []
    open_row = False
    for line in log.splitlines():
        row = _ROW.match(line)
        if row is None:
            open_row = False
            continue
        model, version, status = (row[name].strip() for name in ("model", "version", "status"))
        if status.startswith("UNAVAILABLE"):
            found.append(f"model {model} version {version}: {status.removeprefix('UNAVAILABLE: ')}")
            open_row = True
        elif model:
            open_row = False
        elif open_row and "(at " not in found[-1] and re.match(r"\S+\.py\(\d+\):", status):
            found[-1] += f" (at {status})"
    return found


def _unquoted(text: str) -> str:
    """Triton quotes the messages of its own lines, others do not."""
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] == '"' else text
