"""The locks of the images: what the images install resolves to them, for every Python that an image may have.

Asks the package index, as the builds of the images do; pip keeps what it has read.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import tomllib
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.support.installation import ROOT

PYTHONS = ("3.10", "3.11", "3.12")
#: The lock, and the extras of trireme-recsys that it is for.
LOCKS = {
    "requirements.lock": ("stages", "telemetry", "redis"),
    "requirements-server.lock": ("stages", "telemetry", "redis", "server"),
}
#: The glibc of the images' bases is 2.36 and newer; nvidia-pytriton has wheels from 2.35 on.
PLATFORMS = ("manylinux2014_x86_64", *(f"manylinux_2_{minor}_x86_64" for minor in range(17, 36)))

#: The metadata of a package, as pip reports it.
Message = dict[str, Any]

#: pip for another Python than the running one, whose markers it would ask: what is "python_version < '3.11'" for that Python?
PIP = """
import sys
from pip._vendor.packaging import markers

version = sys.argv.pop(1)
running = markers.default_environment
markers.default_environment = lambda: running() | {"python_version": version, "python_full_version": f"{version}.0"}
from pip._internal.cli.main import main

sys.exit(main())
"""


def needed(extras: tuple[str, ...]) -> list[str]:
    """Returns what the images need beside the two distributions, as requirements."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    client = tomllib.loads((ROOT / "client" / "pyproject.toml").read_text())["project"]
    commands = re.findall("^[a-z-]+$", (ROOT / "docker" / "requirements.in").read_text(), re.MULTILINE)
    declared = [*client["dependencies"], *commands]
    for extra in extras:
        declared += project["optional-dependencies"][extra]
    return [requirement for requirement in declared if not requirement.startswith("trireme-")]


def for_python(python: str) -> dict[str, str]:
    """Returns what markers ask of a Python."""
    return {"python_version": python, "python_full_version": f"{python}.0"}


def pins(lock: Path, python: str) -> dict[str, str]:
    """Returns the versions of a lock that are for ``python``, by name."""
    environment = for_python(python)
    lines = [line for line in lock.read_text().splitlines() if not line.startswith("#")]
    requirements = [Requirement(line) for line in lines]
    chosen = [one for one in requirements if one.marker is None or one.marker.evaluate(environment)]
    return {canonicalize_name(one.name): str(one.specifier).removeprefix("==") for one in chosen}


def resolve(lock: Path, python: str, requirements: list[str]) -> dict[str, Message]:
    """Returns what pip would install for ``python`` under the constraints of ``lock``, the metadata by name.

    Raises:
        AssertionError: pip finds no solution; with its words.
    """
    platforms = [f"--platform={platform}" for platform in PLATFORMS]
    target = [
        "--only-binary=:all:",
        "--implementation=cp",
        f"--python-version={python}",
        *platforms,
        "--target=nowhere",
    ]
    options = ["--disable-pip-version-check", "--dry-run", "--ignore-installed", "--report=-", "--quiet"]
    command = [sys.executable, "-c", PIP, python, "install", *options, *target, f"--constraint={lock}", *requirements]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    found = [package["metadata"] for package in json.loads(done.stdout)["install"]]
    return {canonicalize_name(package["name"]): package for package in found}


def closure(resolved: dict[str, Message], python: str, requirements: list[str]) -> dict[str, str]:
    """Returns the versions of that part of ``resolved`` which ``requirements`` lead to, by name."""
    found: dict[str, str] = {}
    waiting = [(Requirement(requirement), "") for requirement in requirements]
    seen = set()
    while waiting:
        requirement, of_extra = waiting.pop()
        environment = {**for_python(python), "extra": of_extra}
        if requirement.marker is not None and not requirement.marker.evaluate(environment):
            continue
        package = resolved[canonicalize_name(requirement.name)]
        found[canonicalize_name(requirement.name)] = package["version"]
        for extra in {"", *requirement.extras}:
            if (package["name"], extra) not in seen:
                seen.add((package["name"], extra))
                waiting += [(Requirement(line), extra) for line in package.get("requires_dist", ())]
    return found


def test_the_locks_are_what_the_images_need_on_every_python() -> None:
    """Nothing without a pin, no pin without a wheel, no pin that nobody needs, and no two that exclude each other."""
    images, server = (ROOT / "docker" / name for name in LOCKS)
    with ThreadPoolExecutor(2) as pool:
        resolved = pool.map(lambda python: resolve(server, python, needed(LOCKS[server.name])), PYTHONS)
    for python, packages in zip(PYTHONS, resolved, strict=True):
        assert {name: package["version"] for name, package in packages.items()} == pins(server, python)
        assert closure(packages, python, needed(LOCKS[images.name])) == pins(images, python)


@pytest.mark.parametrize(
    ("pin", "broken", "python", "requirement", "problem"),
    [
        (
            "onnxruntime==1.23.2 ; python_full_version < '3.11'",
            "onnxruntime==1.32.0",
            "3.10",
            "onnxruntime",
            "(Cannot install|No matching distribution found for) onnxruntime",  # it has no wheel for that Python
        ),
        ("protobuf==", "protobuf==3.20.3  #", "3.12", "tritonclient[grpc]", "ResolutionImpossible"),
    ],
)
def test_a_pin_that_cannot_be_installed_is_found(
    pin: str, broken: str, python: str, requirement: str, problem: str, tmp_path: Path
) -> None:
    text = (ROOT / "docker" / "requirements.lock").read_text()
    assert pin in text
    lock = tmp_path / "requirements.lock"
    lock.write_text(text.replace(pin, broken))
    with pytest.raises(AssertionError, match=problem):
        resolve(lock, python, [requirement])


def test_the_image_has_the_versions_of_the_development_environment() -> None:
    """As far as their Pythons are the same one."""
    image = pins(ROOT / "docker" / "requirements-server.lock", "3.11")
    assert image.items() <= pins(ROOT / "requirements.lock", "3.11").items()
