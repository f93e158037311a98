"""The commands whose documents hold the figures, in the order in which they run. Some need what others before them wrote."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

__all__ = ["FOLDER", "PRESETS", "RUNS", "Run"]

#: Where all of them write, and their documents are kept, so that an interrupted measurement goes on where it was.
FOLDER: Final = "build/benchmarks"
DATA = "examples/online-retail-ii"
RETAIL, MILLION = f"{FOLDER}/retail", f"{FOLDER}/million"
FUSED = f"{RETAIL}/repository:recommend_fused"
PRESETS: Final = ("ledger-off", "ledger-on", "metrics", "tracing-0", "tracing-1", "tracing-100")


@dataclass(frozen=True)
class Run:
    """A command of ``trireme``, without ``--json``."""

    command: str

    @property
    def shown(self) -> str:
        """What a reader would type."""
        return f"trireme {self.command}"


def _sizes(option: str, *values: int) -> str:
    return " ".join(f"--{option} {value}" for value in values)


GROWTH = " ".join(
    [
        _sizes("catalogue", 100_000, 10_000, 30_000, 300_000, 1_000_000),
        _sizes("candidates", 200, 100, 500, 1000),
        _sizes("history", 100, 10, 30, 200),
        _sizes("batch", 32, 1, 2, 4, 8, 16, 64),
    ]
)

RUNS: Final = {
    "retail-train": Run(f"train --data {DATA} --out {RETAIL}/checkpoint"),
    "retail-export": Run(f"export --checkpoint {RETAIL}/checkpoint --out {RETAIL}/repository"),
    "goodput": Run(f"perf goodput {RETAIL}/repository --rounds 5 --out {FOLDER}/goodput"),
    "million-checkpoint": Run(f"perf limit --catalogue 1000000 --keep {MILLION} --out {MILLION}/limit"),
    "million-export": Run(
        f"export --checkpoint {MILLION}/1000000-items-200-candidates-100-history --out {MILLION}/repository"
    ),
    **{
        f"goodput-million-{slo}": Run(
            f"perf goodput {MILLION}/repository --rounds 3 --slo-ms {slo} --out {FOLDER}/goodput-million-{slo}"
        )
        for slo in (20, 100)
    },
    "limit": Run(f"perf limit {RETAIL}/repository"),
    "growth": Run(f"perf limit {GROWTH} --out {FOLDER}/growth"),
    "memory": Run(f"perf memory {MILLION}/repository"),
    **{f"{preset}-single": Run(f"perf ab {FUSED} --preset {preset}") for preset in PRESETS},
    **{
        f"{preset}-coalescing": Run(f"perf ab {FUSED}+coalescing --concurrency 32 --preset {preset}")
        for preset in PRESETS
    },
    "client-asyncio": Run(f"perf ab {FUSED}+coalescing --preset client"),
    "client-threads": Run(f"perf ab {FUSED}+coalescing+threads --preset client"),
}
