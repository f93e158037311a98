"""How a variant is written."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.toy_repository import write_toy_repository
from trireme_cli.perf.ab import PRESETS as NAMED
from trireme_perf.ab import Settings, experiment
from trireme_perf.ab.presets import PRESETS, preset_variants
from trireme_perf.ab.variants import parse_variant
from trireme_perf.errors import PerfError
from trireme_perf.host.triton import serving_program
from trireme_runtime.errors import BundleError


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    return write_toy_repository(tmp_path / "repository", models=("recommend", "recommend_fused"))


@pytest.mark.parametrize(
    ("rest", "model", "coalescing"),
    [
        ("", "recommend", False),
        (":recommend_fused", "recommend_fused", False),
        ("+coalescing", "recommend", True),
        (":recommend_fused+coalescing", "recommend_fused", True),
    ],
)
def test_a_repository(repository: Path, rest: str, model: str, coalescing: bool) -> None:
    variant = parse_variant(f"{repository}{rest}")
    assert (variant.repository, variant.model, variant.coalescing) == (repository, model, coalescing)
    described = variant.describe()
    assert described == {
        "model": model,
        "coalescing": coalescing,
        "options": None,
        "plan": "fused",
        "bundle_id": "toy-1",
    }


@pytest.mark.parametrize(
    ("text", "url", "model", "coalescing"),
    [
        ("grpc://localhost:8001", "localhost:8001", "recommend", False),
        ("grpc://10.0.0.1:9001/other+coalescing", "10.0.0.1:9001", "other", True),
    ],
)
def test_a_server_that_runs(text: str, url: str, model: str, coalescing: bool) -> None:
    variant = parse_variant(text)
    assert (variant.repository, variant.url, variant.model, variant.coalescing) == (None, url, model, coalescing)
    assert variant.describe()["bundle_id"] is None


@pytest.mark.parametrize("text", ["", "+coalescing", "http://localhost:8000", "grpc://localhost", "grpc://host:port"])
def test_what_is_neither(text: str) -> None:
    with pytest.raises(PerfError, match="allowed: REPOSITORY"):
        parse_variant(text)


def test_a_model_that_is_no_entry(repository: Path) -> None:
    with pytest.raises(PerfError, match=r"names the model 'ranking'; .* has: recommend, recommend_fused"):
        parse_variant(f"{repository}:ranking")


def test_no_repository(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="no such directory"):
        parse_variant(str(tmp_path / "nothing"))


def test_two_running_servers_need_users() -> None:
    with pytest.raises(PerfError, match="--users must name a model repository"):
        experiment(parse_variant("grpc://localhost:1"), parse_variant("grpc://localhost:2"), Settings())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rate": 0.0}, "rate is 0, must be more than 0"),
        ({"seconds": 0.0}, "seconds is 0, must be more than 0"),
        ({"seconds": float("nan")}, "seconds is nan, must be more than 0"),
        ({"rounds": 9}, "rounds is 9, must be at least 10"),
        ({"metric": "p95"}, "metric is 'p95', allowed: p50, p99, mean, server_cpu, client_cpu"),
        ({"rate": 9.0, "concurrency": 2}, "rate is 9 and concurrency 2: only one of them may be given"),
    ],
)
def test_settings(settings: dict, message: str) -> None:
    with pytest.raises(PerfError, match=message):
        Settings(**settings)


def test_options(repository: Path) -> None:
    text = f"{repository}:recommend_fused+coalescing+threads+ledger+without-metrics+traced=0.01"
    variant = parse_variant(text)
    assert (variant.coalescing, variant.client, variant.ledger) == (True, "threads", True)
    assert (variant.traced, variant.models) == (0.01, "without-metrics")
    assert variant.text == text
    assert variant.describe()["options"] == ["threads", "ledger", "without-metrics", "traced=0.01"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("grpc://localhost:1+traced=0.1", "must name a REPOSITORY"),
        ("grpc://localhost:1+without-ledger", "must name a REPOSITORY"),
        ("grpc://localhost:1+tritonclient+coalescing", "is plain tritonclient"),
        ("grpc://localhost:1+history=1.5", "has history=1.5, must be from 0 to 1"),
        ("grpc://localhost:1+exclude=1001", "has exclude=1001, must be from 0 to 1000"),
        ("grpc://localhost:1+threads+exclude=5", "only the asyncio client sends them"),
    ],
)
def test_options_that_do_not_fit(text: str, message: str) -> None:
    with pytest.raises(PerfError, match=message):
        parse_variant(text)


def test_what_requests_carry(repository: Path) -> None:
    variant = parse_variant(f"{repository}+exclude=100+history=0.5")
    assert (variant.history, variant.exclude) == (0.5, 100)
    assert variant.options() == ["history=0.5", "exclude=100"]


def test_a_share_that_is_none(repository: Path) -> None:
    with pytest.raises(PerfError, match="has traced=2, must be from 0 to 1"):
        parse_variant(f"{repository}+traced=2")


@pytest.mark.parametrize(
    ("preset", "a", "b"),
    [
        ("ledger-off", "+coalescing+without-ledger", "+coalescing+without-metrics"),
        ("ledger-on", "+coalescing", "+coalescing+ledger"),
        ("metrics", "+coalescing+without-metrics", "+coalescing"),
        ("compiled", "+coalescing+staged", "+coalescing"),
        ("tracing-0", "+coalescing", "+coalescing+traced=0"),
        ("tracing-1", "+coalescing", "+coalescing+traced=0.01"),
        ("tracing-100", "+coalescing", "+coalescing+traced=1"),
        ("client", "+tritonclient", "+coalescing"),
    ],
)
def test_a_preset_is_two_variants(repository: Path, preset: str, a: str, b: str) -> None:
    found = preset_variants(preset, parse_variant(f"{repository}+coalescing"))
    assert [variant.text for variant in found] == [f"{repository}{a}", f"{repository}{b}"]


def test_an_unknown_preset(repository: Path) -> None:
    with pytest.raises(
        PerfError, match="preset is 'tracing', allowed: ledger-off, ledger-on, metrics, compiled, tracing-0"
    ):
        preset_variants("tracing", parse_variant(str(repository)))


def test_the_help_names_every_preset() -> None:
    assert tuple(PRESETS) == NAMED


def test_another_checkout_serves_a_repository_as_it_is(repository: Path, tmp_path: Path) -> None:
    (repository / "recommend/1/manifest.json").write_text("of another format")
    variant = parse_variant(f"{repository}:recommend_fused", tmp_path)
    assert (variant.describe()["options"], variant.readable) == (["served by another checkout"], None)
    for text in ("grpc://localhost:1", f"{repository}+without-metrics"):
        with pytest.raises(PerfError, match="it must be a REPOSITORY as it is"):
            parse_variant(text, tmp_path)
    with pytest.raises(
        PerfError, match=r"^--checkout is .*, which has no \.venv/bin/trireme; allowed: a checkout after"
    ):
        serving_program(tmp_path, "--checkout")
