"""The files of a funnel and its answers are what they always were: published bundles stay readable, with the same answers."""

from __future__ import annotations

import json
from dataclasses import astuple
from pathlib import Path
from typing import Any

import numpy as np

from tests.support import toy
from trireme_runtime.bundle import Manifest, describe_file
from trireme_runtime.stages.chain import Funnel

GOLDEN = Path(__file__).parents[1] / "golden" / "funnel.json"


def files(folder: Path) -> dict[str, str]:
    return {
        str(file.relative_to(folder)): describe_file(file).sha256
        for file in sorted(folder.rglob("*"))
        # Those of ONNX depend on the version of the onnx package, those of compiled stages on the order of NumPy's sums.
        if file.is_file() and file.suffix != ".onnx" and file.parent.name != "compiled"
    }


def answers(funnel: Funnel) -> list[dict[str, Any]]:
    """Of users that are known, unknown and anonymous, without a history and with one that holds unknown items."""
    users = np.array([*toy.user_ids(), 5, -1])[:, None]
    history = np.full((len(users), toy.DIMS.history), -1)
    history[:, -3:] = [toy.item_ids()[1], 17, toy.item_ids()[9]]
    return [
        {"item_id": slate.item_id.tolist(), "score": slate.score.tolist(), "rung": slate.rung.tolist()}
        for slate in (funnel(users), funnel(users, history))
    ]


def test_the_files_are_the_golden_ones(tmp_path: Path) -> None:
    toy.funnel(tmp_path / "made").save(tmp_path / "funnel")
    assert files(tmp_path / "funnel") == json.loads(GOLDEN.read_text())["files"]


def test_the_answers_are_the_golden_ones(tmp_path: Path) -> None:
    toy.funnel(tmp_path / "made").save(tmp_path / "funnel")
    for found, golden in zip(
        answers(Funnel.load(tmp_path / "funnel")), json.loads(GOLDEN.read_text())["answers"], strict=True
    ):
        assert (found["item_id"], found["rung"]) == (golden["item_id"], golden["rung"])
        np.testing.assert_allclose(found["score"], golden["score"], rtol=1e-6, atol=1e-6)


def test_the_manifest_is_the_golden_one() -> None:
    golden = json.loads(GOLDEN.read_text())["manifest"]
    manifest = Manifest("0123456789abcdef", 1, "both", "cpu", toy.DIMS, {}, {})
    assert json.loads(manifest.to_json()) == golden
    assert astuple(Manifest.from_json(json.dumps(golden)).dims) == astuple(toy.DIMS)
