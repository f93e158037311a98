"""From the documents of the commands to the tables of docs/benchmarks.md; nothing is typed in by hand."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from docs.measured.runs import PRESETS, RUNS

__all__ = ["ABOUT", "parts"]

ABOUT: Final = [
    "Figures of one commit on one machine, each with the commands that printed it. They come from a small machine: compare "
    "figures within a table, not between tables, and measure on your own machine with `make bench`.",
    "The tables are made from the documents of the commands in [benchmarks.json](benchmarks.json), which `make benchmarks` "
    "measures anew. Ranges in brackets are the least and the most of all rounds, unless a note says otherwise.",
]
#: Figures of the contestants: headings, keys, digits.
GOODPUT = {
    "goodput, users/s": ("goodput", 0),
    "p50, ms": ("p50_ms", 1),
    "p99, ms": ("p99_ms", 1),
    "server CPU, µs per user": ("cpu_us_per_user", 0),
    "of the limit (η)": ("eta", 2),
}
MIB = 2**20
Documents = Mapping[str, Any]
Row = list[str]


def parts(documents: Documents, origin: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Returns all parts of the page.

    Args:
        documents: by the name of the run.
        origin: ``{"published": {"date", "commit"}, "machine"}``.
    """
    return [
        {"title": title, "about": about, "benchmarks": [{**one, **origin} for one in benchmarks]}
        for title, about, benchmarks in (
            ("Goodput", [GOODPUT_ABOUT], _goodput(documents)),
            ("Capacity", [CAPACITY_ABOUT], _capacity(documents)),
            ("What watching and calling cost", [COST_ABOUT], _cost(documents)),
        )
    ]


GOODPUT_ABOUT = (
    "Goodput is the highest open-loop Poisson rate at which every request is answered and p99 stays within the SLO "
    "([measure/goodput.md](measure/goodput.md)). The server has one core and the load generator the other; cold mix of real "
    "users; the answers of all contestants were compared first."
)
CAPACITY_ABOUT = (
    "What the bare computation, a larger catalogue and more instances cost "
    "([measure/capacity.md](measure/capacity.md))."
)
COST_ABOUT = (
    "CPU time per user with one thing over without it. Both sides of a ratio are from the same seconds "
    "([measure/ab.md](measure/ab.md))."
)


def _benchmark(
    title: str, runs: Iterable[str], columns: Sequence[str], rows: list[Row], notes: list[str], **more: Any
) -> dict[str, Any]:
    commands = [RUNS[name].shown for name in runs]
    return {"title": title, "commands": commands, "columns": list(columns), "rows": rows, "notes": notes, **more}


def _goodput(documents: Documents) -> list[dict[str, Any]]:
    retail, million = documents["goodput"], {slo: documents[f"goodput-million-{slo}"] for slo in (20, 100)}
    picture = {"file": "goodput.png", "shows": "goodput of all contestants, with the intervals over rounds"}
    names = list(dict.fromkeys(name for one in million.values() for name in one["contestants"]))
    made = ("million-checkpoint", "million-export", "goodput-million-20", "goodput-million-100")
    return [
        _benchmark(
            "Like for like, Online Retail II, p99 ≤ 20 ms",
            ["goodput"],
            ("Trireme, users/s", "FastAPI, users/s", "ratio (least–most)"),
            _pairs(retail),
            [
                "First one user per request on both sides, then coalescing callers on both sides, with packed arrays over HTTP. "
                "Each ratio is the median of those of the rounds."
            ],
        ),
        _benchmark(
            "Online Retail II, p99 ≤ 20 ms",
            ["goodput"],
            list(GOODPUT),
            [*_contestants(retail), _limit(retail)],
            [*_conditions(retail), *_tuned(retail)],
            picture=picture,
        ),
        _benchmark(
            "Ratios of the same rounds",
            ["goodput"],
            ("median (interval)",),
            [[name, _ranged(value, retail["ratio_intervals"][name], 2)] for name, value in retail["ratios"].items()],
            [
                f"eta, cpu_tax, stretch and p99_over_p50 are those of {retail['best']}. Each is the median of the ratios of the "
                f"rounds, with a {retail['confidence']:.0%} interval."
            ],
        ),
        _benchmark(
            "Like for like, a made-up catalogue of a million items",
            made,
            ("SLO", "Trireme, users/s", "FastAPI, users/s", "ratio (least–most)"),
            [[row[0], f"p99 ≤ {slo} ms", *row[1:]] for slo, one in million.items() for row in _pairs(one)],
            ["As above."],
        ),
        _benchmark(
            "A made-up catalogue of a million items",
            made,
            [f"p99 ≤ {slo} ms" for slo in million],
            [
                *([name, *(_goodput_of(one, name) for one in million.values())] for name in names),
                ["the bare computation", *(f"{one['limit']['users_per_s']:,.0f}" for one in million.values())],
            ],
            [
                "Goodput in users/s on one core.",
                *_tuned(million[20], " for 20 ms"),
                *_tuned(million[100], " for 100 ms"),
            ],
        ),
    ]


def _pairs(document: Documents) -> list[Row]:
    contestants = document["contestants"]
    return [
        [
            f"{pair['own']} ÷ {pair['peer']}",
            *(f"{contestants[pair[side]]['goodput']:,.0f}" for side in ("own", "peer")),
            _ranged(pair["ratio"], pair["range"], 2),
        ]
        for pair in document["like_for_like"]
    ]


def _contestants(document: Documents) -> list[Row]:
    return [
        [name, *(_at_least(one) * (key == "goodput") + _number(one[key], digits) for key, digits in GOODPUT.values())]
        for name, one in document["contestants"].items()
    ]


def _limit(document: Documents) -> Row:
    limit = document["limit"]
    return ["the bare computation", f"{limit['users_per_s']:,.0f}", "–", "–", f"{limit['us_per_user']:,.0f}", "1.00"]


def _conditions(document: Documents) -> list[str]:
    stolen, others, lag = (document[name]["largest"] for name in ("steal_share", "others_share", "lag_p99_ms"))
    under_steal = [name for name, one in document["contestants"].items() if one["under_steal"]]
    return [
        f"Medians of {document['rounds']} interleaved rounds. p50 and p99 are those at 80 % of the goodput, from a run of "
        "their own; CPU is that at the goodput.",
        f"In the worst probe, the host took {stolen:.1%} of the machine's time, other processes {others:.1%}, and the load was "
        f"late by {lag:.2f} ms at p99; such probes were repeated.",
        *([f"Measured under steal, as the machine gave no rest: {', '.join(under_steal)}."] if under_steal else []),
    ]


def _tuned(document: Documents, when: str = "") -> list[str]:
    chosen = [
        f"{name} ({', '.join(f'{setting} {value}' for setting, value in row['settings'].items())})"
        for name, rows in document["tuning"].items()
        for row in rows
        if row["chosen"]
    ]
    return [f"Chosen from the grids of the peers{when}: {', '.join(chosen)}."] if chosen else []


def _goodput_of(document: Documents, name: str) -> str:
    if name not in document["contestants"]:
        return "not measured"
    one = document["contestants"][name]
    return _at_least(one) + _ranged(one["goodput"], one["interval"]["goodput"], 0)


def _at_least(one: Mapping[str, Any]) -> str:
    return "≥ " if one["limited_by_load_generator"] else ""


def _capacity(documents: Documents) -> list[dict[str, Any]]:
    limit, memory = documents["limit"], documents["memory"]
    return [
        _benchmark(
            "The bare computation",
            ["limit"],
            ("µs of CPU time per user (interval)", "users/s"),
            [
                [
                    f"{one['batch']} users per call",
                    _ranged(one["us_per_user"], one["interval"].values(), 0),
                    _number(one["users_per_s"], 0),
                ]
                for one in limit["batches"]
            ],
            [f"Online Retail II, on one core; medians of {limit['rounds']} rounds."],
        ),
        _benchmark(
            "Growth with the catalogue",
            ["growth"],
            ("from", "to", "power"),
            [row for axis, part in documents["growth"]["axes"].items() for row in _growth(axis, part)],
            [
                "Made-up catalogues on one core: 100,000 items, 200 candidates, histories of 100 items and batches of 32 users "
                "unless the row says otherwise. Times are CPU times per user."
            ],
            picture={
                "file": "growth.png",
                "shows": "µs per user and memory over items, candidates, history and users per RPC",
            },
        ),
        _benchmark(
            "Memory of a second instance",
            ["memory"],
            ("additional memory ÷ size of the artifacts",),
            [[{"both": "both plans"}.get(plan, plan), f"{one['ratio']:.2f}"] for plan, one in memory["plans"].items()],
            [
                "Proportional set size of the server's processes, with a second instance of every model; a made-up catalogue "
                "of a million items. Tables are mapped and shared; a second Python process costs the same for any catalogue."
            ],
        ),
    ]


def _growth(axis: str, part: Mapping[str, Any]) -> list[Row]:
    first, last = part["rows"][0], part["rows"][-1]
    over = f"{first['point'][axis]:,} to {last['point'][axis]:,} {'users per RPC' if axis == 'batch' else axis}"
    rows = [["time per user", *(f"{one['us_per_user']:,.0f} µs" for one in (first, last)), "us_per_user"]]
    if axis == "items":
        retrieval = (f"{one['stages']['retrieval']:,.0f} µs" for one in (first, last))
        size = (f"{one['artifact_bytes'] / MIB:,.0f} MiB" for one in (first, last))
        rows += [["retrieval alone", *retrieval, "retrieval"], ["artifacts", *size, "artifact_bytes"]]
    return [[f"{name}, {over}", start, end, _number(part["exponents"][key], 2)] for name, start, end, key in rows]


def _cost(documents: Documents) -> list[dict[str, Any]]:
    columns = ("one user per RPC", "32 callers who coalesce")
    ways = ("single", "coalescing")

    def rows(presets: Iterable[str], side: str) -> list[Row]:
        return [[f"`{one}`", *(_cpu_ratio(documents[f"{one}-{way}"], side) for way in ways)] for one in presets]

    rounds = documents["ledger-off-single"]["rounds"]
    interval = f"Online Retail II; medians of {rounds} rounds, with {documents['ledger-off-single']['confidence']:.0%} intervals."
    client = ("ledger-on", "tracing-0")
    return [
        _benchmark(
            "The server: ledger, metrics and tracing",
            (f"{preset}-{way}" for way in ways for preset in PRESETS),
            columns,
            rows(PRESETS, "server"),
            [interval, "Rows are presets ([measure/ab.md](measure/ab.md#presets))."],
        ),
        _benchmark(
            "The client: ledger and telemetry",
            (f"{preset}-{way}" for way in ways for preset in client),
            columns,
            rows(client, "client"),
            ["CPU time of the client's process per call. `tracing-0`: `Telemetry` that samples nothing."],
        ),
        _benchmark(
            "The client: plain tritonclient against Trireme's",
            ("client-asyncio", "client-threads"),
            ("CPU time of this client ÷ plain tritonclient",),
            [
                [f"{way}, coalescing", _cpu_ratio(documents[f"client-{way}"], "client")]
                for way in ("asyncio", "threads")
            ],
            ["64 callers at once. Plain tritonclient was used with asyncio."],
        ),
    ]


def _cpu_ratio(document: Documents, side: str) -> str:
    found = document[f"{side}_us_per_user"]
    return _ranged(found["ratio"]["value"], (found["ratio"]["low"], found["ratio"]["high"]), 3) if found else "–"


def _number(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:,.{digits}f}"


def _ranged(value: float | None, bounds: Iterable[float] | None, digits: int) -> str:
    if value is None or bounds is None:
        return _number(value, digits)
    return f"{_number(value, digits)} ({'–'.join(_number(bound, digits) for bound in bounds)})"
