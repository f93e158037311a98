"""A copy of a model repository in which one stage can be made slow while it is served.

The models are those of the bundle; only their ``model.py`` differs: around every stage lies a delay, which is read from a file
before each batch.
"""

from __future__ import annotations

import json
from pathlib import Path

from trireme_perf.repositories import append_code, copy_repository
from trireme_runtime.triton.metrics import PERIOD_S

CONTROL = "slow_stage.json"

DELAYED = '''

import functools
import json
import time
from pathlib import Path

from trireme_runtime.triton import model

CONTROL = Path({control!r})
model.Publisher = functools.partial(model.Publisher, period_s={publish_s!r})


class Delayed:
    """A stage that computes for longer: by ``ms``, and by ``factor`` times what it takes itself."""

    def __init__(self, stage):
        self._stage = stage
        self.name = stage.name

    def tables(self):
        """There is no compiled form: it would not be slow."""

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
        kind, made = self.chain, []

        def keep(stages):
            made.append(kind(stages))
            return made[0]

        self.chain = keep
        super().initialize(args)
        made[0].stages = tuple(Delayed(stage) for stage in made[0].stages)
'''


class SlowStage:
    """The copy at ``repository``; as fast as the original until a stage is set. It publishes its metrics every ``publish_s``."""

    def __init__(self, original: Path, repository: Path, *, publish_s: float = PERIOD_S) -> None:
        self.repository = repository
        copy_repository(original, repository)
        self._control = repository.parent / f"{repository.name}.{CONTROL}"
        self.clear()
        append_code(repository, DELAYED.format(control=str(self._control), publish_s=publish_s))

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
