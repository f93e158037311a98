"""The commit that a measurement is of."""

from __future__ import annotations

import subprocess
from pathlib import Path

__all__ = ["ROOT", "measured_commit"]

ROOT = Path(__file__).parents[1]


def measured_commit(*written: str) -> str:
    """Returns the short name of the commit: all of the code must be in it.

    Args:
        written: files that the measurement itself changes, and that may differ from the commit.

    Raises:
        SystemExit: there are other changes.
    """
    changed = _git("status", "--porcelain", "--untracked-files=no", "--", ".", *(f":!{name}" for name in written))
    if changed:
        raise SystemExit(f"there are changes that no commit holds; commit or undo them:\n{changed}")
    return _git("rev-parse", "--short", "HEAD")


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.strip()
