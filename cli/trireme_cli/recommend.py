"""``trireme recommend``"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from trireme_cli.output import REPOSITORY, CommandError, Json, finish
from trireme_cli.tls import TLSCa, TLSCert, TLSKey, client_tls
from trireme_cli.waterfall import waterfall_table

if TYPE_CHECKING:
    from trireme_client import Recommendations

__all__ = ["parse_ids", "recommend", "recommendations_table"]

RUNG = "rung: how complete the answer is, from 0 (full) to 3 (popular)"

Url = Annotated[str, typer.Option(help="host:port of the server's gRPC endpoint.")]
Model = Annotated[str, typer.Option(help="Entry model.")]
ServedRepository = Annotated[
    Path, typer.Option(help="Repository that the server serves; if it is there, titles are shown.")
]


def recommend(
    url: Url = "localhost:8001",
    user: Annotated[int | None, typer.Option(help="User id; without one, an anonymous user.")] = None,
    k: Annotated[int, typer.Option("-k", help="Number of items.")] = 10,
    history: Annotated[
        str | None, typer.Option(help="Item ids, newest last, comma-separated; replaces the stored history.")
    ] = None,
    exclude: Annotated[
        str | None, typer.Option(help="Item ids, comma-separated, that must not come back; at most 1,000.")
    ] = None,
    context: Annotated[
        list[str] | None,
        typer.Option(help="NAME=VALUE of what is known of the request, such as device=mobile; once for each name."),
    ] = None,
    timeout: Annotated[
        float | None, typer.Option(help="Seconds that the answer may take; the server shortens it to be in time.")
    ] = None,
    background: Annotated[
        bool,
        typer.Option("--background", help="Let all other requests go first; under load, the items are popular ones."),
    ] = False,
    tls_ca: TLSCa = None,
    tls_cert: TLSCert = None,
    tls_key: TLSKey = None,
    model: Model = "recommend",
    repository: ServedRepository = REPOSITORY,
    ledger: Annotated[bool, typer.Option("--ledger", help="Draw where the time of the call went.")] = False,
    as_json: Json = False,
) -> None:
    """Ask a server for recommendations."""
    from trireme_client import ANONYMOUS, Client, Timeout
    from trireme_runtime.titles import read_titles

    who = ANONYMOUS if user is None else user
    items, excluded = parse_ids("--history", history), parse_ids("--exclude", exclude)
    known = parse_context(context or [])
    titles = read_titles(repository)
    tls = client_tls(tls_ca, tls_cert, tls_key)
    limit = Timeout() if timeout is None else Timeout(timeout)
    with Client(url, model=model, timeout=limit, tls=tls) as client:
        if not ledger:
            answer = client.recommend(who, k, history=items, exclude=excluded, background=background, context=known)
            finish(to_json(answer, titles), as_json, recommendations_table(answer, titles))
            return
        from trireme_perf.waterfall import measure_call

        def ask(ledger: bool) -> Recommendations:
            return client.recommend(
                who, k, history=items, exclude=excluded, background=background, context=known, ledger=ledger
            )

        ask(False)  # connects, and warms what the first call of a process pays for
        answer, waterfall = measure_call(url, model, lambda: ask(True), tls)
    result = {**to_json(answer, titles), "ledger": waterfall.to_dict()}
    finish(result, as_json, recommendations_table(answer, titles), waterfall_table(waterfall))


def parse_context(pairs: list[str]) -> dict[str, str]:
    """Reads "device=mobile" and the like. Raises CommandError."""
    for pair in pairs:
        if not pair.partition("=")[1]:
            raise CommandError(f"--context is {pair!r}; allowed: NAME=VALUE, such as device=mobile")
    return dict(pair.split("=", 1) for pair in pairs)


def parse_ids(option: str, text: str | None) -> list[int] | None:
    """``"1,2,3"`` as ids; an empty text is an empty list.

    Raises:
        CommandError: naming the part that is not an id.
    """
    if text is None:
        return None
    parts = list(filter(None, (part.strip() for part in text.split(","))))
    for part in parts:
        if not part.isdecimal():
            raise CommandError(f"{option} holds {part!r}; allowed: item ids ≥ 0 separated by commas")
    return [int(part) for part in parts]


def to_json(answer: Recommendations, titles: Mapping[int, str]) -> dict[str, Any]:
    def title(item_id: int) -> dict[str, str]:
        return {"title": titles[item_id]} if item_id in titles else {}

    return {
        "user_id": answer.user_id,
        "items": [{"item_id": item.item_id, "score": item.score, **title(item.item_id)} for item in answer],
        "rung": int(answer.rung),
        "reason": answer.reason.words,
        "feature_age_s": answer.feature_age_s,
        "model": answer.model_name,
        "version": answer.model_version,
    }


def recommendations_table(answer: Recommendations, titles: Mapping[int, str]) -> Table:
    """``titles`` by item id; the column is left out where there is none."""
    who = "anonymous user" if answer.user_id is None else f"user {answer.user_id}"
    rung = answer.rung.name.lower().replace("_", " ")
    table = Table(
        title=f"{who} · rung {int(answer.rung)} ({rung}) · {answer.model_name} version {answer.model_version}",
        title_justify="left",
        caption=f"{RUNG}\n{answer.reason.words}" if answer.rung else RUNG,
        caption_justify="left",
    )
    table.add_column("", justify="right")
    table.add_column("item", justify="right")
    if titles:
        table.add_column("title")
    table.add_column("score", justify="right")
    for place, item in enumerate(answer, start=1):
        title = [titles.get(item.item_id, "")] if titles else []
        table.add_row(str(place), str(item.item_id), *title, f"{item.score:.3f}")
    return table
