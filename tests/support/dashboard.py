"""The queries of a Grafana dashboard, as Grafana sends them to Prometheus."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

GRAFANA = Path(__file__).parents[2] / "docker/grafana"


def read_dashboard() -> dict[str, Any]:
    return json.loads((GRAFANA / "dashboards/trireme.json").read_text())


def read_queries() -> list[tuple[str, str]]:
    """(title of the panel, expression)"""
    return [(panel["title"], target["expr"]) for panel in read_dashboard()["panels"] for target in panel["targets"]]


def substitute(expression: str, variables: Mapping[str, str]) -> str:
    """Puts in the values of ``$variables``; a leftover is an error, as it is in Grafana."""
    for name, value in variables.items():
        expression = expression.replace(f"${name}", value)
    assert "$" not in expression.replace("$1", ""), expression
    return expression
