"""One thread that reads the server each second, however many browsers show the page."""

from __future__ import annotations

import logging
import threading
import time

from trireme_console.history import History, Snapshot
from trireme_console.readings import Source
from trireme_perf.errors import PerfError

__all__ = ["Sampler"]

log = logging.getLogger(__name__)

EVERY_S = 1.0


class Sampler:
    """Reads ``source`` between ``start`` and ``stop``."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._history = History()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="console-sampler", daemon=True)

    @property
    def snapshot(self) -> Snapshot:
        """Returns the newest snapshot; may be called from any thread."""
        return self._history.snapshot

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Stops the thread, and returns when its last reading is done."""
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        following = time.monotonic()
        while not self._stopping.is_set():
            try:
                self._history.add(self._source.read())
            except PerfError as error:
                self._history.add_failure(time.time(), str(error))
            except Exception as error:  # the page must outlive any trouble of the server
                log.exception("a reading failed")
                self._history.add_failure(time.time(), f"{type(error).__name__}: {error}")
            following = max(following + EVERY_S, time.monotonic())
            self._stopping.wait(following - time.monotonic())
        self._source.close()
