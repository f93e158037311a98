"""What target gpu makes of a checkpoint, before a repository is written."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.random_checkpoint import random_checkpoint
from trireme_export.checkpoint import Checkpoint
from trireme_export.errors import ExportError
from trireme_export.targets.built import Built, Wanted
from trireme_export.targets.gpu import build


def with_serving(checkpoint: Checkpoint, **changes: Any) -> Checkpoint:
    serving = checkpoint.config.serving.model_copy(update=changes)
    return replace(checkpoint, config=checkpoint.config.model_copy(update={"serving": serving}))


def built(checkpoint: Checkpoint, folder: Path, plan: str = "both", engine: str = "tensorrt") -> Built:
    return build(checkpoint, Wanted(plan, engine, folder, np.asarray(checkpoint.tables.user_ids[:, None])))


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    """Its catalogue is large enough for target cpu to try approximate search."""
    return random_checkpoint(items=9000)


class TestIndex:
    def test_auto_is_exact_and_nothing_is_measured(self, checkpoint: Checkpoint, tmp_path: Path) -> None:
        index = built(checkpoint, tmp_path).record["index"]
        assert index["chosen"]["kind"] == "exact"
        assert [point["kind"] for point in index["curve"]] == ["exact"]

    @pytest.mark.parametrize(("plan", "kind"), [("ensemble", "ivf"), ("fused", "exact")])
    def test_what_is_asked_for_holds_where_there_is_an_index(
        self, checkpoint: Checkpoint, plan: str, kind: str, tmp_path: Path
    ) -> None:
        asked = with_serving(checkpoint, index="ivf")
        assert built(asked, tmp_path, plan).record["index"]["chosen"]["kind"] == kind


class TestCandidates:
    """A TopK of TensorRT finds 3,840 at most."""

    @pytest.mark.parametrize("plan", ["both", "fused"])
    def test_more_than_the_graph_can_find_are_refused(self, plan: str, tmp_path: Path) -> None:
        checkpoint = with_serving(random_checkpoint(items=3841), candidates=4000)
        with pytest.raises(
            ExportError, match=r"serving\.candidates is 4000, .* allowed: up to 3840, or --plan ensemble"
        ):
            built(checkpoint, tmp_path, plan)

    def test_without_that_graph_and_in_a_small_catalogue_they_are_allowed(self, tmp_path: Path) -> None:
        few, many = (with_serving(random_checkpoint(items=items), candidates=3841) for items in (30, 3841))
        assert set(built(few, tmp_path / "few", "fused").contents.graphs) == {"funnel"}
        assert set(built(many, tmp_path / "many", "ensemble").contents.graphs) == {"user_tower", "ranking"}
