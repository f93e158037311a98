"""TensorRT plans beside the graphs of a bundle: built on the machine that serves, checked before and after a start.

A bundle holds graphs (ONNX), which are the same everywhere. A plan is made from a graph for one compute capability and one
version of TensorRT; so it is no part of the bundle, but a file beside the graph, with a stamp that says what it was built from.
"""

from __future__ import annotations

from trireme_server.plans.build import BuiltPlan, PlanBuild, prepare_builds
from trireme_server.plans.check import check_plans
from trireme_server.plans.parity import check_parity

__all__ = ["BuiltPlan", "PlanBuild", "check_parity", "check_plans", "prepare_builds"]
