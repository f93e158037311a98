"""What is refused before a server starts: one line each, with the thing, the value and what to do."""

from __future__ import annotations

import socket
from importlib import metadata
from pathlib import Path

import pytest

from tests.support.toy_repository import write_toy_repository
from trireme_server import (
    NumpyVersionError,
    OptionError,
    PortInUseError,
    RepositoryError,
    ServerError,
    TritonServer,
    errors,
)
from trireme_server.ports import address, choose_ports, listens, reachable
from trireme_server.preflight import check_affinity, check_repository, entry_models
from trireme_server.warmup import read_samples


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    return write_toy_repository(tmp_path / "repository", ("recommend", "recommend_fused"))


def test_a_good_repository_gives_its_manifest(repository: Path) -> None:
    assert check_repository(repository).bundle_id == "toy-1"
    assert entry_models(repository) == ("recommend", "recommend_fused")


@pytest.mark.parametrize(
    ("removed", "message"),
    [
        ("recommend/1/manifest.json", r"recommend/1/manifest\.json: cannot be read"),
        ("recommend/1/model.py", r"recommend/1/model\.py: is missing"),
        ("recommend/config.pbtxt", r"recommend: has no config\.pbtxt"),
        ("perf_input.json", r"perf_input\.json: is missing"),
    ],
)
def test_a_missing_part_is_named(repository: Path, removed: str, message: str) -> None:
    (repository / removed).unlink()
    with pytest.raises(RepositoryError, match=message):
        check_repository(repository)


def test_users_to_warm_up_with_are_only_needed_to_warm_up(repository: Path) -> None:
    (repository / "perf_input.json").unlink()
    assert check_repository(repository, warm=False).version == 1


def test_a_missing_repository_and_one_without_entry_model(tmp_path: Path) -> None:
    with pytest.raises(RepositoryError, match="no such directory"):
        TritonServer(tmp_path / "nothing").start()
    with pytest.raises(RepositoryError, match="has no model 'recommend'"):
        TritonServer(tmp_path).start()


def test_a_corrupted_artifact_of_the_same_size(repository: Path) -> None:
    file = repository / "recommend_fused" / "1" / "model.py"
    file.write_bytes(file.read_bytes().replace(b"import", b"imp0rt"))
    with pytest.raises(RepositoryError, match=r"recommend_fused/1/model\.py: has sha256"):
        check_repository(repository)


def test_a_port_in_use_names_port_and_flag() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert listens("127.0.0.1", port)
        with pytest.raises(PortInUseError, match=f"port {port} on 127.0.0.1 is already in use.*--http-port"):
            choose_ports("127.0.0.1", grpc=0, http=port, metrics=0)


def test_free_ports_differ_and_given_ones_are_kept() -> None:
    first = choose_ports("127.0.0.1", grpc=0, http=0, metrics=0)
    assert len({first.grpc, first.http, first.metrics}) == 3
    assert choose_ports("127.0.0.1", grpc=first.grpc, http=0, metrics=0).grpc == first.grpc
    assert not listens("127.0.0.1", first.grpc)


@pytest.mark.parametrize(
    ("host", "grpc", "message"),
    [
        ("127.0.0.1", 70000, "--grpc-port is 70000, allowed are 1 to 65535"),
        ("127.0.0.1", 8123, "must differ, got --grpc-port 8123, --http-port 8123"),
        ("203.0.113.7", 0, "--host is '203.0.113.7'"),
        ("2001:db8::7", 0, "--host is '2001:db8::7', which is no IP address or name of this machine"),
    ],
)
def test_addresses_that_cannot_work(host: str, grpc: int, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        choose_ports(host, grpc=grpc, http=8123 if grpc == 8123 else 0, metrics=0)


def test_an_address_for_everybody_is_reached_over_loopback() -> None:
    assert reachable("0.0.0.0") == "127.0.0.1"
    assert reachable("10.0.0.5") == "10.0.0.5"
    assert reachable("::") == "::1"


def test_an_ipv6_address_gets_brackets_before_its_port() -> None:
    assert (address("::1", 8001), address("localhost", 8001)) == ("[::1]:8001", "localhost:8001")


@pytest.mark.parametrize("cpus", [(), (0, 7)])
def test_cpus_that_are_not_there(cpus: tuple[int, ...]) -> None:
    with pytest.raises(OptionError, match=r"cpu_affinity is .* allowed is a non-empty choice of \[0, 1\]"):
        check_affinity(cpus, {0, 1})


def test_numpy_2_is_refused_before_anything_starts(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    version = metadata.version
    monkeypatch.setattr(metadata, "version", lambda name: "2.1.0" if name == "numpy" else version(name))
    with pytest.raises(NumpyVersionError, match=r"numpy 2\.1\.0 is installed.*numpy<2"):
        TritonServer(repository, grpc_port=0, http_port=0, metrics_port=0).start()


@pytest.mark.parametrize("text", ["", "[]", '{"data": 3}', '{"data": [3]}', '{"data": [{"user_id": {"x": 1}}]}'])
def test_a_broken_file_of_users(tmp_path: Path, text: str) -> None:
    (tmp_path / "in.json").write_text(text)
    with pytest.raises(RepositoryError, match=r"in\.json: is not an input file of perf_analyzer"):
        read_samples(tmp_path / "in.json")


def test_a_file_without_users(tmp_path: Path) -> None:
    (tmp_path / "in.json").write_text('{"data": []}')
    with pytest.raises(RepositoryError, match="holds no users"):
        read_samples(tmp_path / "in.json")


def test_users_as_perf_analyzer_reads_them(tmp_path: Path) -> None:
    (tmp_path / "in.json").write_text(
        '{"data": [{"user_id": [7]}, [{"user_id": [8], "history": {"content": [1, 2, 3, 4], "shape": [2, 2]}}]]}'
    )
    first, second = read_samples(tmp_path / "in.json")
    assert first["user_id"].tolist() == [7]
    assert second["history"].tolist() == [[1, 2], [3, 4]]


def test_every_error_is_a_server_error_and_drawn_in_the_tree() -> None:
    for name in errors.__all__:
        assert issubclass(getattr(errors, name), ServerError)
        assert name in (errors.__doc__ or "")
