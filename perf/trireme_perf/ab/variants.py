"""What an experiment compares: an entry model, who serves it, and how it is asked."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trireme_perf.errors import PerfError
from trireme_runtime.bundle import read_manifest
from trireme_runtime.schema import ENTRY, FUSED

__all__ = ["Variant", "parse_variant"]

FORM = "REPOSITORY[:MODEL][+coalescing] or grpc://HOST:PORT[/MODEL][+coalescing]"
COALESCING = "+coalescing"
RUNNING = re.compile(r"grpc://(?P<url>[^/]+:\d+)(?:/(?P<model>[\w.-]+))?")
REPOSITORY = re.compile(r"(?P<repository>.+?)(?::(?P<model>[\w.-]+))?")


@dataclass(frozen=True)
class Variant:
    """
    text: as it was written. repository: to be served for the experiment; None for a server that runs already, at ``url``
    (host:port). model: the entry model. coalescing: whether the client lets users who wait at the same time share an RPC.
    """

    text: str
    repository: Path | None
    url: str
    model: str
    coalescing: bool

    def describe(self) -> dict[str, Any]:
        """What it is, apart from where it lies: nothing is known of the bundle behind a server that runs already."""
        manifest = read_manifest(self.repository) if self.repository else None
        return {
            "model": self.model,
            "coalescing": self.coalescing,
            "plan": manifest and manifest.plan,
            "bundle_id": manifest and manifest.bundle_id,
        }


def parse_variant(text: str) -> Variant:
    """Reads ``REPOSITORY[:MODEL][+coalescing]`` or ``grpc://HOST:PORT[/MODEL][+coalescing]``; MODEL is `recommend` unless named.

    Raises:
        PerfError: it is neither, or the repository has no such entry model. BundleError: no model repository.
    """
    coalescing = text.endswith(COALESCING)
    source = text.removesuffix(COALESCING)
    if running := RUNNING.fullmatch(source):
        return Variant(text, None, running["url"], running["model"] or ENTRY, coalescing)
    found = None if "://" in source else REPOSITORY.fullmatch(source)
    if not found:
        raise PerfError(f"the variant is {text!r}; allowed: {FORM}")
    repository, model = Path(found["repository"]), found["model"] or ENTRY
    read_manifest(repository)
    entries = [name for name in (ENTRY, FUSED) if (repository / name).is_dir()]
    if model not in entries:
        raise PerfError(f"the variant {text!r} names the model {model!r}; {repository} has: {', '.join(entries)}")
    return Variant(text, repository, "", model, coalescing)
