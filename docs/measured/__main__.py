"""``python -m docs.measured`` runs all commands, one after another, and writes docs/benchmarks.json and the two pictures."""

from __future__ import annotations

import datetime
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from docs.commit import ROOT, measured_commit
from docs.generate import DOCS
from docs.measured.runs import FOLDER, RUNS, Run
from docs.measured.tables import ABOUT, parts

PICTURES = {"goodput.png": "goodput/goodput.png", "growth.png": "growth/growth.png"}


def main() -> None:
    commit, folder = measured_commit(), ROOT / FOLDER
    _claim(folder, commit)
    documents = {name: _document(name, run, folder) for name, run in RUNS.items()}
    machine = f"{documents['goodput']['machine']}, no GPU"
    origin = {"published": {"date": datetime.date.today().isoformat(), "commit": commit}, "machine": machine}
    found = {"about": ABOUT, **origin, "documents": documents, "parts": parts(documents, origin)}
    (DOCS / "benchmarks.json").write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    for name, source in PICTURES.items():
        shutil.copyfile(folder / source, DOCS / name)
    print("docs/benchmarks.json and its pictures are written")  # noqa: T201


def _claim(folder: Path, commit: str) -> None:
    """Makes the folder one of this commit; what an interrupted run of it left there is kept."""
    folder.mkdir(parents=True, exist_ok=True)
    owner = folder / "commit"
    if owner.is_file() and owner.read_text() != commit:
        raise SystemExit(f"{FOLDER} holds figures of commit {owner.read_text()}, this is {commit}; remove it")
    owner.write_text(commit)


def _document(name: str, run: Run, folder: Path) -> Any:
    """Runs a command, unless its document is there already."""
    kept = folder / f"{name}.json"
    if not kept.is_file():
        start = time.monotonic()
        print(f"{name}: {run.shown}", flush=True)  # noqa: T201
        command = [sys.executable, "-m", "trireme_cli", *run.command.split(), "--json"]
        done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{name} failed; what was measured before it is kept, and `make benchmarks` goes on here")
        kept.write_text(done.stdout.strip().splitlines()[-1] + "\n")
        print(f"{name}: {time.monotonic() - start:.0f} s", flush=True)  # noqa: T201
    return json.loads(kept.read_text())


if __name__ == "__main__":
    main()
