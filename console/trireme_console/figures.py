"""The numbers and sentences of the page, made from a ``Snapshot``, without a browser."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime
from enum import Enum

from trireme_client import Rung
from trireme_console.history import WINDOW_S, Snapshot, Span
from trireme_perf.ledger import StagePercentiles
from trireme_runtime.schema import STAGES

__all__ = [
    "ENOUGH_BATCHES",
    "Headline",
    "Level",
    "StageRow",
    "Tile",
    "clock",
    "headline",
    "milliseconds",
    "processes",
    "rung_word",
    "stage_rows",
    "tiles",
]

#: With fewer batches, the p99 is a single slow batch and allows no verdict.
ENOUGH_BATCHES = 20
#: Share of the users from which it is the headline that they did not get full answers, or got stale ones.
MUCH_CUT_SHORT = 0.01
#: Seconds. A reading fails after a few time limits of 5 s; if the snapshot is older than this, the console hangs.
STALE_S = 30.0

#: The large figures and their units, in the order of the page.
TILES = {
    "Throughput": "users/s",
    "Time on the server": "ms",
    "Waiting in queues": "ms",
    "Callers' p99": "ms",
    "Full answers": "%",
    "Failed": "",
}


class Level(Enum):
    """What a reader must do: nothing, act, or wait. The value is a class in the style sheet."""

    GOOD = "good"
    BAD = "bad"
    IDLE = "idle"


@dataclass(frozen=True)
class Headline:
    level: Level
    word: str
    text: str
    detail: str = ""


@dataclass(frozen=True)
class StageRow:
    """One stage against its budget, in µs; NaN where nothing was computed."""

    stage: str
    level: Level
    verdict: str
    batches: int = 0
    p50_us: float = math.nan
    p95_us: float = math.nan
    p99_us: float = math.nan
    budget_us: float | None = None
    usual_us: float | None = None


@dataclass(frozen=True)
class Tile:
    """A large figure with its unit, and one line below."""

    title: str
    value: str
    unit: str
    note: str
    level: Level = Level.IDLE


def milliseconds(us: float | None) -> str:
    """Returns ``us`` in ms with three digits at most, without the unit; a dash for None and NaN."""
    if us is None or math.isnan(us):
        return "–"
    ms = us / 1000
    return f"{ms:.2f}" if ms < 9.995 else f"{ms:.1f}" if ms < 99.95 else f"{ms:.0f}"


def clock(at: float) -> str:
    return datetime.fromtimestamp(at).strftime("%H:%M:%S")


def processes(snapshot: Snapshot) -> str:
    """Returns what is to be said of the server's processes; empty where nobody looks after them, or none has ended."""
    supervised = snapshot.supervised
    if supervised is None or (supervised.replicas == 1 and supervised.last_death is None):
        return ""
    replicas = f"{supervised.ready} of {supervised.replicas} replicas ready"
    if supervised.last_death is None:
        return replicas
    return f"{replicas} · {_counted(supervised.restarts, 'restart')}, the last process ended at {clock(supervised.last_death)}"


def rung_word(rung: Rung) -> str:
    return rung.name.lower().replace("_", " ")


def stage_rows(snapshot: Snapshot) -> list[StageRow]:
    """Returns a row per stage, in the order of a request, including stages that computed nothing."""
    found = {stage.stage: stage for stage in snapshot.window.stages} if snapshot.window else {}
    return [_stage_row(name, found.get(name), snapshot.usual_us.get(name)) for name in STAGES]


def headline(snapshot: Snapshot, now: float) -> Headline:
    """Returns the one sentence to be read from afar; ``now``: seconds since the epoch."""
    if snapshot.up is None:
        return Headline(Level.IDLE, "Starting", "Reading the server for the first time")
    if now - snapshot.at > STALE_S:
        return Headline(
            Level.BAD, "Stale", f"Nothing has been read since {clock(snapshot.at)}", "all figures are from that moment"
        )
    if not snapshot.up:
        text = f"No answer from the server since {clock(snapshot.since)}"
        return Headline(Level.BAD, "Down", text, f"asked again every second · {snapshot.reason}")
    if snapshot.window is None:
        return Headline(Level.IDLE, "Starting", "The server is up", "first figures in a second")
    return _trouble(snapshot, snapshot.window) or _calm(snapshot, snapshot.window)


def tiles(snapshot: Snapshot) -> list[Tile]:
    """Returns all tiles, always the same ones; a tile without a figure has a dash."""
    span = snapshot.window
    if span is None:
        return [Tile(title, "–", unit, "no figures") for title, unit in TILES.items()]
    ledger = span.ledger
    requests = ledger.requests if ledger else 0
    seconds = f"last {span.end - span.start:.0f} s"
    rate = f"{span.users_per_s:,.0f}" if span.users_per_s >= 10 else f"{span.users_per_s:.1f}"
    whole = milliseconds(ledger.end_to_end_us if ledger else None)
    failed = Level.BAD if span.failures else Level.GOOD if requests else Level.IDLE
    found = [
        (rate, f"{requests:,} requests, {seconds}", Level.IDLE),
        (whole, "mean per request, inside Triton", Level.IDLE),
        (milliseconds(span.queue_us), "mean per request, all models", Level.IDLE),
        _callers_figure(snapshot, span),
        _answers_figure(span),
        (f"{span.failures:,}", f"requests, {seconds}", failed),
    ]
    pairs = zip(TILES.items(), found, strict=True)
    return [Tile(title, value, unit, note, level) for (title, unit), (value, note, level) in pairs]


def _stage_row(name: str, found: StagePercentiles | None, usual_us: float | None) -> StageRow:
    if found is None:
        return StageRow(name, Level.IDLE, "no batch")
    level, verdict = _judge(found)
    return StageRow(
        name, level, verdict, found.batches, found.p50_us, found.p95_us, found.p99_us, found.budget_us, usual_us
    )


def _judge(stage: StagePercentiles) -> tuple[Level, str]:
    if stage.budget_us is None:
        return Level.IDLE, "no budget"
    if stage.batches < ENOUGH_BATCHES:
        return Level.IDLE, "too few batches to judge"
    return (Level.GOOD, "within budget") if stage.within_budget else (Level.BAD, "over budget")


def _trouble(snapshot: Snapshot, span: Span) -> Headline | None:
    over = sorted((row for row in stage_rows(snapshot) if row.level is Level.BAD), key=_excess, reverse=True)
    if over:
        worst, *others = over
        usual = f"; usual {milliseconds(worst.usual_us)} ms" if worst.usual_us is not None else ""
        text = f"{worst.stage} is over its budget: p99 {_of(worst.p99_us, worst.budget_us)}{usual}"
        also = ", ".join(f"{row.stage} {_of(row.p99_us, row.budget_us)}" for row in others)
        return Headline(
            Level.BAD, "Over budget", text, f"also over: {also}" if also else "all other stages are within theirs"
        )
    cared_for = snapshot.supervised
    if cared_for and cared_for.ready < cared_for.replicas:
        return Headline(
            Level.BAD, "Degraded", f"{cared_for.ready} of {cared_for.replicas} replicas are ready", processes(snapshot)
        )
    if cared_for and cared_for.last_death and cared_for.last_death >= span.start:
        text = f"A process of the server ended by itself at {clock(cared_for.last_death)}"
        return Headline(Level.BAD, "Healing", text, processes(snapshot))
    if span.failures:
        return Headline(
            Level.BAD, "Failing", f"{_counted(span.failures, 'request')} failed in the last {WINDOW_S:.0f} s"
        )
    if found := _incomplete(span):
        return found
    slo_us = _slo_us(snapshot)
    if slo_us and span.callers and span.callers.requests >= ENOUGH_BATCHES and span.callers.p99_us > slo_us:
        text = f"Callers wait too long: p99 {_of(span.callers.p99_us, slo_us)}"
        return Headline(
            Level.BAD, "Over the SLO", text, "no stage is over its budget: look at queues, network and callers"
        )
    return None


def _incomplete(span: Span) -> Headline | None:
    users, short = sum(span.rungs.values()), sum(span.cut_short.values())
    if users < ENOUGH_BATCHES:
        return None
    if short >= MUCH_CUT_SHORT * users:
        text = f"{short / users:.1%} of the users got no full answer: {', '.join(_cut_short(span))}"
        return Headline(
            Level.BAD, "Cut short", text, "there was no time for more (deadline), too much to do, or a fault"
        )
    if span.stale >= MUCH_CUT_SHORT * users:
        text = f"{span.stale / users:.1%} of the users got an answer without what they did lately"
        return Headline(Level.BAD, "Stale features", text, "the feature store could not be asked")
    return None


def _calm(snapshot: Snapshot, span: Span) -> Headline:
    rows = [row for row in stage_rows(snapshot) if row.batches]
    problems = " · ".join(snapshot.problems)
    if not rows:
        if span.ledger:
            return Headline(Level.IDLE, "Unknown", "Requests are answered, but no stage publishes its times", problems)
        return Headline(Level.IDLE, "Idle", f"The server is up; no request in the last {WINDOW_S:.0f} s", problems)
    if rows[0].budget_us is None:
        worst = max(rows, key=lambda row: row.p99_us)
        text = f"No budget in this bundle; the slowest stage is {worst.stage}: p99 {milliseconds(worst.p99_us)} ms"
        return Headline(Level.IDLE, "Not judged", text, problems)
    nearest = max(rows, key=_excess)
    if not all(row.level is Level.GOOD for row in rows):
        text = f"Few requests: fewer than {ENOUGH_BATCHES} batches in the last {WINDOW_S:.0f} s allow no verdict"
        return Headline(Level.IDLE, "Quiet", text, problems)
    detail = f"closest to its budget: {nearest.stage}, p99 {_of(nearest.p99_us, nearest.budget_us)}"
    return Headline(Level.GOOD, "All well", "All stages are within their budgets", problems or detail)


def _excess(row: StageRow) -> float:
    return row.p99_us / (row.budget_us or math.inf)


def _of(us: float, allowed_us: float | None) -> str:
    return f"{milliseconds(us)} ms of {milliseconds(allowed_us)} ms"


def _slo_us(snapshot: Snapshot) -> float | None:
    budget = snapshot.identity.budget if snapshot.identity else {}
    return 1000 * budget["p99_ms"] if budget else None


def _callers_figure(snapshot: Snapshot, span: Span) -> tuple[str, str, Level]:
    """Returns value, note and level of the tile of the callers' p99."""
    if span.callers is None:
        return "–", "nobody asked" if span.callers_read else "no --callers-url given", Level.IDLE
    slo_us = _slo_us(snapshot)
    kept = f" · {span.callers.kept:.1%} in the SLO" if span.callers.kept is not None else ""
    cached = f" · {span.callers.cached:.1%} kept answers" if span.callers.cached is not None else ""
    level = Level.IDLE
    if slo_us and span.callers.requests >= ENOUGH_BATCHES:
        level = Level.BAD if span.callers.p99_us > slo_us else Level.GOOD
    return milliseconds(span.callers.p99_us), f"p50 {milliseconds(span.callers.p50_us)} ms{kept}{cached}", level


def _answers_figure(span: Span) -> tuple[str, str, Level]:
    """Returns value, note and level of the tile of full answers."""
    if span.answers is None:
        return "–", "not published by this server", Level.IDLE
    users = sum(span.answers.values())
    if not users:
        return "–", "nobody asked", Level.IDLE
    share = 100 * span.rungs.get(0, 0.0) / users
    why = " · ".join([*_cut_short(span), *([f"stale features {span.stale / users:.1%}"] if span.stale else [])])
    return f"{share:.1f}" if share < 100 else "100", why or f"rung 0, of {users:,.0f} users", Level.IDLE


def _cut_short(span: Span) -> list[str]:
    """Returns what kept answers from being full, each with the share of the users."""
    users = sum(span.rungs.values())
    return [f"{reason} {count / users:.1%}" for reason, count in span.cut_short.items()]


def _counted(number: int, thing: str) -> str:
    return f"{number:,} {thing}{'' if number == 1 else 's'}"
