"""What a plan was built from: a JSON file beside it, by which one knows whether it still fits."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from trireme_runtime.bundle import describe_file
from trireme_server.errors import PlanError
from trireme_server.plans.graphs import GraphModel
from trireme_server.plans.profile import Profile

__all__ = ["Origin", "Stamp", "misfit", "plan_file"]


@dataclass(frozen=True)
class Origin:
    """All that decides what a plan is.

    ``sha256`` maps the files of the graph to their checksums, ``profile`` is that of ``Profile.to_dict``, and ``tensorrt`` is a
    version of three numbers.
    """

    bundle_id: str
    sha256: Mapping[str, str]
    compute_capability: str
    tensorrt: str
    profile: Mapping[str, Any]

    @classmethod
    def of(cls, model: GraphModel, capability: str, tensorrt: str) -> Origin:
        """Returns what the plan of ``model`` would be built from now. Raises: PlanError: as ``Profile.of``."""
        profile = Profile.of(model.config).to_dict()
        return cls(model.bundle_id, model.checksums, capability, tensorrt, profile)


@dataclass(frozen=True)
class Stamp:
    """The origin of a plan, the sha256 of the plan itself, and when it was built (ISO 8601, UTC)."""

    origin: Origin
    plan_sha256: str
    built_at: str

    def write(self, plan: Path) -> None:
        """Puts the stamp beside ``plan``, in one step."""
        written = plan.with_name(f".{plan.name}.json")
        fields = {**asdict(self.origin), "plan_sha256": self.plan_sha256, "built_at": self.built_at}
        written.write_text(json.dumps(fields, indent=2) + "\n")
        written.replace(_stamp_file(plan))

    @classmethod
    def read(cls, plan: Path) -> Stamp:
        """Returns the stamp of ``plan``. Raises: OSError, ValueError, KeyError or TypeError: there is none that can be read."""
        fields = json.loads(_stamp_file(plan).read_text())
        plan_sha256, built_at = fields.pop("plan_sha256"), fields.pop("built_at")
        return cls(Origin(**fields), plan_sha256, built_at)


def plan_file(model: GraphModel, capability: str) -> Path:
    """Returns where Triton looks for the plan of a GPU of this compute capability.

    Raises:
        PlanError: the model's config does not know the capability.
    """
    names = model.config.cc_model_filenames
    if capability not in names:
        raise PlanError(
            f"model {model.name}: compute capability {capability} is not one that its config names a plan for; "
            f"allowed: {', '.join(sorted(names, key=float)) or 'none'}"
        )
    return model.folder / names[capability]


def misfit(plan: Path, origin: Origin) -> str | None:
    """Returns why ``plan`` is not the one that ``origin`` describes, as the rest of a sentence; None if it is."""
    if not plan.is_file():
        return f"has no plan for compute capability {origin.compute_capability} ({plan.name})"
    try:
        stamp = Stamp.read(plan)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return f"has a plan without a readable stamp ({plan.name}.json)"
    found, wanted = asdict(stamp.origin), asdict(origin)
    for name, value in wanted.items():
        if found[name] != value:
            return f"has a plan for {_short(name, found[name])}, here is {_short(name, value)} ({plan.name})"
    if describe_file(plan).sha256 != stamp.plan_sha256:
        return f"has a damaged plan ({plan.name}): its sha256 is not that of its stamp"
    return None


def _short(name: str, value: Any) -> str:
    if name == "sha256" and isinstance(value, Mapping):
        return "graph " + ", ".join(f"{str(digest)[:12]}…" for digest in value.values())
    return f"{name} {value}"


def _stamp_file(plan: Path) -> Path:
    return plan.with_name(f"{plan.name}.json")
