"""`trireme replay`: which events come before which moment, what it prints and what it refuses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from tests.support.frames import write_frames
from tests.support.random_checkpoint import random_checkpoint
from trireme_cli.output import CommandError
from trireme_cli.replay import _replayed, _tables
from trireme_cli.served_replay import _turns
from trireme_export.data import read_dataset
from trireme_export.evaluation.moments import Moments
from trireme_ingest.events import EARLIEST_MS


def test_each_event_is_written_once_before_the_first_moment_that_knows_it() -> None:
    #  user 0 takes 3 | 1, 2 | 4 and user 1 takes 5 | 3; the first moment of user 1 has nothing new
    moments = Moments(
        user_row=np.array([0, 0, 0, 1]),
        event_items=np.array([3, 1, 2, 4, 5, 3]),
        event_times=np.array([70, 80, 80, 95, 60, 90]),
        starts=np.array([0, 0, 0, 4]),
        ends=np.array([0, 1, 3, 5]),
        relevant_offsets=np.arange(5),
        relevant_items=np.array([3, 1, 4, 3]),
    )
    turns = list(_turns(moments, np.array([100, 100, 100, 200]), np.arange(10, 20)))
    assert [rows.tolist() for rows, _ in turns] == [[0, 3], [1], [2]]
    events = [[(event.user, event.item, event.time_ms - EARLIEST_MS) for event in each] for _, each in turns]
    #  times are places among 60, 70, 80, 90, 95
    assert events == [[(200, 15, 0)], [(100, 13, 1)], [(100, 11, 2), (100, 12, 2)]]


def test_data_in_which_nothing_is_fresh_is_refused(tmp_path: Path) -> None:
    dataset = read_dataset(write_frames(tmp_path))
    with pytest.raises(CommandError, match="no user of the training takes something new at two times of the test part"):
        _replayed(random_checkpoint(), dataset, None, "recommend")


def test_the_tables_name_ratios_and_intervals() -> None:
    metrics = {"ndcg@10": 0.1, "recall@20": 0.2, "recall@200": 0.3}
    ratios = {"ndcg@10": {"value": 1.5, "low": 1.25, "high": 1.75}, "recall@20": None, "recall@200": None}
    group = {"users": 7, "moments": 9, "targets": 11}
    group |= {"lists": {"snapshot": metrics, "fresh": metrics}, "ratios": {"fresh": ratios}}
    served = {"model": "recommend", "users": 2, "moments": 3, "same": 0.5, "served": metrics, "offline": metrics}
    console = Console(width=200)
    with console.capture() as captured:
        for table in _tables({"data": "shop", "all": group, "later": group, "served": served}):
            console.print(table)
    text = captured.get()
    assert "shop · all moments · 7 users, 9 moments, 11 items" in text
    assert "shop · moments with events since the snapshot" in text
    assert "fresh features ÷ snapshot" in text
    assert "1.500 (1.250 … 1.750)" in text
    assert "the first ten items are those of the offline list at 50.0 % of the moments" in text
