"""Which contestants take part."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from trireme_perf.errors import PerfError
from trireme_perf.goodput.contestants import Contestant, baseline_plans, own_plans
from trireme_perf.goodput.peers import find_peers
from trireme_perf.host.place import Place
from trireme_perf.host.triton import ENTRIES, fused_plan

__all__ = ["Selection", "check_only", "select"]


@dataclass(frozen=True)
class Selection:
    """funnel: version directory of the fused plan. left_out: by name, why the others do not take part."""

    funnel: Path
    contestants: list[Contestant]
    left_out: dict[str, str]


def select(
    repository: Path, place: Place, only: Sequence[str] = (), baseline: tuple[Path, Path] | None = None
) -> Selection:
    """Returns the contestants that ``only`` names, or all that can run here.

    Args:
        repository: whose plans take part.
        place: where servers run.
        only: names of contestants; empty for all.
        baseline: another checkout of this project, and a repository that it can serve.

    Raises:
        BundleError: no model repository.
        PerfError: it has no fused plan; a name in ``only`` is unknown or cannot run.
    """
    manifest, funnel = fused_plan(repository)
    peers, left_out = find_peers(funnel, place)
    if "ensemble" not in ENTRIES[manifest.plan]:
        left_out["ensemble"] = f"{repository} has only the fused plan; `trireme export --plan both` writes both"
    own = own_plans(repository, manifest.plan, place)
    contestants = [*own, *(baseline_plans(*baseline, place) if baseline else []), *peers]
    return Selection(funnel, *_choose(only, contestants, left_out))


def _choose(
    only: Sequence[str], contestants: list[Contestant], left_out: dict[str, str]
) -> tuple[list[Contestant], dict[str, str]]:
    names = [contestant.name for contestant in contestants]
    check_only(only, names, left_out)
    if not only:
        return contestants, left_out
    not_asked = dict.fromkeys((name for name in [*names, *left_out] if name not in only), "not named by --only")
    return [contestant for contestant in contestants if contestant.name in only], not_asked


def check_only(only: Sequence[str], names: Sequence[str], left_out: Mapping[str, str]) -> None:
    """Raises PerfError if ``only`` names a contestant that is not among ``names``, or one that is left out, with the reason."""
    for name in only:
        if name in left_out:
            raise PerfError(f"--only names {name!r}, which cannot run: {left_out[name]}")
        if name not in names:
            raise PerfError(f"--only names {name!r}; allowed: {', '.join(names)}")
