"""A copy of a model repository in which one stage can be made slow while it is served.

The models are those of the bundle; only their ``model.py`` differs: around every stage lies a delay, which is read from a file
before each batch.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from pathlib import Path

from trireme_runtime.bundle import MANIFEST, Manifest, describe_file

CONTROL = "slow_stage.json"

DELAYED = '''

import json
import time
from pathlib import Path

CONTROL = Path({control!r})


class Delayed:
    """A stage that computes for longer: by ``ms``, and by ``factor`` times what it takes itself."""

    def __init__(self, stage):
        self._stage = stage
        self.name = stage.name

    def __call__(self, **inputs):
        start = time.perf_counter_ns()
        outputs = self._stage(**inputs)
        settings = json.loads(CONTROL.read_text()).get(self.name, {{}})
        spent = time.perf_counter_ns() - start
        end = start + spent * (1 + settings.get("factor", 0)) + settings.get("ms", 0) * 1e6
        while time.perf_counter_ns() < end:  # busy, as a slow stage is; a sleep is not exact to some 10 µs
            pass
        return outputs


class TritonPythonModel(TritonPythonModel):
    def initialize(self, args):
        super().initialize(args)
        chain = self._adapter._chain
        chain.stages = tuple(Delayed(stage) for stage in chain.stages)
'''


class SlowStage:
    """The copy at ``repository``; as fast as the original until it is told otherwise."""

    def __init__(self, original: Path, repository: Path) -> None:
        self.repository = repository
        # Links: a bundle is never written to, and may be large.
        shutil.copytree(original, repository, copy_function=os.link)
        self._control = repository.parent / f"{repository.name}.{CONTROL}"
        self.clear()
        for file in repository.glob("*/[0-9]*/model.py"):
            code = file.read_text() + DELAYED.format(control=str(self._control))
            file.unlink()
            file.write_text(code)
        for file in repository.glob(f"*/[0-9]*/{MANIFEST}"):
            _describe_anew(repository, file)

    def set(self, stage: str, *, ms: float = 0.0, factor: float = 0.0) -> None:
        """From the next batch on, ``stage`` computes ``ms`` and ``factor`` times its own time longer; the others do not."""
        self._write({stage: {"ms": ms, "factor": factor}})

    def clear(self) -> None:
        """From the next batch on, nothing is slow."""
        self._write({})

    def _write(self, settings: dict[str, dict[str, float]]) -> None:
        draft = self._control.with_suffix(".new")
        draft.write_text(json.dumps(settings))
        draft.replace(self._control)  # at once: it is being read


def _describe_anew(repository: Path, file: Path) -> None:
    """Puts the checksums of the changed models into a manifest."""
    manifest = Manifest.from_json(file.read_text())
    artifacts = {
        path: describe_file(repository / path) if path.endswith("/model.py") else entry
        for path, entry in manifest.artifacts.items()
    }
    file.unlink()
    file.write_text(dataclasses.replace(manifest, artifacts=artifacts).to_json())
