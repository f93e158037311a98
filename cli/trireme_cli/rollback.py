"""``trireme rollback``"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from trireme_cli.output import REPOSITORY, Json, finish

__all__ = ["rollback"]


def rollback(
    version: Annotated[int, typer.Argument(help="A version that the repository holds; the last three are kept.")],
    repository: Annotated[Path, typer.Option(help="Model repository.")] = REPOSITORY,
    as_json: Json = False,
) -> None:
    """Make a repository serve another of its versions, from the next start of a server on."""
    from trireme_export.repository import serve_version
    from trireme_runtime.bundle import verify_repository

    serve_version(repository, version)
    manifest = verify_repository(repository)
    result = {"repository": str(repository), "bundle_id": manifest.bundle_id, "version": manifest.version}
    finish(result, as_json, f"{repository}: bundle {manifest.bundle_id}, version {manifest.version}")
