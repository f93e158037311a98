"""When the stages' metrics hold all that a server has computed: they are published a moment after a batch."""

from __future__ import annotations

import time

from trireme_perf.ledger.histograms import read_metrics
from trireme_runtime.triton.metrics import COMPUTE, PERIOD_S

WITHIN_S = 30.0
EVERY_S = 0.02
#: Batches that failed are never published, so a difference that lasts longer than the publisher's period is theirs.
LASTING_S = 1.5 * PERIOD_S


def wait_until_published(metrics_url: str) -> None:
    """Returns once every stage has counted as many batches as Triton has of its model, apart from those that failed."""
    missing, since = _missing(metrics_url), time.monotonic()
    deadline = since + WITHIN_S
    while any(missing.values()) and time.monotonic() < since + LASTING_S:
        assert time.monotonic() < deadline, f"not all batches were published within {WITHIN_S:g} s"
        time.sleep(EVERY_S)
        before, missing = missing, _missing(metrics_url)
        if missing != before:
            since = time.monotonic()


def _missing(metrics_url: str) -> dict[tuple[str, str], float]:
    """Batches that Triton has counted and the stage has not, by model and stage."""
    samples = {family.name: family.samples for family in read_metrics(metrics_url)}
    executed = {each.labels["model"]: each.value for each in samples["nv_inference_exec_count"]}
    stages = samples[f"{COMPUTE}_count"]
    assert stages, "no stage has published anything"
    return {
        (each.labels["model"], each.labels["stage"]): executed[each.labels["model"]] - each.value for each in stages
    }
