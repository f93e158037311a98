"""Stages one after another in one process: a step of the ensemble, or the whole funnel."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np

from trireme_runtime.native import library
from trireme_runtime.native.binding import NativeStages
from trireme_runtime.native.shapes import joined
from trireme_runtime.schema import FEATURE_AGE, FRESHNESS, REASON, RUNG, SIGNATURES, STAGES, signature_of
from trireme_runtime.stages.exclusion import Exclusion
from trireme_runtime.stages.feature_transform import FeatureTransform
from trireme_runtime.stages.ranking import Ranking
from trireme_runtime.stages.reranking import Reranking, Slate, tell_freshness
from trireme_runtime.stages.retrieval import Retrieval
from trireme_runtime.stages.stage import EXCLUDING, ON_DEVICE, Stage, stage_inputs
from trireme_runtime.stages.user_tower import UserTower

__all__ = ["STAGE_TYPES", "Chain", "Funnel", "Run", "StageFailedError", "load_stages"]

#: The classes of the stages, in the order of a request.
STAGE_TYPES: tuple[type[Any], ...] = (FeatureTransform, UserTower, Retrieval, Ranking, Reranking)
OTHER_TYPES: tuple[type[Any], ...] = (Exclusion,)


def load_stages(path: Path, names: Iterable[str], device: int | None = None) -> list[Stage]:
    """The stages ``names`` from the folders under ``path``.

    Args:
        device: the GPU of those that can compute on one, ``stage.ON_DEVICE``; None for the CPU.

    Raises:
        ArtifactError: a file is missing, damaged or of another format.
    """
    types = {kind.name: kind for kind in (*STAGE_TYPES, *OTHER_TYPES)}
    places: dict[str, dict[str, Any]] = {name: {"device": device} for name in ON_DEVICE}
    return [types[name].load(path / name, **places.get(name, {})) for name in names]


class Run(NamedTuple):
    """What a chain answers always, in the order of its signature, and the ns that each stage took."""

    outputs: tuple[np.ndarray, ...]
    times: tuple[int, ...]


class StageFailedError(Exception):
    """A stage raised ``cause``. ``times``: ns of the stages that ran, the failed one last."""

    def __init__(self, stage: str, times: tuple[int, ...], cause: Exception) -> None:
        super().__init__(f"{stage}: {type(cause).__name__}: {cause}")
        self.times = times
        self.cause = cause


class _OneStage:
    """A stage that runs by itself, in Python; the same to a chain as ``NativeStages``."""

    def __init__(self, stage: Stage) -> None:
        self.names = (stage.name,)
        self._stage = stage

    def run(self, tensors: dict[str, Any]) -> tuple[int, ...]:
        start = time.perf_counter_ns()
        outputs = self._stage(**stage_inputs(self._stage.name, tensors))
        tensors.update(outputs._asdict())
        return (time.perf_counter_ns() - start,)


class _Freshness:
    """Says in the lists of compiled stages how old the features are, where other stages, or an earlier step, know."""

    names = ("reranking",)

    def run(self, tensors: dict[str, Any]) -> tuple[int, ...]:
        if (freshness := tensors.get(FRESHNESS.name)) is not None:
            age = tell_freshness(freshness, tensors[RUNG.name], tensors[REASON.name])
            tensors[FEATURE_AGE.name] = age
        return ()


class Chain:
    """Hands tensors from stage to stage by their names, as the ensemble's config does.

    Stages in a row that have a compiled form are one call (see ``native``); the others are called one by one.

    Args:
        stages: in the order of a request.
    """

    #: Whether compiled forms are used.
    compiles: ClassVar[bool] = True

    def __init__(self, stages: Sequence[Stage]) -> None:
        self.signature = signature_of(tuple(stage.name for stage in stages))
        self._answered = self.signature.answered
        self.stages = tuple(stages)

    @property
    def stages(self) -> tuple[Stage, ...]:
        return self._stages

    @stages.setter
    def stages(self, stages: tuple[Stage, ...]) -> None:
        self._stages = stages
        self._parts = list(self._divide())

    @property
    def compiled(self) -> tuple[str, ...]:
        """The names of the stages that run in their compiled form."""
        return tuple(name for part in self.compiled_parts for name in part.names)

    @property
    def compiled_parts(self) -> tuple[NativeStages, ...]:
        """Those stages, as they are called together."""
        return tuple(part for part in self._parts if isinstance(part, NativeStages))

    def _divide(self) -> Iterator[NativeStages | _OneStage | _Freshness]:
        kernels = library() if self.compiles else None
        tables = {stage.name: stage.tables() if kernels else None for stage in self._stages}
        for compiled, group in itertools.groupby(self._stages, key=lambda stage: tables[stage.name] is not None):
            members = list(group)
            if not (compiled and kernels):
                yield from map(_OneStage, members)
                continue
            names = [stage.name for stage in members]
            held = joined({name: tables[name] or {} for name in names})
            others = [SIGNATURES[stage.name] for stage in self._stages if stage.name not in names]
            read = {tensor.name for tensor in self._answered}.union(
                *({t.name for t in other.inputs} for other in others)
            )
            yield NativeStages(kernels, names, held, read)
            if names[-1] == "reranking":
                yield _Freshness()

    @staticmethod
    def invalid_rows(**inputs: Any) -> dict[int, str]:
        """What is wrong with a request, by row: only what comes from outside can be wrong."""
        return FeatureTransform.invalid_rows(**inputs) if "user_id" in inputs else {}

    @property
    def item_ids(self) -> np.ndarray | None:
        """int64 [items], ascending: by which ``excluded`` is looked up. None if no stage leaves anything out."""
        # The last one's: reranking reads its own for every answer.
        excluding: list[Any] = [stage for stage in self.stages if stage.name in EXCLUDING]
        return excluding[-1].item_ids if excluding else None

    def run(self, **inputs: Any) -> Run:
        """Runs the stages on the inputs of the signature, by name, and on ``excluded``, see ``stage_inputs``.

        Raises:
            StageFailedError: a stage raised.
        """
        tensors: dict[str, Any] = dict(inputs)
        times: tuple[int, ...] = ()
        for part in self._parts:
            start = time.perf_counter_ns()
            try:
                times += part.run(tensors)
            except Exception as error:
                raise StageFailedError(part.names[0], (*times, time.perf_counter_ns() - start), error) from error
        return Run(tuple(tensors[tensor.name] for tensor in self._answered), times)

    def staged(self, **inputs: Any) -> dict[str, Any]:
        """Returns all tensors of a batch by name, stage by stage in Python and ONNX Runtime; ``inputs`` as of ``run``."""
        tensors: dict[str, Any] = dict(inputs)
        for stage in self.stages:
            tensors.update(stage(**stage_inputs(stage.name, tensors))._asdict())
        return tensors


class Funnel(Chain):
    """All five stages. The fused plan serves it, offline evaluation calls it."""

    def __call__(
        self, user_id: np.ndarray, history: np.ndarray | None = None, context: np.ndarray | None = None
    ) -> Slate:
        """Args: user_id int64 [batch, 1]; history int64 [batch, L]; context int32 [batch, C], see ``FeatureTransform``."""
        return Slate(*self.run(user_id=user_id, history=history, context=context).outputs)

    def save(self, path: Path) -> None:
        for stage in self.stages:
            stage.save(path / stage.name)

    @classmethod
    def load(cls, path: Path) -> Funnel:
        return cls(load_stages(path, STAGES))
