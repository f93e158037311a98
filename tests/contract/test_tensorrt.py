"""What Trireme uses of TensorRT exists, in a release of 10 and in one of 11.

TensorRT cannot run here. But NVIDIA's bindings are on PyPI. Without TensorRT's libraries they cannot be imported; yet the names
that they define can be read in them. And trtexec is open source, so its flags are known.
"""

from __future__ import annotations

import ast
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from trireme_server.plans import tensorrt_api
from trireme_server.plans.builders import Trtexec
from trireme_server.plans.job import Job

#: The oldest release that is allowed, and the newest one of PyPI when this was written.
BINDINGS = ("tensorrt-cu12-bindings==10.12.0.36", "tensorrt-cu13-bindings==11.4.0.106")
FLAGS = json.loads((Path(__file__).parents[1] / "golden" / "trtexec" / "flags.json").read_text())
API = Path(tensorrt_api.__file__)


def attributes(source: str) -> set[str]:
    """The name of every attribute that a module uses."""
    return {node.attr for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Attribute)}


def missing(names: set[str], bindings: bytes) -> set[str]:
    """Those that the bindings do not define: a name is a string of its own there, or the end of a longer one."""
    return {name for name in names if name.encode() + b"\0" not in bindings}


@pytest.fixture(scope="module", params=BINDINGS)
def bindings(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The library in NVIDIA's wheel, and the Python beside it with each word ended as a string is."""
    folder = tmp_path_factory.mktemp("bindings")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", "download"]
    subprocess.run([*pip, "--no-deps", "--only-binary=:all:", "--dest", folder, request.param], check=True)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        (library,) = (name for name in archive.namelist() if name.endswith("/tensorrt.so"))
        package = archive.read("tensorrt_bindings/__init__.py")
        return archive.read(library) + b"\0".join(package.split()) + b"\0"


def test_every_name_of_the_api_is_in_the_bindings(bindings: bytes) -> None:
    names = attributes(API.read_text())
    assert {"STRONGLY_TYPED", "parse_from_file", "build_serialized_network", "__version__"} <= names
    assert not missing(names, bindings)


@pytest.mark.parametrize("wrong", ["build_engine_quickly", "set_shapes", "STRONGLY_TYPE"])
def test_a_name_that_is_made_up_is_found(bindings: bytes, wrong: str) -> None:
    source = API.read_text() + f"\n\ndef added(trt: Any) -> Any:\n    return trt.Builder.{wrong}\n"
    assert missing(attributes(source), bindings) == {wrong}


def test_no_other_module_uses_the_api() -> None:
    """So that the names in it are all there are: elsewhere, the module is only handed on."""
    importing = [
        file.name
        for file in API.parent.glob("*.py")
        if any(
            isinstance(node, ast.Import) and any(alias.name == "tensorrt" for alias in node.names)
            for node in ast.walk(ast.parse(file.read_text()))
        )
    ]
    assert importing == ["python_builder.py"]
    used = [
        node.value.id
        for node in ast.walk(ast.parse((API.parent / "python_builder.py").read_text()))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
    ]
    assert "tensorrt" not in used


def flags_used() -> set[str]:
    job = Job(Path("a"), Path("b"), {"x": ([1], [2], [3])}, workspace_mib=1, timings=Path("c"))
    return {argument.partition("=")[0] for argument in Trtexec("11.1.0", Path("trtexec")).command(job)[1:]}


@pytest.mark.parametrize("release", FLAGS["releases"], ids=lambda release: release["tag"])
def test_trtexec_takes_every_flag(release: dict[str, str]) -> None:
    known = release["flags"].split()
    assert len(flags_used()) == 9
    assert flags_used() <= set(known)
    assert "--help" in known  # by which it is asked for its version
    assert "--stronglyTypedNetwork" not in known


def test_a_flag_that_one_release_has_lost_is_found() -> None:
    known = {release["tag"]: set(release["flags"].split()) for release in FLAGS["releases"]}
    assert [tag for tag, flags in known.items() if not flags_used() | {"--fp16"} <= flags] == ["v11.1"]
