"""Experiments that are asked for by name: two ways to serve and ask one model, the load, and the metric that decides."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from trireme_perf.ab.variants import Variant
from trireme_perf.errors import PerfError

__all__ = ["PRESETS", "Preset", "preset_variants"]


@dataclass(frozen=True)
class Preset:
    """about: what is compared, for people. a, b: fields of ``Variant`` that differ from the variant the reader names.
    concurrency: of the closed loop. metric: the one that decides."""

    about: str
    a: Mapping[str, Any]
    b: Mapping[str, Any]
    concurrency: int = 1
    metric: str = "server_cpu"


#: One user per RPC, one after another, is the hardest case: what is paid per batch is paid per user.
PRESETS = {
    "ledger-off": Preset(
        "no request asks for the ledger, against models that have none; both without metrics",
        {"models": "without-ledger"},
        {"models": "without-metrics"},
    ),
    "ledger-on": Preset("every request asks for its ledger, against none", {}, {"ledger": True}),
    "metrics": Preset("metrics of the stages, against none", {"models": "without-metrics"}, {}),
    "compiled": Preset("compiled stages, against the same ones in Python and ONNX Runtime", {"models": "staged"}, {}),
    "tracing-0": Preset("client and server can trace and no call is sampled, against neither", {}, {"traced": 0.0}),
    "tracing-1": Preset("one call in 100 is traced, against no tracing", {}, {"traced": 0.01}),
    "tracing-100": Preset("every call is traced, against no tracing", {}, {"traced": 1.0}),
    "client": Preset(
        "this project's client, against plain tritonclient",
        {"client": "tritonclient", "coalescing": False},
        {},
        concurrency=64,
        metric="client_cpu",
    ),
}


def preset_variants(name: str, variant: Variant) -> tuple[Variant, Variant]:
    """Returns A and B of a preset. Raises: PerfError: there is no such preset, or the variant does not fit it."""
    if name not in PRESETS:
        raise PerfError(f"preset is {name!r}, allowed: {', '.join(PRESETS)}")
    preset = PRESETS[name]
    return replace(variant, **preset.a), replace(variant, **preset.b)
