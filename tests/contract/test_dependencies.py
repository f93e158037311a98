"""Dependencies point one way: client ← perf; stages ← export ← server; nothing imports the command line."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = {
    "trireme_client": "client",
    "trireme_runtime": "export",
    "trireme_export": "export",
    "trireme_server": "export",
    "trireme_cli": "export",
    "trireme_perf": "perf",
    "trireme_console": "console",
}
ALLOWED = {
    "trireme_client": set(),
    "trireme_runtime": set(),
    "trireme_export": {"trireme_runtime"},
    "trireme_server": {"trireme_runtime", "trireme_client"},
    "trireme_perf": {"trireme_client", "trireme_runtime"},
    "trireme_console": {"trireme_perf", "trireme_client", "trireme_runtime"},
    "trireme_cli": set(PACKAGES),
}


def imported(file: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.partition(".")[0])
    return names


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_imports_only_what_it_may(package: str) -> None:
    files = list((ROOT / PACKAGES[package] / package).rglob("*.py"))
    assert files
    for file in files:
        forbidden = (imported(file) & set(PACKAGES)) - ALLOWED[package] - {package}
        assert not forbidden, f"{file.relative_to(ROOT)} imports {forbidden}"


@pytest.mark.parametrize(
    ("package", "libraries"),
    [
        ("trireme_client", {"torch", "faiss", "onnxruntime", "pydantic", "typer", "pyarrow"}),
        ("trireme_runtime", {"torch", "pydantic", "typer", "pyarrow", "tritonclient"}),
    ],
)
def test_what_is_deployed_alone_stays_light(package: str, libraries: set[str]) -> None:
    for file in (ROOT / PACKAGES[package] / package).rglob("*.py"):
        assert not imported(file) & libraries, file
