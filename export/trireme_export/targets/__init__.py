"""What a bundle is built for: its stages and graphs, and the funnels that the gate asks."""

from trireme_export.targets import cpu, gpu
from trireme_export.targets.built import Build, Built

__all__ = ["TARGETS", "Build", "Built"]

TARGETS: dict[str, Build] = {"cpu": cpu.build, "gpu": gpu.build}
