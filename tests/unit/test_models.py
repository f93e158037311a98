"""The two models: padding, recency, precomputed halves, round trips. Untrained weights, tiny tables."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from trireme_export.models import ModelShape, Ranker, TrainedModels, TwoTower, load_models, save_models

SHAPE = ModelShape(
    catalogue_size=30,
    history_length=8,
    user_category_sizes=(4, 3),
    user_numbers=2,
    item_category_sizes=(5,),
    item_numbers=1,
    item_list_sizes=(6,),
    item_list_lengths=(3,),
    popularity=2,
    dim=16,
    factors=3,
    heads=2,
    feature_dim=4,
    hidden=8,
    rank_dim=8,
    rank_hidden=8,
    rank_history=4,
    rank_heads=2,
)


def randomise(module: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    """Moves weights and float buffers away from their neutral starts, so that every path carries a signal."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for value in [*module.parameters(), *module.buffers()]:
            if value.is_floating_point() and value.dim():
                value.copy_(torch.randn(value.shape, generator=generator) * 0.3)
    return module.eval()


def user_inputs(history: list[list[int]]) -> tuple[torch.Tensor, ...]:
    rows = [[-1] * (SHAPE.history_length - len(row)) + row for row in history]
    index = torch.tensor(rows, dtype=torch.int32)
    category = torch.tensor([[1, 2]] * len(rows), dtype=torch.int32)
    return index, category, torch.full((len(rows), 2), 0.5)


def ranker_inputs(batch: int = 3, candidates: int = 5) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    history, category, number = user_inputs([[1, 2, 3], [4], [5, 6, 7, 8, 9, 10]][:batch])
    query = torch.randn(batch, SHAPE.dim, generator=generator)
    ids = torch.randint(0, SHAPE.catalogue_size, (batch, candidates), generator=generator, dtype=torch.int32)
    score = torch.randn(batch, candidates, generator=generator)
    return [query, history, category, number, ids, score]


@pytest.fixture
def tower() -> TwoTower:
    return randomise(TwoTower(SHAPE))


@pytest.fixture
def ranker() -> Ranker:
    return randomise(Ranker(SHAPE))


def test_tower_shapes_and_types(tower: TwoTower) -> None:
    query, vectors = tower(*user_inputs([[1, 2], [3]])), tower.item_vectors()
    assert query.shape == (2, SHAPE.dim)
    assert vectors.shape == (SHAPE.catalogue_size, SHAPE.dim)
    assert query.dtype == vectors.dtype == torch.float32


def test_empty_history_is_finite_and_still_reads_the_user(tower: TwoTower) -> None:
    history, category, number = user_inputs([[], []])
    category[1] = 0
    query = tower(history, category, number)
    assert torch.isfinite(query).all()
    assert not torch.allclose(query[0], query[1])


def test_padding_does_not_read_an_item(tower: TwoTower) -> None:
    before = tower(*user_inputs([[1, 2]]))
    with torch.no_grad():
        tower.read.weight[0] += 100.0
        tower.read.weight[-1] += 100.0
    torch.testing.assert_close(tower(*user_inputs([[1, 2]])), before)


def test_a_users_query_does_not_depend_on_the_batch(tower: TwoTower) -> None:
    together = tower(*user_inputs([[1, 2], [3, 4, 5], []]))
    alone = torch.cat([tower(*user_inputs([row])) for row in ([1, 2], [3, 4, 5], [])])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)


def test_order_of_the_history_matters(tower: TwoTower) -> None:
    query = tower(*user_inputs([[1, 2, 3], [3, 2, 1]]))
    assert (query[0] - query[1]).abs().max() > 1e-3


def test_popularity_and_bias_are_coordinates_of_the_inner_product(tower: TwoTower) -> None:
    query, vectors = tower(*user_inputs([[1, 2]])), tower.item_vectors()
    query = query.detach()
    before = query @ vectors.detach().T
    with torch.no_grad():
        tower.bias[7] += 2.0
        tower.popularity[8, 1] += 3.0
    change = (query @ tower.item_vectors().detach().T - before)[0]
    assert change[7] == pytest.approx(2.0, abs=1e-4)
    assert change[8] == pytest.approx(3.0 * float(query[0, -1]), abs=1e-4)
    assert change[:7].abs().max() < 1e-5


def test_precomputed_tower_equals_the_trained_one(tower: TwoTower) -> None:
    inputs = user_inputs([[1, 2, 3], [], [29]])
    torch.testing.assert_close(tower.precompute()(*inputs), tower(*inputs), atol=1e-6, rtol=1e-6)


def test_precomputed_ranker_equals_the_trained_one(ranker: Ranker) -> None:
    inputs = ranker_inputs()
    serving = ranker.precompute()
    torch.testing.assert_close(serving(*inputs), ranker(*inputs), atol=1e-6, rtol=1e-6)
    assert serving.item_half.shape == (SHAPE.catalogue_size + 1, SHAPE.rank_hidden)
    assert serving.item_vector.shape == (SHAPE.catalogue_size + 1, SHAPE.rank_dim)


def test_precomputed_ranker_no_longer_reads_the_item_side(ranker: Ranker) -> None:
    inputs = ranker_inputs()
    serving = ranker.precompute()
    before = serving(*inputs)
    randomise(ranker.features, seed=9)
    torch.testing.assert_close(serving(*inputs), before)


def test_ranker_moves_with_its_candidates(ranker: Ranker) -> None:
    inputs = ranker_inputs()
    order = torch.tensor([3, 0, 4, 1, 2])
    shuffled = [*inputs[:4], inputs[4][:, order], inputs[5][:, order]]
    torch.testing.assert_close(ranker(*shuffled), ranker(*inputs)[:, order], atol=1e-5, rtol=1e-5)


def test_ranker_does_not_read_the_query(ranker: Ranker) -> None:
    """The tower that is served has another one's directions."""
    inputs = ranker_inputs()
    torch.testing.assert_close(ranker(torch.randn_like(inputs[0]), *inputs[1:]), ranker(*inputs))


def padding_and_repeats(inputs: list[torch.Tensor]) -> list[torch.Tensor]:
    index = inputs[4].clone()
    index[0, -2:], index[1] = -1, index[0]
    return [*inputs[:4], index, inputs[5]]


def test_scores_by_rows_are_those_of_the_whole_catalogue(ranker: Ranker) -> None:
    for inputs in (ranker_inputs(), padding_and_repeats(ranker_inputs())):
        torch.testing.assert_close(ranker.score_by_rows(*inputs), ranker(*inputs), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("padding", [0.0, -1e30, float("-inf")])
def test_padded_candidates_are_finite_and_change_nothing(ranker: Ranker, padding: float) -> None:
    inputs = ranker_inputs()
    pad = torch.full((3, 2), -1, dtype=torch.int32)
    padded = [
        *inputs[:4],
        torch.cat([inputs[4], pad], 1),
        torch.cat([inputs[5], torch.full((3, 2), padding)], 1),
    ]
    score = ranker(*padded)
    assert torch.isfinite(score).all()
    torch.testing.assert_close(score[:, :5], ranker(*inputs), atol=1e-4, rtol=1e-4)


def test_ranker_of_an_empty_history_is_finite(ranker: Ranker) -> None:
    inputs = ranker_inputs()
    inputs[1] = torch.full_like(inputs[1], -1)
    assert torch.isfinite(ranker(*inputs)).all()


def test_untrained_ranker_keeps_the_order_of_retrieval() -> None:
    torch.manual_seed(0)
    inputs = ranker_inputs()
    score = Ranker(SHAPE).eval()(*inputs)
    assert torch.equal(score.argsort(1), inputs[5].argsort(1))


def test_ranker_ignores_the_level_of_retrieval_scores(ranker: Ranker) -> None:
    inputs = ranker_inputs()
    moved = [*inputs[:5], inputs[5] + 40.0]
    torch.testing.assert_close(ranker(*moved), ranker(*inputs), atol=1e-3, rtol=1e-3)


def test_checkpoint_round_trip(tmp_path, tower: TwoTower, ranker: Ranker) -> None:
    path = tmp_path / "checkpoint"
    save_models(path, TrainedModels(SHAPE, tower, ranker, {"seconds": 1.5}))
    save_models(path, TrainedModels(SHAPE, tower, ranker, {"seconds": 2.5}))
    loaded = load_models(path)
    assert loaded.shape == SHAPE
    assert loaded.report == {"seconds": 2.5}
    inputs = user_inputs([[1, 2]])
    assert torch.equal(loaded.two_tower(*inputs), tower(*inputs))
    assert torch.equal(loaded.ranker(*ranker_inputs()), ranker(*ranker_inputs()))
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["checkpoint"]
    assert json.loads((path / "models.json").read_text())["shape"]["n_items"] == SHAPE.catalogue_size


def test_checkpoint_of_another_version_is_refused(tmp_path, tower: TwoTower, ranker: Ranker) -> None:
    save_models(tmp_path / "c", TrainedModels(SHAPE, tower, ranker))
    document = json.loads((tmp_path / "c" / "models.json").read_text())
    (tmp_path / "c" / "models.json").write_text(json.dumps({**document, "format_version": 99}))
    with pytest.raises(ValueError, match="format_version is 99"):
        load_models(tmp_path / "c")


def test_checkpoint_whose_weights_do_not_fit_is_refused(tmp_path, tower: TwoTower, ranker: Ranker) -> None:
    save_models(tmp_path / "c", TrainedModels(SHAPE, tower, ranker))
    document = json.loads((tmp_path / "c" / "models.json").read_text())
    document["shape"]["hidden"] = 9
    (tmp_path / "c" / "models.json").write_text(json.dumps(document))
    with pytest.raises(ValueError, match="does not fit"):
        load_models(tmp_path / "c")


def test_shape_names_an_impossible_dim() -> None:
    document = SHAPE.to_json()
    with pytest.raises(ValueError, match="dim is 3"):
        ModelShape.from_json({**document, "dim": 3})


@pytest.mark.parametrize("which", ["tower", "ranker"])
def test_onnx_export_has_a_dynamic_batch_and_the_same_answers(tmp_path, request, which: str) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    module = request.getfixturevalue(which).precompute()
    inputs = list(user_inputs([[1, 2], [], [3]])) if which == "tower" else ranker_inputs()
    names = ["history_index", "user_category", "user_number"]
    if which == "ranker":
        names = ["query", *names, "candidate_index", "retrieval_score"]
    path = tmp_path / "model.onnx"
    with torch.no_grad():
        torch.onnx.export(
            module,
            tuple(inputs),
            path,
            input_names=names,
            output_names=["out"],
            opset_version=17,
            dynamo=False,
            dynamic_axes={name: {0: "batch"} for name in [*names, "out"]},
        )
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for rows in (slice(0, 3), slice(0, 1)):
        feed = {name: value[rows].numpy() for name, value in zip(names, inputs, strict=True)}
        feed = {asked.name: feed[asked.name] for asked in session.get_inputs()}
        expected = module(*(value[rows] for value in inputs)).detach().numpy()
        np.testing.assert_allclose(session.run(None, feed)[0], expected, atol=1e-5)
