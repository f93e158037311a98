"""Which tritonserver, with which arguments and environment; its log read; nothing is started here."""

from __future__ import annotations

import errno
import io
import multiprocessing
import os
import re
import sys
import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from trireme_server import (
    BinaryError,
    OptionError,
    PythonVersionError,
    ServerNotFoundError,
    TritonServer,
    embedded,
    find_binaries,
)
from trireme_server.binaries import Binaries, check_stub
from trireme_server.command import Access, server_command, server_environment
from trireme_server.embedded import STUB, Wheel, backend_directory
from trireme_server.log import telling_lines
from trireme_server.log_file import LogFile
from trireme_server.output import KEPT_LINES, Output
from trireme_server.ports import Ports

EMBEDDED = Binaries(Path("/w/tritonserver"), Path("/b"), Path("/c"), (Path("/w/libs"), Path("/py/lib")), "test", True)


def make_wheel(root: Path) -> Wheel:
    """The parts of nvidia-pytriton, as small files."""
    for name in ("bin/tritonserver", "backends/python/libtriton_python.so", f"python_backend_stubs/3.11/{STUB}"):
        file = root / "pytriton" / "tritonserver" / name
        file.parent.mkdir(parents=True)
        file.write_text(name)
    (root / "pytriton" / "tritonserver" / "python_backend_stubs" / "3.9").mkdir()
    return Wheel("0.7.0", root / "pytriton" / "tritonserver", root / "nvidia_pytriton.libs")


def test_the_command_line() -> None:
    command = command_with("--log-verbose=1")
    assert command[0] == "/w/tritonserver"
    assert command[-1] == "--log-verbose=1"
    for argument in (
        *("--model-repository=/models", "--grpc-port=1", "--http-port=2", "--metrics-port=3"),
        *("--grpc-address=127.0.0.1", "--http-address=127.0.0.1", "--metrics-address=127.0.0.1"),
        *("--backend-directory=/b", "--cache-directory=/c", "--exit-timeout-secs=15"),
        "--backend-config=python,shm-region-prefix-name=trireme_9_",
    ):
        assert argument in command


@pytest.mark.parametrize(
    "argument",
    [
        *("--grpc-port=9", "--model-repository=/x", "--metrics-p=9", "--allow-http=false", "--trace-config=rate=1"),
        *("--backend-config=python,shm-region-prefix-name=x", "--exit-timeout-secs"),
    ],
)
def test_an_argument_that_is_set_already_is_refused(argument: str) -> None:
    with pytest.raises(OptionError, match=re.escape(f"{argument!r} is not allowed; Trireme sets --model-repository, ")):
        command_with(argument)


def test_other_arguments_of_tritonserver_come_last() -> None:
    extra = ["--log-verbose=1", "--backend-config=python,shm-default-byte-size=1048576", "--cache-config=local,size=9"]
    assert command_with(*extra)[-3:] == extra
    for word in ("verbose", "-v", "--", ""):
        with pytest.raises(OptionError, match=f"argument of tritonserver {word!r} is not allowed; allowed: --NAME or"):
            command_with(word)


def command_with(*arguments: str, **options: Any) -> list[str]:
    return server_command(
        EMBEDDED,
        Path("/models"),
        host="127.0.0.1",
        ports=Ports(1, 2, 3),
        shm_prefix="trireme_9_",
        exit_timeout_s=15,
        trace_arguments=["--trace-config=mode=opentelemetry"],
        extra_arguments=arguments,
        **options,
    )


def test_what_takes_a_key_is_closed_to_others() -> None:
    assert not [argument for argument in command_with() if "control" in argument or "restricted" in argument]
    command = command_with(access=Access("k3y", http_inference=True))
    assert "--model-control-mode=explicit" in command
    assert "--load-model=*" in command
    closed = "model-repository,shared-memory,trace,logging"
    assert f"--grpc-restricted-protocol={closed}:admin-key=k3y" in command
    assert f"--http-restricted-api={closed}:admin-key=k3y" in command
    without_http = command_with(access=Access("k3y", http_inference=False))
    assert f"--grpc-restricted-protocol={closed}:admin-key=k3y" in without_http
    assert f"--http-restricted-api={closed},inference:admin-key=k3y" in without_http
    with pytest.raises(OptionError, match=r"Trireme sets .*--grpc-restricted-protocol"):
        command_with("--grpc-restricted-protocol=health:a=b", access=Access("k3y", http_inference=False))


def test_http_may_listen_elsewhere() -> None:
    command = command_with(http_host="127.0.0.7")
    for argument in ("--grpc-address=127.0.0.1", "--http-address=127.0.0.7", "--metrics-address=127.0.0.1"):
        assert argument in command


@pytest.mark.parametrize(
    ("host", "expected"),
    [("0.0.0.0", "127.0.0.1"), ("localhost", "127.0.0.1"), ("127.0.0.5", "127.0.0.5"), ("::", "::1"), ("::1", "::1")],
)
def test_http_is_for_this_machine_alone_where_inference_over_it_is_closed(host: str, expected: str) -> None:
    assert TritonServer("nowhere", host=host, access=Access("k3y", http_inference=False)).http_host == expected
    assert TritonServer("nowhere", host=host, access=Access("k3y", http_inference=True)).http_host == host
    assert TritonServer("nowhere", host=host).http_host == host


def test_an_ipv6_address_is_written_as_each_endpoint_of_tritonserver_wants_it() -> None:
    command = server_command(
        EMBEDDED, Path("/models"), host="::1", ports=Ports(1, 2, 3), shm_prefix="p", exit_timeout_s=1
    )
    for argument in ("--grpc-address=[::1]", "--http-address=ipv6:::1", "--metrics-address=ipv6:::1"):
        assert argument in command


def test_an_installed_server_keeps_its_own_directories() -> None:
    installed = Binaries(Path("/opt/tritonserver/bin/tritonserver"), None, None, (), "test", False)
    command = server_command(installed, Path("/m"), host="h", ports=Ports(1, 2, 3), shm_prefix="p", exit_timeout_s=1)
    assert not any("directory" in argument for argument in command)
    assert "LD_LIBRARY_PATH" not in server_environment(installed, {"PATH": "/bin"})


def test_the_environment_has_libraries_our_python_and_one_thread() -> None:
    others = {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://for.other.programs/v1/traces"}
    environment = server_environment(
        EMBEDDED, {"PATH": "/bin", "LD_LIBRARY_PATH": "/x", "OMP_NUM_THREADS": "9"} | others
    )
    assert not others.keys() & environment.keys()
    assert environment["LD_LIBRARY_PATH"] == "/w/libs:/py/lib:/x"
    assert environment["PATH"].split(":") == [str(Path(sys.executable).parent), "/bin"]
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        assert environment[name] == "1"


def test_freed_memory_is_given_back_unless_the_environment_says_otherwise() -> None:
    assert server_environment(EMBEDDED, {"PATH": "/bin"})["MALLOC_TRIM_THRESHOLD_"] == "131072"
    own = {"PATH": "/bin", "MALLOC_TRIM_THRESHOLD_": "1000000"}
    assert server_environment(EMBEDDED, own)["MALLOC_TRIM_THRESHOLD_"] == "1000000"


def test_the_backend_directory_is_made_once_and_repaired(tmp_path: Path) -> None:
    wheel = make_wheel(tmp_path / "wheel")
    made = backend_directory(wheel, cache=tmp_path / "cache", python_minor="3.11")
    assert re.fullmatch(r"0\.7\.0-py3\.11-[0-9a-f]{8}", made.name)
    stub = made / "python" / STUB
    assert os.access(stub, os.X_OK)
    before = stub.stat().st_ino
    assert backend_directory(wheel, cache=tmp_path / "cache", python_minor="3.11") == made
    assert stub.stat().st_ino == before
    stub.write_text("cut")
    backend_directory(wheel, cache=tmp_path / "cache", python_minor="3.11")
    assert stub.read_text() == f"python_backend_stubs/3.11/{STUB}"
    assert [path.name for path in made.parent.iterdir()] == [made.name]


def test_stand_ins_lie_beside_the_python_backend_and_other_ones_in_another_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel = make_wheel(tmp_path / "wheel")
    made = backend_directory(wheel, cache=tmp_path / "cache", python_minor="3.11")
    for engine in ("tensorrt", "onnxruntime"):
        assert f'engine = "{engine}"' in (made / engine / "model.py").read_text()
    changed = tmp_path / "model.py"
    changed.write_text("another")
    monkeypatch.setattr(embedded, "stand_in_files", lambda: {"tensorrt/model.py": changed})
    other = backend_directory(wheel, cache=tmp_path / "cache", python_minor="3.11")
    assert other != made
    assert (other / "tensorrt" / "model.py").read_text() == "another"
    assert made.is_dir()


def test_an_installed_server_gets_no_stand_ins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = tmp_path / "bin" / "tritonserver"
    server.parent.mkdir()
    server.write_text("")
    server.chmod(0o755)
    monkeypatch.setenv("PATH", str(server.parent), prepend=os.pathsep)
    assert find_binaries(cache=tmp_path / "cache").server == server
    assert not (tmp_path / "cache").exists()


def assemble(arguments: tuple[Wheel, Path]) -> str:
    wheel, cache = arguments
    return str(backend_directory(wheel, cache=cache, python_minor="3.11"))


def test_processes_that_make_it_at_once_all_get_a_whole_one(tmp_path: Path) -> None:
    wheel = make_wheel(tmp_path / "wheel")
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        for attempt in range(5):
            cache = tmp_path / f"cache{attempt}"
            directories = set(pool.map(assemble, [(wheel, cache)] * 8, chunksize=1))
            assert len(directories) == 1
            (directory,) = directories
            assert sorted(path.name for path in (Path(directory) / "python").iterdir()) == [
                "libtriton_python.so",
                STUB,
            ]
            assert len(list(Path(directory).parent.iterdir())) == 1


def test_a_python_without_stub_is_named_with_those_that_have_one(tmp_path: Path) -> None:
    with pytest.raises(PythonVersionError, match=r"Python 3\.99 is not supported .* for 3\.9, 3\.11; use"):
        backend_directory(make_wheel(tmp_path), cache=tmp_path / "cache", python_minor="3.99")


def test_a_cache_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(BinaryError, match="XDG_CACHE_HOME"):
        backend_directory(make_wheel(tmp_path / "w"), cache=tmp_path / "cache", python_minor="3.11")


def test_a_stub_for_another_python_is_refused(tmp_path: Path) -> None:
    stub = tmp_path / STUB
    stub.write_bytes(b"\x7fELF\0libpython3.10.so.1.0\0")
    check_stub(stub, "3.10")
    with pytest.raises(PythonVersionError, match=r"built for Python 3\.10, but Trireme runs on Python 3\.12"):
        check_stub(stub, "3.12")


def test_no_server_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr("trireme_server.embedded.util.find_spec", lambda name: None)
    with pytest.raises(ServerNotFoundError, match=r"pip install 'trireme-recsys\[server\]'"):
        find_binaries()


def test_a_server_on_path_comes_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    server = tmp_path / "tritonserver"
    server.write_text("#!/bin/sh\n")
    server.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    found = find_binaries()
    assert found.server == server
    assert found.library_path == ()


TABLE = """
E1123 09:41:28.674647 4852 server.cc:241] "CudaDriverHelper has not been initialized."
+-----------+---------+-------------------------------------------------------------------+
| Model     | Version | Status                                                            |
+-----------+---------+-------------------------------------------------------------------+
| ranking   | 3       | UNAVAILABLE: Internal: ValueError: weights.npy is truncated       |
|           |         |                                                                   |
|           |         | At:                                                               |
|           |         |   /models/ranking/3/model.py(13): <module>                        |
|           |         |   <frozen importlib._bootstrap>(241): _call_with_frames_removed   |
| retrieval | 3       | READY                                                             |
| recommend | 3       | UNAVAILABLE: Invalid argument: ensemble 'recommend' depends on 'ranking' which has no loaded version |
+-----------+---------+-------------------------------------------------------------------+
error: creating server: Internal - failed to load all models
"""


def test_the_table_of_models_tells_the_cause_and_not_its_consequences() -> None:
    assert telling_lines(TABLE) == [
        "model ranking version 3: Internal: ValueError: weights.npy is truncated"
        " (at /models/ranking/3/model.py(13): <module>)"
    ]


def test_without_a_table_the_errors_tell_and_without_errors_the_end() -> None:
    log = 'I1 fine\n[libprotobuf ERROR /a/b.cc:337] no field "x"\nE1123 09:41:28.6 48 a.cc:1] "Poll failed"\nbye\n'
    assert telling_lines(log) == ['no field "x"', "Poll failed"]
    assert telling_lines("one\ntwo\n") == ["one", "two"]
    assert telling_lines("one\nI1 2 pb_stub.cc:2145]  Non-graceful termination detected. \n") == ["one"]
    assert telling_lines("") == []


def test_that_there_is_no_gpu_tells_nothing() -> None:
    log = (
        'W1126 02:14:36.4 48 a.cc:2] "Unable to allocate pinned system memory: CUDA driver version is insufficient"\n'
        "I1126 loading\n"
    )
    assert telling_lines(log) == ["I1126 loading"]
    assert telling_lines(log, info=False) == []


def test_a_log_file_that_is_full_is_set_aside_and_the_oldest_goes(tmp_path: Path) -> None:
    path = tmp_path / "server.log"
    path.write_text("from before\n")
    with closing(LogFile(path, max_bytes=30)) as log:
        for number in range(20):
            log.write(f"line {number:2} % of all\n")
    names = ["server.log", *(f"server.log.{number}" for number in range(1, 5))]
    assert sorted(file.name for file in tmp_path.iterdir()) == names
    assert all(file.stat().st_size <= 30 for file in tmp_path.iterdir())
    assert [(tmp_path / name).read_text() for name in names[:2]] == ["line 19 % of all\n", "line 18 % of all\n"]


def test_what_an_output_cannot_pass_on_is_kept_all_the_same(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    log = LogFile(tmp_path / "full")
    log.stream = open("/dev/full", "w")  # noqa: PTH123, SIM115
    output = Output(os.fdopen(reader, "rb"), log)
    os.write(writer, b"one\ntwo\n")
    os.close(writer)
    output.finish()
    assert output.text() == "one\ntwo\n"


def test_an_output_is_passed_on_again_when_there_is_room_again() -> None:
    class Disk(io.StringIO):
        def write(self, line: str) -> int:
            if "two" in line:
                raise OSError(errno.ENOSPC, "no space left")
            return super().write(line)

    reader, writer = os.pipe()
    disk = Disk()
    output = Output(os.fdopen(reader, "rb"), disk)
    os.write(writer, b"one\ntwo\nthree\n")
    os.close(writer)
    output.finish()
    assert disk.getvalue() == "one\nthree\n"


def test_what_an_output_says_is_reacted_to_at_once() -> None:
    reader, writer = os.pipe()
    output, said = Output(os.fdopen(reader, "rb"), None), threading.Event()
    output.when_said("unloading", said.set)
    os.write(writer, b"loading\nthe rest\n")
    os.write(writer, b'I1 "unloading models"\n')
    assert said.wait(30)
    os.close(writer)
    output.finish()


def test_the_last_lines_of_an_output_are_kept_and_all_are_passed_on(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    with (tmp_path / "log").open("w") as sink:
        output = Output(os.fdopen(reader, "rb"), sink)
        lines = [f"line {number}" for number in range(KEPT_LINES + 5)]
        os.write(writer, b"\n".join(line.encode() for line in lines))
        os.close(writer)
        output.finish()
    assert output.text().splitlines() == lines[5:]
    assert (tmp_path / "log").read_text().splitlines() == lines
    output.forget()
    assert output.text() == ""
