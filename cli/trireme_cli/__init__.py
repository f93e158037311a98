"""The ``trireme`` command: the place where all packages come together. Nothing imports it."""

from __future__ import annotations

import sys

__all__ = ["main"]


def main() -> None:
    """Entry point. Errors that a user can cause end in one line and exit code 1."""
    try:
        import rich
        import typer  # noqa: F401
    except ModuleNotFoundError as error:
        sys.exit(f"trireme: {error.name} is not installed; pip install 'trireme-recsys[server,export,perf]'")
    del rich
    from trireme_cli.app import run

    run()
