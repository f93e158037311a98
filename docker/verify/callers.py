"""Asks a server all the time until it has been stopped; what `verify.sh` pipes into a container of the image.

    python3 callers.py URL MODEL…

Eight callers for each model. They say "asking" when all have had an answer, and end when the server is gone. The last line
is JSON: the calls that were answered, those that got an error, by its kind, and those that got neither within the time
allowed (``lost``).
"""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from itertools import count

from trireme_client import Client, TimeoutError, TriremeError

CALLERS = 8
TIMEOUT_S = 10.0
#: After the first error, a caller goes on for so long: a server that stops may answer some and refuse others.
AFTER_S = 2.0


def ask(url: str, model: str, user: int, asking: list[int]) -> Counter[str]:
    """Asks without a pause until the server has refused for a while; returns how the calls ended."""
    ended: Counter[str] = Counter()
    refused_since = None
    with Client(url, model=model, timeout=TIMEOUT_S) as client:
        for turn in count():
            try:
                answer = client.recommend(user + turn % 1000, k=10)
                assert len(answer.item_ids) == 10, answer
                ended["answered"] += 1
                if turn == 0:
                    asking.append(user)
            except TimeoutError:
                ended["lost"] += 1
                return ended
            except TriremeError as error:
                ended[type(error).__name__] += 1
                refused_since = refused_since or time.monotonic()
                if time.monotonic() - refused_since > AFTER_S:
                    return ended
                time.sleep(0.05)
    raise AssertionError("unreachable")


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main(url: str, *models: str) -> None:
    asking: list[int] = []
    callers = [(model, 1000 * number) for number in range(CALLERS) for model in models]
    with ThreadPoolExecutor(len(callers)) as pool:
        futures = [pool.submit(ask, url, model, user, asking) for model, user in callers]
        while len(asking) < len(callers) and not any(future.done() for future in futures):
            time.sleep(0.05)
        say("asking")
        ended: Counter[str] = sum((future.result() for future in futures), Counter())
    errors = {kind: number for kind, number in ended.items() if kind not in ("answered", "lost")}
    say(json.dumps({"answered": ended["answered"], "lost": ended["lost"], "errors": errors}))


main(*sys.argv[1:])
