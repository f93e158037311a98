"""Made-up metrics of a server and its callers, minute by minute, and what the alerts make of them by `promtool test rules`."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from itertools import accumulate
from pathlib import Path

import yaml

from trireme_runtime.schema import FUSED, STAGES
from trireme_runtime.triton.metrics import ANSWERS, BUCKETS_S, COMPUTE

RULES = Path(__file__).parents[2] / "docker/prometheus/rules"
REQUESTS = "trireme_client_request_duration_seconds_count"
INSTANCE, SUPERVISOR, INGEST, CALLER = "here:8002", "here:8003", "here:8004", "caller:9464"

#: What tells one firing alert from another; `severity` is a contract of the rule files, not of a scenario.
LABELS = "alertname, instance, model, stage, entry, rung, trireme_model"

#: A series in the notation of Prometheus, and its value at every minute.
Series = Mapping[str, Sequence[float]]


def name(metric: str, **labels: str) -> str:
    inside = ",".join(f'{key}="{value}"' for key, value in labels.items())
    return f"{metric}{{{inside}}}"


def counter(per_minute: Sequence[float]) -> list[float]:
    """The values of a counter that grew by so much in each minute."""
    return list(accumulate(per_minute))


def stage(
    stage: str, seconds: Sequence[float], batches: float = 600, model: str = FUSED, instance: str = INSTANCE
) -> dict[str, list[float]]:
    """The histogram of a stage whose batches all take the same ``seconds``, each minute other ones."""
    labels = {"instance": instance, "model": model, "stage": stage}
    bounds = {f"{bound:g}".replace("inf", "+Inf"): bound for bound in BUCKETS_S}
    found = {
        name(f"{COMPUTE}_bucket", **labels, le=le): counter([batches * (spent <= bound) for spent in seconds])
        for le, bound in bounds.items()
    }
    found[name(f"{COMPUTE}_count", **labels)] = found[name(f"{COMPUTE}_bucket", **labels, le="+Inf")]
    found[name(f"{COMPUTE}_sum", **labels)] = counter([batches * spent for spent in seconds])
    return found


def healthy(minutes: int) -> dict[str, list[float]]:
    """A server of the fused plan and one caller; every stage takes 1 ms, every 200th request misses the SLO."""
    found: dict[str, list[float]] = {name("up", job="trireme", instance=INSTANCE): [1.0] * minutes}
    for each in STAGES:
        found |= stage(each, [0.001] * minutes)
        found[name("trireme_stage_budget_seconds", instance=INSTANCE, model=FUSED, stage=each, quantile="0.99")] = [
            0.004
        ] * minutes
    found |= supervisor(ready=[1] * minutes, restarted=[0] * minutes)
    found |= ingest(up=[1] * minutes, lag_s=[0] * minutes, applied=[600] * minutes)
    found |= server(nv_inference_request_success=[600] * minutes, nv_inference_request_failure=[0] * minutes)
    found |= answers(rung0=[590] * minutes, rung1=[0] * minutes, rung2=[5] * minutes, rung3=[5] * minutes)
    found |= caches(deaf=[0] * minutes)
    return found | callers([600] * minutes, [3] * minutes)


def supervisor(ready: Sequence[float], restarted: Sequence[float], replicas: int = 1) -> dict[str, list[float]]:
    """What `trireme serve` counts: the replicas that are ready at each minute, and the restarts in it."""
    labels = {"job": "supervisor", "instance": SUPERVISOR}
    return {
        name("trireme_replicas", **labels): [replicas] * len(ready),
        name("trireme_replicas_ready", **labels): list(ready),
        name("trireme_restarts_total", **labels, what="tritonserver", model=""): counter(restarted),
        name("trireme_restarts_total", **labels, what="instance", model=FUSED): [0.0] * len(ready),
    }


def ingest(up: Sequence[float], lag_s: Sequence[float], **events: Sequence[float]) -> dict[str, list[float]]:
    """What a consumer of events says: whether it answers and its lag at each minute, and the events in it by outcome."""
    labels = {"job": "ingest", "instance": INGEST}
    return {
        name("up", **labels): list(up),
        name("trireme_ingest_lag_seconds", **labels): list(lag_s),
        **{
            name("trireme_ingest_events_total", **labels, outcome=outcome): counter(each)
            for outcome, each in events.items()
        },
    }


def server(**per_minute: Sequence[float]) -> dict[str, list[float]]:
    """Triton's own counters of the fused plan."""
    return {
        name(metric, instance=INSTANCE, model=FUSED, version="1"): counter(grown)
        for metric, grown in per_minute.items()
    }


USUAL = ("none", "fault", "nothing_known", "nothing_known")


def answers(**rungs: Sequence[float]) -> dict[str, list[float]]:
    """Users of each minute by rung, written ``rung0`` to ``rung3``, or ``rung2_fault`` for a reason that is not the usual one."""
    return {
        name(ANSWERS, instance=INSTANCE, model=FUSED, rung=rung[4], reason=rung[6:] or USUAL[int(rung[4])]): counter(
            users
        )
        for rung, users in rungs.items()
    }


def callers(requests: Sequence[float], missed: Sequence[float], model: str = FUSED) -> dict[str, list[float]]:
    """What one caller counts of the requests of each minute, and of those that miss the SLO."""
    labels = {"job": "callers", "instance": CALLER, "trireme_model": model}
    kept = [all_ - out for all_, out in zip(requests, missed, strict=True)]
    return {
        name(REQUESTS, **labels, trireme_slo="kept"): counter(kept),
        name(REQUESTS, **labels, trireme_slo="missed"): counter(missed),
    }


def caches(deaf: Sequence[float], model: str = FUSED) -> dict[str, list[float]]:
    """What one caller says of its ten clients that keep answers: how many cannot hear Redis at each minute."""
    labels = {"job": "callers", "instance": CALLER, "trireme_model": model}
    metric = "trireme_client_cache_clients"
    return {
        name(metric, **labels, trireme_cache_state="deaf"): list(deaf),
        name(metric, **labels, trireme_cache_state="keeps"): [10 - out for out in deaf],
    }


def alert(alertname: str, **labels: str) -> str:
    """A firing alert, told by what sets it apart."""
    return name("", alertname=alertname, **labels)


def check_alerts(folder: Path, series: Series, firing: Mapping[int, Sequence[str]]) -> None:
    """Fails unless exactly the given alerts fire at the given minutes."""
    tests = [
        {
            "expr": f'count by ({LABELS}) (ALERTS{{alertstate="firing"}})',
            "eval_time": f"{minute}m",
            "exp_samples": [{"labels": each, "value": 1} for each in alerts],
        }
        for minute, alerts in firing.items()
    ]
    written = [
        {"series": each, "values": " ".join(f"{value:.6f}" for value in values)} for each, values in series.items()
    ]
    scenario = {
        "rule_files": [str(file) for file in sorted(RULES.glob("*.yml"))],
        "evaluation_interval": "30s",
        "tests": [{"interval": "1m", "input_series": written, "promql_expr_test": tests}],
    }
    file = folder / "scenario.yml"
    file.write_text(yaml.safe_dump(scenario))
    done = subprocess.run(["promtool", "test", "rules", str(file)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
