"""Checks of a model repository and a machine before a server is started."""

from __future__ import annotations

from pathlib import Path

from trireme_runtime.bundle import PERF_INPUT, Manifest, verify_repository
from trireme_runtime.errors import BundleError
from trireme_runtime.schema import ENTRY, FUSED
from trireme_server.errors import OptionError, RepositoryError

ENTRY_MODELS = (ENTRY, FUSED)


def check_repository(repository: Path, *, warm: bool = True) -> Manifest:
    """Returns the manifest of a repository after checking that it is complete and matches its checksums.

    Raises:
        RepositoryError: it is missing, has no entry model or manifest, an artifact is corrupted, or (with
            ``warm``) the file of users to warm up with is missing.
    """
    try:
        manifest = verify_repository(repository)
    except BundleError as error:
        raise RepositoryError(str(error)) from error
    if not (repository / ENTRY_MODELS[0] / "config.pbtxt").is_file():
        raise RepositoryError(f"{repository / ENTRY_MODELS[0]}: has no config.pbtxt; export it again")
    if warm and not (repository / PERF_INPUT).is_file():
        raise RepositoryError(f"{repository / PERF_INPUT}: is missing, its users warm the server; export it again")
    return manifest


def entry_models(repository: Path) -> tuple[str, ...]:
    """The entry models of a repository, ``recommend`` first."""
    return tuple(name for name in ENTRY_MODELS if (repository / name / "config.pbtxt").is_file())


def check_affinity(cpus: tuple[int, ...] | None, available: set[int]) -> None:
    """Raises OptionError when ``cpus`` is empty or names a CPU this process may not use."""
    if cpus is not None and (not cpus or not set(cpus) <= available):
        raise OptionError(f"cpu_affinity is {cpus}, allowed is a non-empty choice of {sorted(available)}")
