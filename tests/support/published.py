"""When the stages' metrics hold all that a server has computed: they are published a moment after a batch."""

from __future__ import annotations

import time

from trireme_perf.ledger.histograms import read_metrics
from trireme_runtime.triton.metrics import COMPUTE

WITHIN_S = 30.0
EVERY_S = 0.02


def wait_until_published(metrics_url: str) -> None:
    """Returns once every stage has counted as many batches as Triton has of its model."""
    deadline = time.monotonic() + WITHIN_S
    while not _is_published(metrics_url):
        assert time.monotonic() < deadline, f"not all batches were published within {WITHIN_S:g} s"
        time.sleep(EVERY_S)


def _is_published(metrics_url: str) -> bool:
    samples = {family.name: family.samples for family in read_metrics(metrics_url)}
    executed = {each.labels["model"]: each.value for each in samples["nv_inference_exec_count"]}
    stages = samples[f"{COMPUTE}_count"]
    return bool(stages) and all(each.value == executed[each.labels["model"]] for each in stages)
