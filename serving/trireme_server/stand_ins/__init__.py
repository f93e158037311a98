"""Backends that the embedded server has not, played by its Python backend: for tests and for a look at a GPU's repository.

Triton serves models of the backend NAME by ``NAME/model.py`` among its backends, if that is all there is of it. The files here
only name the engine; ``trireme_runtime.triton.stand_in`` is what they run, which imports nothing of this package.
"""

from __future__ import annotations

from pathlib import Path

__all__ = ["stand_in_files"]

ENGINES = ("tensorrt", "onnxruntime")


def stand_in_files() -> dict[str, Path]:
    """File name in the backend directory -> file here."""
    return {f"{engine}/model.py": Path(__file__).with_name(engine) / "model.py" for engine in ENGINES}
