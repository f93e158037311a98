"""Takes the pictures of the console and of the terminal: ``make pictures``.

Needs the repository of ``make demo`` (build/model_repository) and Debian's chromium. What is shown is served, asked and measured
while the pictures are taken; the slow stage of one of them is slowed on purpose, by tests/support/slow_stage.py.
"""

from __future__ import annotations

import json
import os
import random
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Page, expect, sync_playwright
from rich.console import Console
from rich.text import Text
from tests.support.slow_stage import SlowStage

from trireme_client import Client
from trireme_server import TritonServer

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
REPOSITORY = ROOT / "build" / "model_repository"
MODEL = "recommend_fused"
TRIREME = [sys.executable, "-m", "trireme_cli"]
CALLERS = 4
#: Users per second and caller, Poisson: moderate for two shared cores.
RATE = 12.0
#: How long the load runs before the first picture, and for how long a stage is slow before the second. Seconds.
CALM_S, SLOW_S = 55.0, 15.0
#: On a machine that is busy otherwise, some stage is over its budget all the time: then there is no picture.
CALM_WITHIN_S = 120.0
SLOW_MS = 6.0
COLUMNS = 100


def main() -> None:
    if not (REPOSITORY / "perf_input.json").is_file():
        raise SystemExit(f"{REPOSITORY} is not there: run `make demo` first")
    # Beside the repository: its copy is made of links.
    with tempfile.TemporaryDirectory(dir=REPOSITORY.parent) as folder:
        slow = SlowStage(REPOSITORY, Path(folder) / "repository")
        with TritonServer(slow.repository, grpc_port=0, http_port=0, metrics_port=0) as server:
            take(server, slow, users())


def users() -> list[int]:
    """Known users, and one in ten of whom nothing is known."""
    rows = json.loads((REPOSITORY / "perf_input.json").read_text())["data"]
    known = sorted({row["user_id"][0] for row in rows} - {-1})
    return known + [10**12 + number for number in range(len(known) // 10 + 1)]


def take(server: TritonServer, slow: SlowStage, asking: list[int]) -> None:
    with console(server) as address, load(server.grpc_url, asking), browser_page() as page:
        time.sleep(CALM_S)
        page.goto(address)  # not before: painting it takes from the server, which has the same cores
        headline = page.locator(".headline")
        try:
            expect(headline).to_contain_text("All stages are within their budgets", timeout=CALM_WITHIN_S * 1000)
        except AssertionError:
            raise SystemExit(f"too busy a machine for a calm picture: {headline.inner_text()!r}") from None
        page.fill("input[name=user]", str(asking[0]))
        page.keyboard.press("Enter")
        expect(page.locator(".item")).to_have_count(10, timeout=30_000)
        page.mouse.click(0, 0)
        page.screenshot(path=DOCS / "console.png")
        measured = ["--metrics-url", server.metrics_url, "--seconds", "5"]
        shown = "trireme ledger --model recommend_fused --metrics-url http://localhost:8002/metrics --seconds 5"
        picture("ledger", shown, "ledger", *where(server), *measured)
        slow.set("retrieval", ms=SLOW_MS)
        time.sleep(SLOW_S)
        expect(headline).to_contain_text("retrieval is over its budget", timeout=30_000)
        page.screenshot(path=DOCS / "console-slow-stage.png")
        slow.clear()
    call = ["--model", MODEL, "--user", str(asking[0]), "-k", "5", "--ledger"]
    picture("recommend", shlex.join(["trireme", "recommend", *call]), "recommend", "--url", server.grpc_url, *call)


def where(server: TritonServer) -> list[str]:
    return ["--url", server.grpc_url, "--model", MODEL]


@contextmanager
def console(server: TritonServer) -> Iterator[str]:
    """The console of ``server``; gives the address of its page."""
    command = [*TRIREME, "console", *where(server), "--metrics-url", server.metrics_url, "--port", "0", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield json.loads(process.stdout.readline())["url"]
        finally:
            process.send_signal(signal.SIGINT)


@contextmanager
def browser_page() -> Iterator[Page]:
    """A page of the size of a wall's screen."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        yield browser.new_page(viewport={"width": 1920, "height": 1080})
        browser.close()


@contextmanager
def load(url: str, asking: list[int]) -> Iterator[None]:
    """Callers that ask for anybody, each at moments of its own."""
    ended = threading.Event()

    def ask(seed: int) -> None:
        chance = random.Random(seed)
        with Client(url, model=MODEL) as client:
            while not ended.wait(chance.expovariate(RATE)):
                client.recommend(chance.choice(asking))

    with ThreadPoolExecutor(CALLERS) as pool:
        calls = [pool.submit(ask, seed) for seed in range(CALLERS)]
        try:
            yield
        finally:
            ended.set()
    for call in calls:
        call.result()


def picture(name: str, shown: str, *arguments: str) -> None:
    """What a command prints, as an SVG. ``shown`` is its title: the command at the default ports."""
    environment = {**os.environ, "FORCE_COLOR": "1", "COLUMNS": str(COLUMNS)}
    said = subprocess.run([*TRIREME, *arguments], stdout=subprocess.PIPE, text=True, check=True, env=environment).stdout
    with Path(os.devnull).open("w") as nowhere:
        terminal = Console(record=True, width=COLUMNS, file=nowhere)
        terminal.print(Text.from_ansi(said.rstrip()))
    svg = terminal.export_svg(title=shown, unique_id=name)
    # Rich has the fonts fetched from elsewhere; any monospaced one will do.
    (DOCS / f"{name}.svg").write_text(re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL))


if __name__ == "__main__":
    main()
