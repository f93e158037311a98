"""The console on a real tritonserver, in a real browser."""

from __future__ import annotations

import dataclasses
import json
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Event
from urllib.parse import urlsplit

import pytest
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.metrics import Histogram
from opentelemetry.sdk.metrics import MeterProvider
from playwright.sync_api import Browser, Page, expect, sync_playwright
from prometheus_client import CollectorRegistry, start_http_server

from tests.e2e.conftest import PIPELINE, Served
from tests.support.serving import served_briefly
from trireme_client import Client, TriremeError
from trireme_export.config import BudgetConfig
from trireme_export.pipeline import export_bundle
from trireme_perf.slow_stage import SlowStage
from trireme_runtime.schema import STAGES
from trireme_server import TritonServer

CONSOLE = [sys.executable, "-m", "trireme_cli", "console"]
WAIT_MS = 60_000
#: Retrieval may take 250 ms: far more than it does on the slowest machine, and less than it is slowed by.
BUDGET = BudgetConfig(p50_ms=1000, p99_ms=1000)
SLOW_MS = 350.0


@contextmanager
def console(server: TritonServer, model: str, *more: str) -> Iterator[str]:
    """The command, as a user starts it; gives the address of its page."""
    options = ["--url", server.grpc_url, "--metrics-url", server.metrics_url, "--model", model, "--port", "0", "--json"]
    with subprocess.Popen(
        [*CONSOLE, *options, *more], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            yield json.loads(process.stdout.readline())["url"]
        finally:
            process.send_signal(signal.SIGINT)
            told = process.stderr.read()
        assert "Traceback" not in told, told


@contextmanager
def load(url: str, model: str, users: list[int]) -> Iterator[None]:
    """Somebody asks all the time, and goes on asking when the server is gone."""
    ended = Event()

    def ask() -> None:
        with Client(url, model=model) as client:
            while not ended.wait(0.02):
                for user in users:
                    try:
                        client.recommend(user)
                    except TriremeError:
                        break

    with ThreadPoolExecutor(1) as pool:
        asking: Future[None] = pool.submit(ask)
        try:
            yield
        finally:
            ended.set()
        asking.result()


@dataclass
class Looked:
    """A page, all that it asked for, and what went wrong in it."""

    page: Page
    requested: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def text(self, selector: str) -> str:
        return self.page.locator(selector).inner_text()

    def ask(self, user: str, history: str = "") -> None:
        self.page.fill("input[name=user]", user)
        self.page.fill("input[name=history]", history)
        self.page.get_by_role("button", name="Recommend").click()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture(scope="module")
def look(browser: Browser) -> Callable[[str], Looked]:
    def open_page(address: str) -> Looked:
        page = browser.new_page(viewport={"width": 1920, "height": 1080})
        looked = Looked(page)
        page.on("request", lambda request: looked.requested.append(request.url))
        page.on("websocket", lambda socket: looked.requested.append(socket.url))
        page.on("pageerror", lambda error: looked.errors.append(str(error)))
        page.on("console", lambda said: looked.errors.append(said.text) if said.type == "error" else None)
        page.goto(address)
        page.wait_for_selector(".headline")
        return looked

    return open_page


@dataclass(frozen=True)
class Caller:
    """A process that calls and publishes how long it waits, as a client with telemetry does: this one."""

    url: str
    duration: Histogram


@pytest.fixture(scope="module")
def caller() -> Iterator[Caller]:
    registry = CollectorRegistry()
    meters = MeterProvider([PrometheusMetricReader(registry=registry)])
    server, thread = start_http_server(0, "127.0.0.1", registry)
    histogram = meters.get_meter("trireme").create_histogram("trireme.client.request.duration", unit="s")
    yield Caller(f"http://127.0.0.1:{server.server_port}/metrics", histogram)
    server.shutdown()
    server.server_close()
    thread.join()
    meters.shutdown()


@pytest.fixture(scope="module")
def fused(served: Served, caller: Caller, look: Callable[[str], Looked]) -> Iterator[Looked]:
    with console(served.server, "recommend_fused", "--callers-url", caller.url) as address:
        yield look(address)


def test_the_page_shows_what_the_client_gets(served: Served, fused: Looked) -> None:
    user = int(served.dataset.test.user_id[0])
    with Client(served.url, model="recommend_fused") as client:
        answer = client.recommend(user)
    fused.ask(str(user))
    expect(fused.page.locator(".about")).to_contain_text(f"user {user} · rung 0 (full)", timeout=WAIT_MS)
    assert fused.page.locator(".item-id").all_inner_texts() == [str(item.item_id) for item in answer]
    assert fused.page.locator(".score").all_inner_texts() == [f"{item.score:.3f}" for item in answer]


def test_a_history_and_nobody_at_all(served: Served, fused: Looked) -> None:
    items = served.dataset.item_ids[:3].tolist()
    with Client(served.url, model="recommend_fused") as client:
        answer = client.recommend(history=items)
    fused.ask("anonymous", ", ".join(map(str, items)))
    expect(fused.page.locator(".about")).to_contain_text("anonymous · rung 0 (full)", timeout=WAIT_MS)
    assert fused.page.locator(".item-id").all_inner_texts() == [str(item.item_id) for item in answer]
    fused.ask("")
    expect(fused.page.locator(".about")).to_contain_text("anonymous · rung 3 (popular)", timeout=WAIT_MS)


def test_the_waterfall_adds_up(served: Served, fused: Looked) -> None:
    fused.ask(str(int(served.dataset.test.user_id[1])))
    expect(fused.page.locator(".part-name", has_text="reranking")).to_have_count(1, timeout=WAIT_MS)
    # In one step: the answer is kept live.
    total, parts = fused.page.evaluate(
        """() => [document.querySelector(".waterfall-us").innerText,
                  [...document.querySelectorAll(".depth-0")].map(part => part.querySelector(".part-us").innerText)]"""
    )
    figures = [int(text.replace(",", "")) for text in parts]
    assert len(figures) >= 5
    assert abs(sum(figures) - int(total.replace(",", ""))) <= len(figures)  # each is rounded to 1 µs
    assert [name for name in fused.page.locator(".depth-2 .part-name").all_inner_texts() if name in STAGES] == [*STAGES]


def test_what_is_typed_in_wrong_is_said_in_a_line(fused: Looked) -> None:
    fused.ask("12a")
    expect(fused.page.locator(".about.bad")).to_have_text(
        "user is '12a'; allowed: a user id ≥ 0, or anonymous", timeout=WAIT_MS
    )
    assert fused.page.locator(".item").count() == 0


def test_the_header_says_who_answers(served: Served, fused: Looked) -> None:
    said = fused.text(".identity")
    for part in (served.url, "recommend_fused, plan fused", "bundle 1", "SLO p50 10 ms, p99 20 ms", "triton 2."):
        assert part in said
    assert fused.page.locator(".plot canvas").count() == 4


def test_callers_tell_what_they_wait(served: Served, fused: Looked, caller: Caller) -> None:
    tile = fused.page.locator(".tile", has_text="Callers' p99")
    expect(tile.locator(".tile-value")).to_have_text("–")
    user = int(served.dataset.test.user_id[0])
    with Client(served.url, model="recommend_fused") as client:
        start = time.monotonic()
        client.recommend(user)
        seconds = time.monotonic() - start
    caller.duration.record(seconds, {"trireme_model": "recommend_fused", "trireme_slo": "kept"})
    expect(tile.locator(".tile-value")).to_have_text(re.compile(r"\d"), timeout=WAIT_MS)
    expect(tile.locator(".tile-note")).to_contain_text("100.0% in the SLO")
    full = fused.page.locator(".tile", has_text="Full answers").locator(".tile-value")
    expect(full).to_have_text(re.compile(r"\d"), timeout=WAIT_MS)


def test_nothing_leaves_this_machine_and_nothing_goes_wrong(fused: Looked) -> None:
    assert any(url.startswith("ws://") for url in fused.requested)
    assert {urlsplit(url).hostname for url in fused.requested} == {"127.0.0.1"}
    assert fused.errors == []


def test_a_name_that_was_made_to_point_here_is_refused(fused: Looked) -> None:
    request = urllib.request.Request(fused.page.url, headers={"Host": "rebound.example"})
    with pytest.raises(urllib.error.HTTPError, match="400"):
        urllib.request.urlopen(request)


def test_a_phone_needs_no_scrolling_to_the_side(fused: Looked) -> None:
    fused.page.set_viewport_size({"width": 390, "height": 844})
    # Figures of a server in trouble are as long as this.
    script = """() => {
        for (const value of document.querySelectorAll('.tile-value')) value.textContent = '12,345.67';
        return document.documentElement.scrollWidth;
    }"""
    wide = fused.page.evaluate(script)
    fused.page.set_viewport_size({"width": 1920, "height": 1080})
    assert wide == 390


#: Texts as long as those of a server in trouble, by the class of their elements.
LONGEST = {
    "tile-value": "123,456",
    "tile-note": "p50 123 ms · 100.0% in the SLO, 1,234,567 requests",
    "stage-p99": "p99 12,345",
    "stage-budget": "of 12,345 ms",
    "verdict": "▲ too few batches to judge",
    "stage-rest": "usual p99 12,345 · p95 12,345 · p50 12,345 · 123,456 batches",
    "waterfall-note": "µs · batch of 1,024 · the server's parts: its own",
    "about": "user 9223372036854775807 · rung 1 (retrieval order): the scores of the ranker were not usable",
}


@pytest.mark.parametrize("width", [1920, 1600, 1280, 800, 390])
def test_texts_stay_within_their_cards(served: Served, fused: Looked, width: int) -> None:
    fused.page.set_viewport_size({"width": width, "height": 1080})
    fused.ask(str(int(served.dataset.test.user_id[0])))
    expect(fused.page.locator(".part-name", has_text="reranking")).to_have_count(1, timeout=WAIT_MS)
    # In one step: the page goes on writing its own texts.
    script = """longest => {
        for (const [name, text] of Object.entries(longest))
            for (const element of document.querySelectorAll('.' + name))
                (element.querySelector('.q-label, div') ?? element).textContent = text;
        const outside = [];
        for (const card of document.querySelectorAll('.panel, .tile, .headline'))
            for (const element of card.querySelectorAll('*')) {
                if (element.closest('.plot') || element.children.length || !element.textContent.trim()) continue;
                const range = document.createRange();
                range.selectNodeContents(element);
                const clipped = getComputedStyle(element).overflow === 'hidden';
                const [inner, outer] = [clipped ? element : range, card].map(each => each.getBoundingClientRect());
                const below = !card.closest('.question') && inner.bottom > outer.bottom + 1;  // which scrolls
                if (below || inner.right > outer.right + 1) outside.push(element.className + ': ' + element.textContent);
            }
        return outside;
    }"""
    outside = fused.page.evaluate(script, LONGEST)
    fused.page.set_viewport_size({"width": 1920, "height": 1080})
    assert outside == []


@dataclass(frozen=True)
class Slowable:
    stages: SlowStage
    ports: dict[str, int]
    server: TritonServer


@pytest.fixture(scope="module")
def slowable(served: Served, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slowable]:
    """A server that can be made slow and that comes back on its own ports."""
    folder = tmp_path_factory.mktemp("slowable")
    config = PIPELINE.model_copy(update={"budget": BUDGET})
    export_bundle(dataclasses.replace(served.checkpoint, config=config), folder / "original", "fused")
    stages = SlowStage(folder / "original", folder / "repository", publish_s=0.2)
    with served_briefly(stages.repository) as server:
        urls = {
            "grpc_port": f"http://{server.grpc_url}",
            "http_port": server.http_url,
            "metrics_port": server.metrics_url,
        }
        ports = {name: urlsplit(url).port or 0 for name, url in urls.items()}
        yield Slowable(stages, ports, server)


def test_a_slow_stage_is_named_and_a_server_that_is_gone_comes_back(
    served: Served, slowable: Slowable, look: Callable[[str], Looked]
) -> None:
    server = slowable.server
    users = served.dataset.test.user_id[:5].tolist()
    with console(server, "recommend") as address, load(server.grpc_url, "recommend", users):
        looked = look(address)
        headline = looked.page.locator(".headline")
        expect(headline).to_contain_text("All stages are within their budgets", timeout=WAIT_MS)
        rows = looked.page.locator(".stage.good")
        expect(rows).to_have_count(len(STAGES), timeout=WAIT_MS)

        slowable.stages.set("retrieval", ms=SLOW_MS)
        expect(headline).to_contain_text("retrieval is over its budget: p99", timeout=WAIT_MS)
        expect(headline).to_contain_text("ms of 250 ms")
        expect(looked.page.locator(".stage.bad .stage-name")).to_have_text(["retrieval"])
        expect(looked.page.locator(".stage.bad .verdict")).to_contain_text("over budget")
        slowable.stages.clear()

        server.stop()
        expect(headline).to_contain_text(re.compile(r"No answer from the server since \d\d:\d\d:\d\d"), timeout=WAIT_MS)
        looked.ask(str(users[0]))
        expect(looked.page.locator(".about.bad")).to_contain_text(server.grpc_url, timeout=WAIT_MS)

        with TritonServer(slowable.stages.repository, **slowable.ports, stop_grace_s=0.0):
            expect(headline).to_contain_text("All stages are within their budgets", timeout=WAIT_MS)
            expect(looked.page.locator(".item-id")).to_have_count(10, timeout=WAIT_MS)
        assert looked.errors == []


def test_an_address_that_is_taken_is_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = subprocess.run([*CONSOLE, "--port", str(port)], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1
    (said,) = done.stderr.splitlines()
    assert said.startswith(
        f"error: console cannot listen on host '127.0.0.1', port {port}: [Errno 98] Address already in use"
    )
