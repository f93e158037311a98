"""Which contestants take part."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from trireme_perf.errors import PerfError
from trireme_perf.goodput.contestants import Contestant
from trireme_perf.goodput.peers import find_peers
from trireme_perf.goodput.triton import ENTRIES, baseline_plans, own_plans
from trireme_runtime.bundle import read_manifest

__all__ = ["Selection", "select"]


@dataclass(frozen=True)
class Selection:
    """funnel: version directory of the fused plan. left_out: why the others do not take part, by name."""

    funnel: Path
    contestants: list[Contestant]
    left_out: dict[str, str]


def select(repository: Path, only: Sequence[str] = (), baseline: tuple[Path, Path] | None = None) -> Selection:
    """The contestants that ``only`` names, or all that can run here.

    Args:
        baseline: another checkout of this project, and a repository that it can serve.

    Raises:
        BundleError: no model repository. PerfError: it has no fused plan; a name in ``only`` is unknown or cannot run.
    """
    manifest = read_manifest(repository)
    if manifest.plan not in ENTRIES:
        raise PerfError(f"{repository} has the plan {manifest.plan!r}; allowed: {', '.join(ENTRIES)}")
    funnel = repository / ENTRIES[manifest.plan]["fused"] / str(manifest.version)
    peers, left_out = find_peers(funnel)
    if "ensemble" not in ENTRIES[manifest.plan]:
        left_out["ensemble"] = f"{repository} has only the fused plan; `trireme export --plan both` writes both"
    contestants = [*own_plans(repository, manifest.plan), *(baseline_plans(*baseline) if baseline else []), *peers]
    return Selection(funnel, *_choose(only, contestants, left_out))


def _choose(
    only: Sequence[str], contestants: list[Contestant], left_out: dict[str, str]
) -> tuple[list[Contestant], dict[str, str]]:
    names = [contestant.name for contestant in contestants]
    for name in only:
        if name in left_out:
            raise PerfError(f"--only names {name!r}, which cannot run: {left_out[name]}")
        if name not in names:
            raise PerfError(f"--only names {name!r}; allowed: {', '.join(names)}")
    if not only:
        return contestants, left_out
    not_asked = dict.fromkeys((name for name in [*names, *left_out] if name not in only), "not named by --only")
    return [contestant for contestant in contestants if contestant.name in only], not_asked
