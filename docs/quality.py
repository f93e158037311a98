"""``python -m docs.quality --label LABEL`` measures how good the lists are, with the code of one commit, into docs/quality.json.

Each data set is written as soon as it is measured; what is there under the label from the same commit is not measured again.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from docs.commit import ROOT, measured_commit
from docs.generate import DOCS

from trireme_runtime.cpu import cpu_model, usable_cpus

__all__ = ["SETS", "main"]

WRITTEN: Final = ("docs/quality.json", "docs/quality.md")
#: The data sets, and on which splits each is measured: goodbooks-10k has no clock, only the order of each user.
SETS: Final = {
    "online-retail-ii": ("time", "user"),
    "goodbooks-10k": ("user",),
    "kuairand-pure-14d": ("time", "user"),
}
SHIPPED: Final = {"online-retail-ii": "examples/online-retail-ii"}
#: Environment variable: the folder of the data sets that are not shipped.
VARIABLE: Final = "TRIREME_DATA"
OPTIONS: Final = ("--seeds", "5", "--holdout-users", "0.2", "--baselines")


def main(arguments: Sequence[str] | None = None, target: Path = DOCS / "quality.json") -> None:
    parser = argparse.ArgumentParser(prog="python -m docs.quality")
    parser.add_argument("--label", required=True, help="what the recipe of this commit is called in the tables")
    parser.add_argument("--data", nargs="+", choices=SETS, help="data sets; default all")
    asked = parser.parse_args(arguments)
    folders = {name: _folder(name) for name in asked.data or SETS}
    commit = measured_commit(*WRITTEN)
    for name, folder in folders.items():
        if _read(target).get(asked.label, {}).get(name, {}).get("commit") == commit:
            print(f"{name}: is there already")  # noqa: T201
            continue
        measured = _measure(name, folder, commit)
        blocks = _read(target)  # again: another data set may have been measured meanwhile
        blocks.setdefault(asked.label, {})[name] = measured
        _write(target, blocks)
        print(f"{name}: written to {target}", flush=True)  # noqa: T201


def _folder(name: str) -> str:
    if name in SHIPPED:
        return SHIPPED[name]
    if not os.environ.get(VARIABLE):
        raise SystemExit(
            f"{name} is not shipped: {VARIABLE} must name the folder that it is in; or leave it out with --data"
        )
    return str(Path(os.environ[VARIABLE], name))


def _measure(name: str, folder: str, commit: str) -> dict[str, Any]:
    """Runs the command; on one thread each, since that does the most work in the same time."""
    splits = [word for split in SETS[name] for word in ("--split", split)]
    options = [*OPTIONS, *splits, "--jobs", str(usable_cpus())]
    command = [sys.executable, "-m", "trireme_cli", "evaluate", "--data", folder, *options, "--json"]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{name} failed; the data sets before it are kept")
    return {
        "date": datetime.date.today().isoformat(),
        "commit": commit,
        "machine": f"{cpu_model()}, {usable_cpus()} CPUs",
        "command": shlex.join(["trireme", "evaluate", "--data", SHIPPED.get(name, name), *options]),
        "result": json.loads(done.stdout.strip().splitlines()[-1]),
    }


def _read(target: Path) -> dict[str, dict[str, Any]]:
    """Returns what was measured, by label and data set."""
    blocks: dict[str, dict[str, Any]] = (
        json.loads(target.read_text(encoding="utf-8"))["blocks"] if target.is_file() else {}
    )
    return blocks


def _write(target: Path, blocks: dict[str, dict[str, Any]]) -> None:
    """Replaces the file at once, so that an interruption leaves the one or the other."""
    new = target.with_suffix(".json.new")
    new.write_text(json.dumps({"blocks": blocks}, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    new.replace(target)


if __name__ == "__main__":
    main()
