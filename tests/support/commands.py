"""The commands, as a user calls them."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from contextlib import ExitStack, chdir, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any
from unittest.mock import patch

from trireme_cli.app import run

__all__ = ["TRIREME", "Done", "document", "trireme", "trireme_process"]

#: Of a process of its own.
TRIREME = [sys.executable, "-m", "trireme_cli"]
Done = subprocess.CompletedProcess[str]


def trireme(*arguments: object, cwd: Path | None = None) -> Done:
    """Runs a command in this process to its end: nothing has to be imported again, which may take seconds."""
    words = ["trireme", *map(str, arguments)]
    out, errors = io.StringIO(), io.StringIO()
    with ExitStack() as changed:
        changed.enter_context(patch.object(sys, "argv", words))
        changed.enter_context(redirect_stdout(out))
        changed.enter_context(redirect_stderr(errors))
        if cwd is not None:
            changed.enter_context(chdir(cwd))
        try:
            run()
            code = 0
        except SystemExit as ended:
            code = int(ended.code or 0)
    return Done(words, code, out.getvalue(), errors.getvalue())


def trireme_process(*arguments: object, cwd: Path | None = None) -> Done:
    """Runs a command in a process of its own to its end."""
    return subprocess.run(
        [*TRIREME, *map(str, arguments)], capture_output=True, text=True, timeout=300, cwd=cwd, check=False
    )


def document(done: Done) -> Any:
    """Returns what a command that was given ``--json`` has found."""
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])
