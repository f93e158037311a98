"""Takes the pictures of the console and of the terminal for docs/: ``make pictures``.

Needs the repository of ``make demo`` (build/model_repository) and Debian's chromium. The pictures show a server under load;
for one of them, trireme_perf/slow_stage.py slows a stage down on purpose.
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

from trireme_client import Client
from trireme_perf.slow_stage import SlowStage
from trireme_server import TritonServer

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
REPOSITORY = ROOT / "build" / "model_repository"
MODEL = "recommend_fused"
TRIREME = [sys.executable, "-m", "trireme_cli"]
CALLERS = 4
#: Users per second and caller, Poisson: a moderate load for two shared cores.
RATE = 12.0
#: Seconds of load before the first picture, and of a slow stage before the second.
CALM_S, SLOW_S = 55.0, 15.0
#: Seconds to wait for all stages to be within their budgets; on a machine that is busy otherwise, some never are.
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
    """Returns the known users, and one unknown user for every ten of them."""
    rows = json.loads((REPOSITORY / "perf_input.json").read_text())["data"]
    known = sorted({row["user_id"][0] for row in rows} - {-1})
    return known + [10**12 + number for number in range(len(known) // 10 + 1)]


def take(server: TritonServer, slow: SlowStage, asking: list[int]) -> None:
    with console(server) as address, load(server.grpc_url, asking), browser_page() as page:
        time.sleep(CALM_S)
        page.goto(address)  # not before: painting the page takes CPU time from the server on the same cores
        headline = page.locator(".headline")
        try:
            expect(headline).to_contain_text("All stages are within their budgets", timeout=CALM_WITHIN_S * 1000)
        except AssertionError:
            raise SystemExit(f"the machine is too busy for a calm picture: {headline.inner_text()!r}") from None
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
    """Runs the console of ``server``; yields the address of its page."""
    command = [*TRIREME, "console", *where(server), "--metrics-url", server.metrics_url, "--port", "0", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield json.loads(process.stdout.readline())["url"]
        finally:
            process.send_signal(signal.SIGINT)


@contextmanager
def browser_page() -> Iterator[Page]:
    """Yields a page of the size of a wall screen."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        yield browser.new_page(viewport={"width": 1920, "height": 1080})
        browser.close()


@contextmanager
def load(url: str, asking: list[int]) -> Iterator[None]:
    """Runs callers that ask for random users, each at its own random moments."""
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
    """Writes what a command prints as an SVG; its title ``shown`` is the command at the default ports."""
    environment = {**os.environ, "FORCE_COLOR": "1", "COLUMNS": str(COLUMNS)}
    printed = subprocess.run(
        [*TRIREME, *arguments], stdout=subprocess.PIPE, text=True, check=True, env=environment
    ).stdout
    with Path(os.devnull).open("w") as nowhere:
        terminal = Console(record=True, width=COLUMNS, file=nowhere)
        terminal.print(Text.from_ansi(printed.rstrip()))
    svg = terminal.export_svg(title=shown, unique_id=name)
    # Without the fonts that Rich would fetch from elsewhere; any monospaced one will do.
    (DOCS / f"{name}.svg").write_text(re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL))


if __name__ == "__main__":
    main()
