"""The distributions as their users install them: every module finds what it imports, with nothing but the extra it belongs to."""

from __future__ import annotations

import json
import platform
import shutil
import subprocess
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
from hatch_build import LIBRARIES

from tests.support import fake_backend
from tests.support.fake_triton import FakeTriton, running
from tests.support.installation import ROOT, Installation, build_wheels

#: Prints, as JSON, the number of modules of a package, and what is missing for which of them.
IMPORT_ALL = """
import importlib, json, pkgutil, sys

package, missing = importlib.import_module(sys.argv[1]), {}
found = [module.name for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")]
modules = [name for name in found if not name.endswith(".__main__")]  # those run
for module in modules:
    try:
        importlib.import_module(module)
    except ModuleNotFoundError as error:
        missing[module] = error.name.partition(".")[0]
print(json.dumps([len(modules), missing]))
"""

RECOMMEND = """
import sys
from trireme_client import Client

with Client(sys.argv[1]) as client:
    print(client.recommend(7, k=3).item_ids.tolist())
"""

NATIVE = """
from trireme_runtime.native import library
print(library()._name)
"""

AUTHORED = """
from trireme_export.repository import authored_repository
print(authored_repository("cpu").parent)
"""

SCENARIOS = """
from trireme_perf.chaos import shipped_scenarios
print(len(shipped_scenarios()))
"""

Install = Callable[[str], Installation]


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the wheels of both distributions."""
    return build_wheels(tmp_path_factory.mktemp("wheels"))


@pytest.fixture(scope="module")
def install(wheels: Path, tmp_path_factory: pytest.TempPathFactory) -> Install:
    """Installs one of the distributions, with extras."""

    @cache
    def installation(requirement: str) -> Installation:
        return Installation(tmp_path_factory.mktemp("installation"), wheels, requirement)

    return installation


def missing(installation: Installation, package: str) -> dict[str, str]:
    """Returns the modules of ``package`` that cannot be imported, each with what it lacks."""
    # Triton puts this module beside the models that it loads; it is on no index.
    shutil.copy(fake_backend.__file__, installation.site / "triton_python_backend_utils.py")
    modules, lacking = json.loads(installation.run(IMPORT_ALL, package))
    assert modules > 1
    return lacking


def test_the_client_alone(install: Install) -> None:
    installation = install("trireme-client")
    assert installation.distributions.isdisjoint({"trireme-recsys", "torch", "faiss-cpu", "opentelemetry-api"})
    assert set(missing(installation, "trireme_client").values()) == {"opentelemetry", "redis"}
    with running(FakeTriton()) as url:
        assert installation.run(RECOMMEND, url) == "[700, 701, 702]\n"


@pytest.mark.parametrize(
    ("requirement", "package", "incomplete"),
    [
        ("trireme-client[telemetry]", "trireme_client", {"trireme_client.cache"}),
        ("trireme-client[telemetry,redis]", "trireme_client", set()),
        ("trireme-recsys[stages]", "trireme_runtime", {"trireme_runtime.triton", "trireme_runtime.features"}),
        ("trireme-recsys[stages,telemetry]", "trireme_runtime", {"trireme_runtime.features"}),
        ("trireme-recsys[stages,telemetry,redis]", "trireme_runtime", set()),
        ("trireme-recsys[server]", "trireme_server", set()),
        ("trireme-recsys[export]", "trireme_export", set()),
        ("trireme-recsys[ingest]", "trireme_ingest", set()),
        ("trireme-recsys[perf]", "trireme_perf", {"trireme_perf.limit", "trireme_perf.cache"}),
        ("trireme-recsys[perf,export]", "trireme_perf", set()),
        ("trireme-recsys[console]", "trireme_console", set()),
        ("trireme-recsys[server]", "trireme_cli", set()),
    ],
)
def test_every_module_finds_what_it_imports(
    install: Install, requirement: str, package: str, incomplete: set[str]
) -> None:
    """But those of the packages in ``incomplete``, some of which need another extra."""
    assert {module.rpartition(".")[0] for module in missing(install(requirement), package)} == incomplete


@pytest.mark.parametrize(
    ("extra", "command"),
    [("server", "serve"), ("export", "train"), ("perf", "ledger"), ("console", "console"), ("ingest", "ingest")],
)
def test_a_command_is_there_with_its_extra(install: Install, extra: str, command: str) -> None:
    trireme = install(f"trireme-recsys[{extra}]").trireme
    for words in (["--help"], [command, "--help"]):
        done = subprocess.run([trireme, *words], capture_output=True, text=True, timeout=60, check=False)
        assert (done.returncode, done.stderr) == (0, "")
        assert command in done.stdout


def test_without_an_extra_the_command_names_those_it_needs(install: Install) -> None:
    done = subprocess.run([install("trireme-recsys").trireme], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert done.stderr.endswith("is not installed; pip install 'trireme-recsys[server,export,perf]'\n")


def test_the_native_library_travels_without_its_sources(install: Install) -> None:
    installation = install("trireme-recsys[stages]")
    loaded = Path(installation.run(NATIVE).strip())
    assert loaded.is_relative_to(installation.site)
    files = {path.name for path in loaded.parent.iterdir() if path.suffix in {".c", ".h", ".so"}}
    assert files == set(LIBRARIES[platform.machine()])


def test_the_wheels_name_the_machines_that_they_are_for(wheels: Path) -> None:
    assert {wheel.name for wheel in wheels.iterdir()} == {
        "trireme_client-0.1.0-py3-none-any.whl",
        f"trireme_recsys-0.1.0-py3-none-manylinux_2_17_{platform.machine()}.whl",
    }


def test_the_authored_repository_travels_with_the_exporter(install: Install) -> None:
    installation = install("trireme-recsys[export]")
    authored = Path(installation.run(AUTHORED).strip())
    assert authored.is_relative_to(installation.site)
    files = {path.relative_to(authored) for path in authored.rglob("*") if path.is_file()}
    original = ROOT / "model_repository"
    assert files == {path.relative_to(original) for path in original.rglob("*") if path.is_file()}


def test_the_scenarios_travel_with_the_measurements(install: Install) -> None:
    shipped = int(install("trireme-recsys[perf]").run(SCENARIOS))
    assert shipped == len([*(ROOT / "perf" / "trireme_perf" / "chaos" / "scenarios").glob("*.yaml")])
