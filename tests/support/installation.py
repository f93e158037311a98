"""A fresh virtual environment that holds the project's wheels and, of everything else, only what they declare."""

from __future__ import annotations

import csv
import itertools
import subprocess
import sys
import venv
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet")
OWN = ("trireme-client", "trireme-recsys")


def build_wheels(folder: Path) -> Path:
    """Builds both distributions, as ``make wheels`` does; returns ``folder``."""
    offline = ("--no-deps", "--no-build-isolation", "--no-index")
    subprocess.run([*PIP, "wheel", *offline, "--wheel-dir", folder, ROOT / "client", ROOT], check=True)
    return folder


class Installation:
    """A virtual environment in ``folder`` with ``requirement``, which is one of the project's distributions.

    Nothing is downloaded: the distributions that the requirement needs, with theirs, are linked from the environment that runs
    the tests, and then pip installs the wheels. It finds nothing else, so it fails if what is linked is not enough.
    """

    def __init__(self, folder: Path, wheels: Path, requirement: str) -> None:
        venv.create(folder, with_pip=False)
        self.python = folder / "bin" / "python"
        self.trireme = folder / "bin" / "trireme"
        (self.site,) = folder.glob("lib/python*/site-packages")
        self.distributions = _closure(requirement)
        for name in self.distributions - set(OWN):
            _link(name, self.site)
        options = ("--no-index", "--no-compile", "--find-links", wheels)
        subprocess.run([*PIP, "--python", self.python, "install", *options, requirement], check=True)

    def run(self, program: str, *arguments: str) -> str:
        """Runs ``program`` with nothing of this process's environment but the interpreter; returns what it prints."""
        done = subprocess.run(
            [self.python, "-I", "-c", program, *arguments], capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, done.stderr
        return done.stdout


def _closure(requirement: str) -> set[str]:
    """Returns the names of all distributions that ``requirement`` needs, its own included."""
    found: set[tuple[str, str]] = set()
    waiting = list(_wanted(Requirement(requirement)))
    while waiting:
        name, extra = waiting.pop()
        if (name, extra) in found:
            continue
        found.add((name, extra))
        for line in metadata.distribution(name).requires or ():
            needed = Requirement(line)
            if needed.marker is None or needed.marker.evaluate({"extra": extra}):
                waiting += _wanted(needed)
    return {name for name, _ in found}


def _wanted(requirement: Requirement) -> Iterator[tuple[str, str]]:
    """The distribution by itself, without an extra, and once for each of its extras."""
    name = canonicalize_name(requirement.name)
    return ((name, extra) for extra in ("", *requirement.extras))


def _link(name: str, site: Path) -> None:
    """Links the files of a distribution, and whole folders that belong to no other."""
    owners = _owners()
    distribution = metadata.distribution(name)
    for path in {next(path for path in _paths(file) if len(owners[path]) == 1) for file in _files(distribution)}:
        link = site / path
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(str(distribution.locate_file(path)))


@cache
def _owners() -> dict[str, set[str]]:
    """Which distributions have files in a folder of this environment: ``google`` and ``opentelemetry`` belong to several."""
    owners: dict[str, set[str]] = defaultdict(set)
    for distribution in metadata.distributions():
        name = canonicalize_name(distribution.name)
        for file in _files(distribution):
            for path in _paths(file):
                owners[path].add(name)
    return owners


def _files(distribution: metadata.Distribution) -> Iterator[str]:
    """What a distribution has in site-packages; its scripts lie elsewhere, and what is compiled comes by itself."""
    for file, *_ in csv.reader((distribution.read_text("RECORD") or "").splitlines()):
        if not file.startswith("..") and "__pycache__" not in file:
            yield file


def _paths(file: str) -> Iterator[str]:
    """``a``, ``a/b`` and ``a/b/c.py`` for the last of them."""
    return itertools.accumulate(file.split("/"), "{}/{}".format)
