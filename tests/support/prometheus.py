"""Debian's real Prometheus on this project's own configuration and rules, with every duration a fixed factor shorter.

The windows of the rules are hours and days. A test has minutes; so a second of its time stands for ``factor`` seconds: in the
windows and offsets of expressions, in ``for``, and in the intervals. Nothing else is changed.
"""

from __future__ import annotations

import json
import re
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

CONFIGURATION = Path(__file__).parents[2] / "docker/prometheus"
UNITS_MS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
DURATION = r"(\d+)(ms|[smhd])"
STARTED_WITHIN_S = 60.0

#: Labels and value of a sample.
Sample = tuple[dict[str, str], float]


def shorter(duration: str, factor: float) -> str:
    """``5m`` → ``5s`` for a factor of 60."""
    match = re.fullmatch(DURATION, duration)
    assert match, duration
    return f"{max(1, round(int(match[1]) * UNITS_MS[match[2]] / factor))}ms"


def shorter_expression(expression: str, factor: float) -> str:
    """The same of every window ``[1d]`` and offset; names that end in a duration keep it."""
    within = rf"(?<=\[){DURATION}(?=\])|(?<=\boffset ){DURATION}\b"
    return re.sub(within, lambda match: shorter(match[0], factor), expression)


def write_configuration(folder: Path, factor: float, targets: dict[str, str]) -> Path:
    """A shorter copy in ``folder``, each job with the one target ``host:port``; the path of its prometheus.yml."""
    config = yaml.safe_load((CONFIGURATION / "prometheus.yml").read_text())
    config["global"] = {key: shorter(value, factor) for key, value in config["global"].items()}
    for job in config["scrape_configs"]:
        job["static_configs"] = [{"targets": [targets[job["job_name"]]]}]
    (folder / "rules").mkdir(parents=True)
    for file in (CONFIGURATION / "rules").glob("*.yml"):
        (folder / "rules" / file.name).write_text(
            yaml.safe_dump(_shorter_rules(yaml.safe_load(file.read_text()), factor))
        )
    path = folder / "prometheus.yml"
    path.write_text(yaml.safe_dump(config))
    return path


def _shorter_rules(rules: dict[str, Any], factor: float) -> dict[str, Any]:
    for group in rules["groups"]:
        group["interval"] = shorter(group["interval"], factor)
        for rule in group["rules"]:
            rule["expr"] = shorter_expression(rule["expr"], factor)
            if "for" in rule:
                rule["for"] = shorter(rule["for"], factor)
    return rules


class Prometheus:
    """A running Prometheus; use it in a ``with`` block."""

    def __init__(self, configuration: Path, factor: float) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            address = "{}:{}".format(*free.getsockname())
        self.url = f"http://{address}"
        self._log = configuration.with_suffix(".log")
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                [
                    *("prometheus", f"--config.file={configuration}", f"--web.listen-address={address}"),
                    f"--storage.tsdb.path={configuration.parent / 'data'}",
                    # Its default of five minutes is a duration like the others.
                    f"--query.lookback-delta={shorter('5m', factor)}",
                ],
                stderr=log,
            )

    def __enter__(self) -> Prometheus:
        deadline = time.monotonic() + STARTED_WITHIN_S
        while not self._is_ready():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.__exit__()
                raise AssertionError(f"Prometheus did not start: {self._log.read_text()}")
            time.sleep(0.1)
        return self

    def __exit__(self, *error: object) -> None:
        self._process.terminate()
        self._process.wait()

    def query(self, expression: str) -> list[Sample]:
        """What an instant query finds now."""
        found = self._get("query", query=expression)["result"]
        return [(sample["metric"], float(sample["value"][1])) for sample in found]

    def label_values(self, label: str, match: str) -> Sequence[str]:
        return self._get(f"label/{label}/values", **{"match[]": match})

    def rules(self) -> list[dict[str, Any]]:
        """Every rule with its health and, if there is one, its last error."""
        return [rule for group in self._get("rules")["groups"] for rule in group["rules"]]

    def _get(self, path: str, **parameters: str) -> Any:
        with urllib.request.urlopen(
            f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(parameters)}", timeout=30
        ) as answer:
            return json.load(answer)["data"]

    def _is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/-/ready", timeout=5):
                return True
        except (OSError, urllib.error.URLError):
            return False
