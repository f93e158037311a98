"""Compiling the C library, and loading the variant for a processor."""

from __future__ import annotations

import platform
from pathlib import Path

import pytest
from hatch_build import LIBRARIES, NATIVE, NativeLibraryHook

from tests.support.installation import ROOT
from trireme_runtime.errors import ArtifactError
from trireme_runtime.native import VERSION, X86_64_V3, cpu_flags, library, load, variants

NAMES = sorted(LIBRARIES[platform.machine()])
SOURCE = '__attribute__((visibility("default"))) int trireme_native_version(void) { return %d; }\n'


def project(root: Path, source: str) -> Path:
    """Makes a tree of this one C file, with the compiler's cache of this checkout; returns the file's folder."""
    folder = root / NATIVE
    folder.mkdir(parents=True)
    (folder / "source.c").write_text(source)
    (ROOT / "build").mkdir(exist_ok=True)
    (root / "build").symlink_to(ROOT / "build")
    return folder


def build(root: Path) -> dict[str, object]:
    """Does what building a wheel of ``root`` does first; returns what the hook says of the wheel."""
    data: dict[str, object] = {"artifacts": []}
    NativeLibraryHook(str(root), {}, None, None, str(root), "wheel").initialize("standard", data)
    return data


def test_every_variant_for_this_machine_is_compiled(tmp_path: Path) -> None:
    folder = project(tmp_path, SOURCE % VERSION)
    data = build(tmp_path)
    assert sorted(path.name for path in folder.iterdir()) == [*NAMES, "source.c"]
    assert sorted(data["artifacts"]) == [f"/serving/trireme_runtime/native/{name}" for name in NAMES]
    assert data["tag"] == f"py3-none-manylinux_2_17_{platform.machine()}"
    assert load(folder, [f"kernels.{platform.machine()}.so"]) is not None


def test_a_changed_source_is_compiled_again(tmp_path: Path) -> None:
    folder = project(tmp_path, SOURCE % (VERSION + 1))
    build(tmp_path)
    (folder / "source.c").write_text(SOURCE % VERSION)
    build(tmp_path)
    assert load(folder, NAMES) is not None


def test_a_source_that_cannot_be_compiled_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = project(tmp_path, "int broken(int unused) { return 1; }\n")
    with pytest.raises(SystemExit):
        build(tmp_path)
    error = capsys.readouterr().err
    assert f"{folder}/kernels." in error
    assert f"{folder}/source.c:1:16: error: unused parameter" in error
    assert [path.name for path in folder.iterdir()] == ["source.c"]


def test_another_machine_gets_a_wheel_without_kernels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")
    folder = project(tmp_path, SOURCE % VERSION)
    assert build(tmp_path) == {"artifacts": []}
    assert [path.name for path in folder.iterdir()] == ["source.c"]
    assert capsys.readouterr().err == (
        "linux on riscv64: built without native kernels, which need Linux with glibc on x86_64 or aarch64\n"
    )


def test_the_library_of_this_package_loads_here() -> None:
    loaded = library()
    assert loaded is not None
    assert loaded.trireme_native_version() == VERSION


@pytest.mark.parametrize(
    ("machine", "flags", "names"),
    [
        ("x86_64", X86_64_V3 | {"avx512f"}, ["kernels.x86_64_v3.so", "kernels.x86_64.so"]),
        ("x86_64", X86_64_V3 - {"fma"}, ["kernels.x86_64.so"]),
        ("x86_64", set(), ["kernels.x86_64.so"]),
        ("aarch64", set(), ["kernels.aarch64.so"]),
    ],
)
def test_a_processor_gets_what_it_can_run(machine: str, flags: set[str], names: list[str]) -> None:
    assert variants(machine, flags) == names


def test_the_flags_are_those_of_the_first_processor(tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("processor\t: 0\nvmx flags\t: ept\nflags\t\t: fpu avx2\n\nprocessor\t: 1\nflags\t\t: fpu\n")
    assert cpu_flags(cpuinfo) == {"fpu", "avx2"}


def test_a_processor_without_such_a_line_has_no_flags(tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("processor\t: 0\nFeatures\t: fp asimd\n")
    assert cpu_flags(cpuinfo) == set()


def test_a_checkout_that_is_not_installed_has_no_library(tmp_path: Path) -> None:
    assert load(tmp_path, NAMES) is None


def test_a_library_of_another_version_is_refused(tmp_path: Path) -> None:
    folder = project(tmp_path, SOURCE % (VERSION + 1))
    build(tmp_path)
    message = rf"\.so: has version {VERSION + 1}, expected {VERSION}; install trireme-recsys again$"
    with pytest.raises(ArtifactError, match=message):
        load(folder, NAMES)


def test_a_damaged_library_is_refused(tmp_path: Path) -> None:
    (tmp_path / NAMES[0]).write_bytes(b"\x7fELF")
    with pytest.raises(ArtifactError, match=r"\.so: cannot be loaded \(.*\); install trireme-recsys again$"):
        load(tmp_path, NAMES)
