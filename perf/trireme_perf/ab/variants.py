"""What an experiment compares: an entry model, who serves it, and how it is asked."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from trireme_perf.errors import PerfError
from trireme_runtime.bundle import read_manifest
from trireme_runtime.schema import ENTRY
from trireme_runtime.triton.parameters import MOST_EXCLUDED
from trireme_server.preflight import entry_models

__all__ = ["MIXINS", "OPTIONS", "Variant", "parse_variant"]

#: Options of a variant and what they mean, for people.
OPTIONS = {
    "coalescing": "users who wait at the same time share an RPC",
    "threads": "the client of threads instead of asyncio's",
    "tritonclient": "plain tritonclient with asyncio",
    "ledger": "every request asks for its ledger",
    "history=SHARE": "that share of the users, 0 to 1, is asked for with a history, the others with the stored one",
    "exclude=N": "every request excludes N items, up to 1000",
    "traced=SHARE": "client and server trace that share of the calls, 0 to 1",
    "without-ledger": "models that have no ledger and publish no metrics",
    "without-metrics": "models that publish no metrics",
    "staged": "models that compute stage by stage in Python and ONNX Runtime, nothing compiled",
}
FORM = f"REPOSITORY[:MODEL] or grpc://HOST:PORT[/MODEL], then any of {', '.join(f'+{name}' for name in OPTIONS)}"
#: What options without a value set: field and value of ``Variant``.
EFFECTS: dict[str, tuple[str, Any]] = {
    "coalescing": ("coalescing", True),
    "threads": ("client", "threads"),
    "tritonclient": ("client", "tritonclient"),
    "ledger": ("ledger", True),
    "without-ledger": ("models", "without-ledger"),
    "without-metrics": ("models", "without-metrics"),
    "staged": ("models", "staged"),
}
VARIANT = re.compile(
    rf"(?P<source>[^+].*?)(?P<options>(?:\+(?:{'|'.join(EFFECTS)}|(?:traced|history|exclude)=[\d.]+))*)"
)
RUNNING = re.compile(r"grpc://(?P<url>[^/]+:\d+)(?:/(?P<model>[\w.-]+))?")
REPOSITORY = re.compile(r"(?P<repository>.+?)(?::(?P<model>[\w.-]+))?")
#: Classes of ``ab.models`` by the option that puts them in front of a bundle's own.
MIXINS = {"without-ledger": "WithoutLedger", "without-metrics": "WithoutMetrics", "staged": "Staged"}

ClientKind = Literal["asyncio", "threads", "tritonclient"]


@dataclass(frozen=True)
class Variant:
    """
    source: as it was written, without options. repository: to be served for the experiment; None for a server that runs
    already, at ``url`` (host:port). model: the entry model. coalescing: whether the client lets users who wait at the same time
    share an RPC. client: which client asks. ledger: whether every request asks for its ledger. traced: share of the calls
    that are traced; None: neither client nor server knows of tracing. history: share of the users who are asked for with a
    history. exclude: items that each request excludes. models: a key of ``MIXINS``; "" for the bundle's own. checkout: another
    one of this project, which serves it; None for this one.

    Raises:
        PerfError: the options contradict each other, or need a server of our own.
    """

    source: str
    repository: Path | None
    url: str
    model: str
    coalescing: bool = False
    client: ClientKind = "asyncio"
    ledger: bool = False
    traced: float | None = None
    history: float = 0.0
    exclude: int = 0
    models: str = ""
    checkout: Path | None = None

    def __post_init__(self) -> None:
        if self.traced is not None and not 0 <= self.traced <= 1:
            raise PerfError(f"the variant {self.text!r} has traced={self.traced:g}, must be from 0 to 1")
        if not 0 <= self.history <= 1:
            raise PerfError(f"the variant {self.text!r} has history={self.history:g}, must be from 0 to 1")
        if not 0 <= self.exclude <= MOST_EXCLUDED:
            raise PerfError(f"the variant {self.text!r} has exclude={self.exclude}, must be from 0 to {MOST_EXCLUDED}")
        if (self.history or self.exclude) and self.client != "asyncio":
            raise PerfError(
                f"the variant {self.text!r} has histories or exclusions: only the asyncio client sends them"
            )
        if self.repository is None and (self.models or self.traced is not None):
            raise PerfError(f"the variant {self.text!r} changes how it is served: it must name a REPOSITORY")
        if self.checkout and (self.repository is None or self.models):
            raise PerfError(
                f"the variant {self.text!r} is served by another checkout: it must be a REPOSITORY as it is"
            )
        if self.client == "tritonclient" and (self.coalescing or self.ledger or self.traced is not None):
            raise PerfError(f"the variant {self.text!r} is plain tritonclient: allowed beside it: {', '.join(MIXINS)}")

    @property
    def readable(self) -> Path | None:
        """The repository, unless it may be of a format that only another checkout reads."""
        return None if self.checkout else self.repository

    @property
    def text(self) -> str:
        return "+".join([self.source, *self.options()])

    def options(self) -> list[str]:
        chosen = [name for name, (field, value) in EFFECTS.items() if getattr(self, field) == value]
        chosen += [f"{name}={getattr(self, name):g}" for name in ("history", "exclude") if getattr(self, name)]
        return chosen if self.traced is None else [*chosen, f"traced={self.traced:g}"]

    def describe(self) -> dict[str, Any]:
        """Returns what it is, apart from where it lies: nothing is known of the bundle behind a server that runs already."""
        manifest = read_manifest(self.readable) if self.readable else None
        others = ["served by another checkout"] if self.checkout else []
        return {
            "model": self.model,
            "coalescing": self.coalescing,
            "options": [option for option in self.options() if option != "coalescing"] + others or None,
            "plan": manifest and manifest.plan,
            "bundle_id": manifest and manifest.bundle_id,
        }


def parse_variant(text: str, checkout: Path | None = None) -> Variant:
    """Reads ``REPOSITORY[:MODEL]`` or ``grpc://HOST:PORT[/MODEL]`` with ``+OPTION``s; MODEL is ``recommend`` unless named.

    Args:
        checkout: what serves the repository; None for this installation.

    Raises:
        PerfError: it is neither, or the repository has no such entry model. BundleError: no model repository.
    """
    whole = VARIANT.fullmatch(text)
    source = whole["source"] if whole else ""
    options = _read_options(whole["options"]) if whole else {}
    if running := RUNNING.fullmatch(source):
        return Variant(source, None, running["url"], running["model"] or ENTRY, checkout=checkout, **options)
    found = None if "://" in source else REPOSITORY.fullmatch(source)
    if not found:
        raise PerfError(f"the variant is {text!r}; allowed: {FORM}")
    repository, model = Path(found["repository"]), found["model"] or ENTRY
    variant = Variant(source, repository, "", model, checkout=checkout, **options)
    if checkout:
        return variant
    read_manifest(repository)
    if model not in (entries := entry_models(repository)):
        raise PerfError(f"the variant {text!r} names the model {model!r}; {repository} has: {', '.join(entries)}")
    return variant


def _read_options(text: str) -> dict[str, Any]:
    """Returns fields of ``Variant``; of several that set the same, the last counts."""
    fields: dict[str, Any] = {}
    for option in text.split("+")[1:]:
        name, _, value = option.partition("=")
        if name in EFFECTS:
            field, effect = EFFECTS[name]
            fields[field] = effect
        else:
            fields[name] = int(float(value)) if name == "exclude" else float(value)
    return fields
