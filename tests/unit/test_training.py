"""Training: examples, popularity in time, losses, and whether the models learn what was planted."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from trireme_export.data import ListFeature, TrainingData
from trireme_export.data.histories import gather_history
from trireme_export.errors import TrainingError
from trireme_export.training import TrainingConfig, train
from trireme_export.training.examples import BEFORE, Batch, ExampleSource, clock_of, popularity_snapshots
from trireme_export.training.ranker import RankerTrainer, draw_lists
from trireme_export.training.rehearsal import plan_rehearsal, rehearse
from trireme_export.training.train import shape_of
from trireme_export.training.two_tower import TowerTrainer, evaluate_tower
from trireme_export.training.validation import cut_slice, hits_of, list_metrics, top_candidates
from trireme_export.training.warm_start import align, co_occurrence, item_factors, warm_item_vectors
from trireme_export.training.window_loss import likelihood, window_loss

QUICK = {
    "history_length": 12,
    "threads": 1,
    "tower": {
        "dim": 24,
        "heads": 2,
        "feature_dim": 4,
        "hidden": 16,
        "batch_size": 64,
        "epoch_steps": 10,
        "max_epochs": 4,
        "moments": 16,
    },
    "ranker": {"dim": 16, "hidden": 8, "history": 6, "heads": 2, "max_epochs": 2, "candidates": 30},
}
CLUSTERS, ITEMS = 4, 60


def planted(users: int = 160, length: int = 14, seed: int = 0, times: bool = True) -> TrainingData:
    """Every user takes items of one cluster (item % CLUSTERS), with one of eight from anywhere."""
    rng = np.random.default_rng(seed)
    cluster = rng.integers(0, CLUSTERS, users)
    items = rng.integers(0, ITEMS // CLUSTERS, (users, length)) * CLUSTERS + cluster[:, None]
    items = np.where(rng.random(items.shape) < 1 / 8, rng.integers(0, ITEMS, items.shape), items)
    moments = np.sort(rng.integers(0, 100_000, items.shape), axis=1)
    return TrainingData(
        catalogue_size=ITEMS,
        user_offsets=np.arange(users + 1, dtype=np.int64) * length,
        user_items=items.ravel().astype(np.int32),
        user_times=moments.ravel().astype(np.int64) if times else None,
        user_category=rng.integers(0, 3, (users, 1)).astype(np.int32),
        user_category_sizes=(3,),
        user_number=np.zeros((users, 0), dtype=np.float32),
        item_category=rng.integers(0, 5, (ITEMS, 1)).astype(np.int32),
        item_category_sizes=(5,),
        item_lists=(
            ListFeature("tags", np.arange(ITEMS + 1), rng.integers(1, 4, ITEMS).astype(np.int32), ("", "a", "b", "c")),
        ),
    )


def tiny(items: list[list[int]], times: list[list[int]] | None = None, catalogue_size: int = 6) -> TrainingData:
    users = len(items)
    return TrainingData(
        catalogue_size=catalogue_size,
        user_offsets=np.cumsum([0, *(len(row) for row in items)]).astype(np.int64),
        user_items=np.array([i for row in items for i in row], dtype=np.int32),
        user_times=None if times is None else np.array([t for row in times for t in row], dtype=np.int64),
        user_category=np.zeros((users, 1), dtype=np.int32),
        user_category_sizes=(1,),
        user_number=np.zeros((users, 0), dtype=np.float32),
    )


def test_history_is_left_padded_newest_last() -> None:
    data = tiny([[1, 2, 3], [], [4]])
    assert data.history(2).tolist() == [[2, 3], [-1, -1], [-1, 4]]
    assert gather_history(np.zeros(0, np.int32), np.zeros(1, int), np.zeros(1, int), 2).tolist() == [[-1, -1]]


def test_unknown_user_has_only_the_size_of_their_history() -> None:
    data = planted()
    history = np.array([[-1, 3, 4], [-1, -1, -1]], dtype=np.int32)
    category, number = data.user_inputs(history, np.array([-1, -1]))
    assert category.tolist() == [[0], [0]]
    np.testing.assert_allclose(number, [[np.log(3.0)], [0.0]], rtol=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"user_items": np.array([0, 9], np.int32)}, r"user_items holds 0\.\.9: 0\.\.5 is allowed"),
        ({"user_offsets": np.array([0, 1], np.int64)}, "user_offsets must rise"),
        ({"user_times": np.array([2, 1], np.int64)}, "user_times must not fall"),
        ({"user_times": np.array([2], np.int64)}, "user_times has 1 entries"),
        ({"user_category": np.array([[7]], np.int32)}, r"user_category\[:, 0\] holds 7\.\.7"),
        (
            {"user_category": np.zeros((1, 0), np.int32), "user_category_sizes": ()},
            "user_category has no column",
        ),
        ({"user_number": np.array([[np.nan]], np.float32)}, "user_number holds values that are not finite"),
        (
            {"item_lists": (ListFeature("tags", np.arange(3), np.ones(2, np.int32), ("", "a")),)},
            r"item_lists\[0\]\.offsets",
        ),
    ],
)
def test_data_names_what_is_wrong(change: dict, message: str) -> None:
    data = tiny([[0, 1]])
    with pytest.raises(ValueError, match=message):
        TrainingData(**{**data.__dict__, **change})


def test_unknown_configuration_key_is_refused() -> None:
    with pytest.raises(ValidationError, match="learning_rat"):
        TrainingConfig.model_validate({"tower": {"learning_rat": 0.1}})
    with pytest.raises(ValidationError, match="tours"):
        TrainingConfig.model_validate({"tours": {}})


def test_clock_counts_positives() -> None:
    assert clock_of(tiny([[0, 1], [2, 3]], [[10, 400], [20, 30]])).tolist() == [0.0, 0.75, 0.25, 0.5]
    own = np.array([1, 2, 1, 2, 3, 4]) - BEFORE
    assert clock_of(tiny([[0, 1], [2, 3, 4, 5]])).tolist() == (own / [2, 2, 4, 4, 4, 4]).tolist()


def test_of_each_user_the_last_tenth_is_after_a_cut_and_never_nothing() -> None:
    clock = clock_of(tiny([[0], [0, 1, 2], [*range(20)]], catalogue_size=20))
    assert [int((part >= 0.9).sum()) for part in np.split(clock, [1, 4])] == [1, 1, 2]


def test_positives_of_one_time_share_the_clock() -> None:
    data = tiny([[0, 1, 2], [3, 4], [5]], [[10, 20, 20], [20, 30], [30]])
    assert clock_of(data).tolist() == [0, 1 / 6, 1 / 6, 1 / 6, 4 / 6, 4 / 6]
    own = clock_of(replace(data, shared_clock=False))
    assert own.tolist() == ((np.array([1, 3, 3, 1, 2, 1]) - BEFORE) / [3, 3, 3, 2, 2, 1]).tolist()


def baskets(users: int = 40, count: int = 5, size: int = 4) -> TrainingData:
    """Every user takes ``count`` baskets of ``size`` items; basket b holds the items b·size … (b + 1)·size − 1."""
    rng = np.random.default_rng(0)
    times = np.repeat(np.sort(rng.permutation(users * count).reshape(users, count) // 3, axis=1), size, axis=1)
    return tiny([[*range(count * size)]] * users, times.tolist(), catalogue_size=count * size)


@pytest.mark.parametrize("shared_clock", [True, False])
def test_no_cut_of_an_example_tears_a_basket(shared_clock: bool) -> None:
    data = replace(baskets(), shared_clock=shared_clock)
    batch = ExampleSource(data, 0.2, 0.9, 20, 20, 0.3).draw(400, np.random.default_rng(1))
    for history, targets in zip(batch.history, batch.targets, strict=True):
        past, future = history[history >= 0] // 4, targets[targets >= 0] // 4
        assert future.size
        assert not np.isin(past, future).any()
        assert (np.unique(past, return_counts=True)[1] == 4).all()
        assert (np.unique(future, return_counts=True)[1] == 4).all()


@pytest.mark.parametrize("shared_clock", [True, False])
def test_no_cut_of_a_slice_tears_a_basket(shared_clock: bool) -> None:
    for cut in np.linspace(0.1, 0.9, 81):
        part = cut_slice(replace(baskets(), shared_clock=shared_clock), cut, 20, 100, np.random.default_rng(0))
        for table in (part.seen, part.relevant, part.late):
            whole = table.toarray().reshape(len(part.rows), 5, 4).sum(axis=2)
            assert np.isin(whole, (0, 4)).all()


def test_examples_never_show_the_future() -> None:
    data = planted()
    source = ExampleSource(data, window=0.2, end=0.8, length=12, targets=50, recency=0.3)
    batch = source.draw(200, np.random.default_rng(0))
    clock = clock_of(data).reshape(data.n_users, -1)
    items = data.user_items.reshape(data.n_users, -1)
    for row, history, targets, cut in zip(batch.rows, batch.history, batch.targets, batch.cut, strict=True):
        past, inside = clock[row] < cut, (clock[row] >= cut) & (clock[row] < min(cut + 0.2, 0.8))
        assert history[history >= 0].tolist() == items[row][past][-12:].tolist()
        assert targets[targets >= 0].tolist() == items[row][inside].tolist()
    assert (batch.targets >= 0).any(axis=1).all()


def test_a_long_window_is_sampled_in_order_without_repeats() -> None:
    data = tiny([[*range(40)]], [[*range(40)]], catalogue_size=40)
    source = ExampleSource(data, window=0.9, end=1.0, length=4, targets=8, recency=0)
    targets = source.at(np.array([0]), np.array([0.1]), np.random.default_rng(0)).targets[0]
    assert len(set(targets.tolist())) == 8
    assert (np.diff(targets) > 0).all()
    assert targets.min() >= 4


def test_popularity_knows_only_the_past() -> None:
    items = [0] * 50 + [1] * 50
    data = tiny([items], [[*range(100)]])
    levels, last = popularity_snapshots(data, (0.05,), grid=10)
    assert levels.shape == (10, 6, 2)
    assert (levels[:6, 1] == levels[:6, 2]).all()  # item 1 is unheard of in the first half
    assert levels[3, 0, 1] > levels[3, 1, 1]
    assert last[1, 0] > last[0, 0]  # lately item 1
    assert last[1, 1] == pytest.approx(last[0, 1])  # over all of the past both alike


def test_without_times_popularity_is_one_moment() -> None:
    levels, last = popularity_snapshots(tiny([[0, 0, 1]]), (0.1,), grid=10)
    assert levels.shape == (1, 6, 1)
    assert last[0, 0] > last[1, 0] > last[2, 0]


def test_loss_leaves_out_what_was_seen() -> None:
    logits = torch.tensor([[5.0, 1.0, 0.0, 0.0]])
    batch = Batch(np.array([0]), np.array([[-1, 0]], np.int32), np.array([[0, 1, -1]], np.int32), np.zeros(1))
    expected = -(1.0 - np.log(np.exp(1.0) + 2.0))
    assert float(likelihood(logits, batch, None, 4)) == pytest.approx(expected, rel=1e-5)


def test_loss_over_a_sample_reads_its_columns() -> None:
    batch = Batch(np.array([0]), np.array([[9, 0]], np.int32), np.array([[7, -1]], np.int32), np.zeros(1))
    value = likelihood(torch.tensor([[0.0, 2.0, 1.0]]), batch, torch.tensor([0, 7, 8]), 10)
    assert float(value) == pytest.approx(-(2.0 - np.log(np.exp(2.0) + np.exp(1.0))), rel=1e-5)


def test_slice_follows_the_protocol() -> None:
    # Cut at 0.5: user 0 saw {0, 1}, then 1 (seen) and 2; user 1 saw {2}, then 5 (unknown before); user 2 is new.
    data = tiny([[0, 1, 1, 2], [2, 5], [0]], [[1, 2, 6, 7], [3, 8], [9]])
    part = cut_slice(data, 3 / 7, 4, 10, np.random.default_rng(0))
    assert part.rows.tolist() == [0]
    assert part.history.tolist() == [[-1, -1, 0, 1]]
    assert part.relevant.toarray().tolist() == [[0, 0, 1, 0, 0, 0]]
    ids, score = top_candidates(part, lambda index: np.array([[9.0, 8, 1, 2, 3, 4]]), 8)
    assert ids.tolist() == [[5, 4, 3, 2, -1, -1, -1, -1]]
    assert np.isneginf(score[0, 4:]).all()
    metrics = list_metrics(part.relevant, hits_of(part.relevant, ids))
    assert metrics["ndcg@10"] == pytest.approx(1 / np.log2(5))
    assert metrics["recall@20"] == metrics["recall@200"] == 1.0


def test_warm_vectors_know_which_items_stand_together() -> None:
    data = planted()
    read, scored = warm_item_vectors(data, np.ones(len(data.user_items), bool), 8, 5, np.random.default_rng(0))
    product = read @ scored.T
    same = (np.arange(ITEMS)[:, None] - np.arange(ITEMS)) % CLUSTERS == 0
    np.fill_diagonal(same, False)
    assert product[same].mean() > 5 * abs(product[~same & ~np.eye(ITEMS, dtype=bool)].mean())
    empty, _ = warm_item_vectors(tiny([[0]]), np.ones(1, bool), 4, 5, np.random.default_rng(0))
    assert not empty.any()


def test_factors_know_which_items_share_users_at_any_distance() -> None:
    data = planted()
    rng = np.random.default_rng(0)
    everything = np.ones(len(data.user_items), bool)
    read, scored = item_factors(data, everything, 4, rng)
    product = read @ scored.T
    same = (np.arange(ITEMS)[:, None] - np.arange(ITEMS)) % CLUSTERS == 0
    assert product[same].mean() > 5 * abs(product[~same].mean())
    np.testing.assert_allclose([(table**2).sum(axis=1).mean() for table in (read, scored)], 1, rtol=1e-5)
    # Order and repeats do not count, nor does what is not in the past.
    twice = tiny([[0, 1, 0, 0], [1, 2], [2, 0], [1, 3], [3, 0]])
    once = tiny([[1, 0], [2, 1], [0, 2], [3, 1], [0, 3]])
    tables = [
        item_factors(one, np.ones(len(one.user_items), bool), 2, np.random.default_rng(0)) for one in (twice, once)
    ]
    np.testing.assert_allclose(tables[0][0] @ tables[0][1].T, tables[1][0] @ tables[1][1].T, atol=1e-4)
    for nothing in (item_factors(data, ~everything, 4, rng), item_factors(tiny([[0]]), np.ones(1, bool), 4, rng)):
        assert not np.any(nothing)


def test_many_positives_keep_the_nearest_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    data, past = tiny([[0, 1, 2, 3]]), np.ones(4, bool)
    assert co_occurrence(data, past, 3).toarray()[0].tolist() == [0, 1, 1 / 2, pytest.approx(1 / 3), 0, 0]
    monkeypatch.setattr("trireme_export.training.warm_start.PAIRS", 8)  # two for every positive
    assert co_occurrence(data, past, 3).toarray()[0].tolist() == [0, 1, 1 / 2, 0, 0, 0]


def test_candidates_do_not_depend_on_the_block(monkeypatch: pytest.MonkeyPatch) -> None:
    data = planted()
    part = cut_slice(data, 0.8, 12, 100, np.random.default_rng(0))
    score = np.random.default_rng(1).standard_normal((len(part.rows), ITEMS)).astype(np.float32)
    whole = top_candidates(part, lambda index: score[index], 20)
    monkeypatch.setattr("trireme_export.training.validation.SCORES", 3 * ITEMS)
    for found, expected in zip(top_candidates(part, lambda index: score[index], 20), whole, strict=True):
        np.testing.assert_array_equal(found, expected)


def test_align_undoes_a_rotation() -> None:
    rng = np.random.default_rng(0)
    table = rng.standard_normal((30, 5))
    rotation, _ = np.linalg.qr(rng.standard_normal((5, 5)))
    np.testing.assert_allclose(align((table @ rotation).astype(np.float32), table), table, atol=1e-5)


@pytest.fixture(scope="module")
def trained():
    data = planted()
    return data, train(data, TrainingConfig.model_validate(QUICK), progress=False)


def test_training_learns_clusters_better_than_popularity(trained) -> None:
    data, models = trained
    fresh = planted(seed=5)
    part = cut_slice(fresh, 0.7, 12, 500, np.random.default_rng(0))
    popular = np.bincount(data.user_items, minlength=ITEMS).astype(np.float32)
    ids, _ = top_candidates(part, lambda index: np.tile(popular, (len(index), 1)), 10)
    baseline = list_metrics(part.relevant, hits_of(part.relevant, ids))["ndcg@10"]
    assert evaluate_tower(models.two_tower, fresh, part)["ndcg@10"] > 1.5 * baseline


def test_report_holds_epochs_and_whether_the_ranker_helped(trained) -> None:
    report = trained[1].report
    assert [epoch["epoch"] for epoch in report["two_tower"]["epochs"]] == [1, 2, 3, 4][
        : len(report["two_tower"]["epochs"])
    ]
    assert report["ranker"]["beats_retrieval"] == (not report["warnings"])
    assert report["ranker"]["ranked"]["ndcg@10"] >= report["ranker"]["retrieval"]["ndcg@10"]


@pytest.mark.parametrize("best", [7, 0])
def test_factors_are_kept_where_the_slice_is_better_with_them(best: int, monkeypatch: pytest.MonkeyPatch) -> None:
    config = TrainingConfig.model_validate({**QUICK, "refit": 0, "tower": {**QUICK["tower"], "factors": 0.4}})
    real = TowerTrainer.fit

    def fit(self: TowerTrainer, *given):
        run = real(self, *given)
        return replace(run, value=float(self.shape.factors == best))

    monkeypatch.setattr(TowerTrainer, "fit", fit)
    models = train(planted(), config, progress=False)
    assert models.shape.factors == best
    assert models.report["two_tower"]["factors"] == best
    assert models.two_tower.read_factors.any() == (best > 0)
    assert models.two_tower.item_vectors().shape == (ITEMS, 24)


def lists_of(data: TrainingData, config: TrainingConfig, cut: float):
    shape = shape_of(data, config)
    towers = TowerTrainer(data, shape, config)
    part = cut_slice(data, cut, config.history_length, 500, np.random.default_rng(0))
    tower = towers.fit(cut, part, lambda *_: None).model
    return tower, draw_lists(tower, data, part, config.ranker.candidates), RankerTrainer(data, shape, config)


@pytest.mark.parametrize("times", [True, False])
def test_a_rehearsal_hides_from_tower_and_ranker_what_it_judges_by(times: bool) -> None:
    data, config, cut = planted(times=times), TrainingConfig.model_validate(QUICK), 0.8
    _, lists, _ = lists_of(data, config, cut)
    plan = plan_rehearsal(data, lists, cut, config)
    assert len(plan.judged.rows) > 10
    for position, row in enumerate(plan.judged.rows):
        taken = plan.older.user_items[plan.older.user_offsets[row] : plan.older.user_offsets[row + 1]]
        relevant = plan.judged.relevant[position].indices
        assert len(relevant)
        assert not np.isin(relevant, taken).any()
        assert np.isin(plan.judged.history[position], [-1, *taken]).all()
    if times:
        assert plan.older.user_times is not None
        assert plan.older.user_times.max() < np.quantile(data.user_times, 0.91)
        assert not (plan.hits & lists.late).any()
    else:
        assert not np.isin(lists.part.rows[plan.learners], plan.judged.rows).any()
        assert len(plan.learners) + len(plan.judged.rows) == len(lists.part.rows)
        assert len(plan.older.user_items) < len(data.user_items)


@pytest.mark.parametrize(("sign", "beats"), [(1.0, True), (-1.0, False)])
def test_the_ranker_is_judged_on_the_lists_of_a_newer_tower(
    sign: float, beats: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It passes or fails by what it does there, whatever it did on the lists that it was trained on."""
    data, config = planted(times=False), TrainingConfig.model_validate(QUICK)
    tower, lists, rankers = lists_of(data, config, 0.8)
    judged = []

    def scores(ranker, found, users):
        judged.append(found)
        return sign * np.where(found.hits, 9.0, -9.0).astype(np.float32)

    monkeypatch.setattr("trireme_export.training.rehearsal.ranking_scores", scores)
    chosen = {"beats_retrieval": True, "blend": 0.5, "chosen_epochs": 1}
    record = rehearse(rankers, tower, lists, 0.8, 5, chosen, lambda *_: None)
    assert (record["beats_retrieval"], record["blend"]) == (beats, 0.5 if beats else 0.0)
    assert (record["served"]["ranked"]["ndcg@10"] > record["served"]["retrieval"]["ndcg@10"]) == beats
    old = dict(zip(lists.part.rows.tolist(), lists.score, strict=True))
    new = dict(zip(judged[0].part.rows.tolist(), judged[0].score, strict=True))
    assert not any(np.allclose(old[row], score) for row, score in new.items())
    switched_off = {**chosen, "beats_retrieval": False, "blend": 0.0}
    assert rehearse(rankers, tower, lists, 0.8, 5, switched_off, lambda *_: None) == switched_off


def test_same_seed_same_models(trained) -> None:
    data, first = trained
    again = train(data, TrainingConfig.model_validate(QUICK), progress=False)
    other = train(data, TrainingConfig.model_validate({**QUICK, "seed": 1}), progress=False)
    for name, value in first.two_tower.state_dict().items():
        assert torch.equal(value, again.two_tower.state_dict()[name]), name
    for name, value in first.ranker.state_dict().items():
        assert torch.equal(value, again.ranker.state_dict()[name]), name
    assert not torch.equal(first.two_tower.read.weight, other.two_tower.read.weight)


def test_trains_without_times_and_with_a_sampled_softmax() -> None:
    data = planted(times=False)
    config = {**QUICK, "tower": {**QUICK["tower"], "softmax_items": 30, "max_epochs": 2}}
    models = train(data, TrainingConfig.model_validate(config), progress=False)
    assert torch.isfinite(models.two_tower.item_vectors()).all()
    assert models.shape.popularity == 1


def test_a_sampled_softmax_touches_only_the_items_it_reads() -> None:
    data, config = planted(), TrainingConfig.model_validate({**QUICK, "tower": {**QUICK["tower"], "softmax_items": 8}})
    trainer = TowerTrainer(data, shape_of(data, config), config)
    model, share, rng = trainer.start(1.0), trainer.share, np.random.default_rng(0)
    assert share is not None
    batch = ExampleSource(data, 0.1, 1.0, 12, 4, 0.3).draw(2, rng)
    window_loss(model, data, batch, trainer.levels, share, config.tower, rng).backward()
    for layer, most in ((model.read, 2 * 12), (model.written, 8 + 2 * 4)):
        gradient = layer.weight.grad
        assert gradient is not None
        assert gradient.is_sparse
        assert gradient.coalesce().indices().numel() <= most < ITEMS


def test_rows_of_the_tables_are_those_of_the_whole() -> None:
    data, config = planted(), TrainingConfig.model_validate(QUICK)
    model, rows = TowerTrainer(data, shape_of(data, config), config).start(1.0), torch.tensor([3, 41, 7])
    part, whole = model.features(rows), model.features()
    torch.testing.assert_close(model.read_table(part, rows)[:-1], model.read_table(whole)[rows])
    torch.testing.assert_close(model.latent_items(part, rows), model.latent_items(whole)[rows])


def test_too_little_data_is_refused() -> None:
    with pytest.raises(ValueError, match="more data is needed"):
        train(tiny([[0], [1]], [[1], [2]]), TrainingConfig.model_validate(QUICK), progress=False)


def test_a_slice_without_anything_new_in_its_later_half_is_refused() -> None:
    """User 0 takes a new item at the clock 0.9 and one they had at 0.95."""
    data = tiny([[0] * 9 + [1, 0], [1] * 9], [[*range(0, 18, 2), 18, 19], [*range(1, 18, 2)]])
    with pytest.raises(TrainingError, match=r"later half of the last 10% .*training\.validation is 0\.1, allowed"):
        train(data, TrainingConfig.model_validate(QUICK), progress=False)
