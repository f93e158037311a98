"""The compiled stages against the others, which define what is right, and what they refuse."""

from __future__ import annotations

import copy
import ctypes
import platform
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.random_funnel import random_request, random_stages, sizes
from trireme_runtime import native
from trireme_runtime.errors import ArtifactError
from trireme_runtime.native import binding, cpu_flags, load, variants
from trireme_runtime.native.binding import BATCH, NativeStages
from trireme_runtime.native.shapes import joined
from trireme_runtime.schema import LAYOUTS, STAGES
from trireme_runtime.stages import chain
from trireme_runtime.stages.chain import Chain, Funnel, StageFailedError
from trireme_runtime.stages.ranking import Ranking
from trireme_runtime.stages.reranking import FAULT, RETRIEVAL_ORDER
from trireme_runtime.stages.stage import Stage, stage_inputs

FOLDER = Path(native.__file__).parent
TOLERANCE = 1e-4
#: Medium sizes, for tests of one behaviour.
PLAIN: dict[str, Any] = {
    **{"seed": 3, "items": 41, "users": 9, "length": 5, "categories": (4, 3), "numbers": 2, "popularity": 1},
    **{"latent": 13, "heads": 2, "feature_dim": 3, "hidden": 9, "rank_dim": 17, "rank_hidden": 11, "rank_history": 3},
    **{"rank_heads": 2, "candidates": 8, "popular_length": 9},
}
examples = settings(derandomize=True, deadline=None, database=None, max_examples=25)
#: Sizes, users (compiled stages take four, and sixty-four, at a time), and what requests hold.
requests = {
    "rows": st.sampled_from([1, 2, 3, 4, 5, 11, 70]),
    "seed": st.integers(0, 2**16),
    "history": st.booleans(),
    "excluding": st.booleans(),
}


class Staged(Funnel):
    """Every stage by itself, in Python."""

    compiles = False


@pytest.fixture(scope="module", params=variants(platform.machine(), cpu_flags()))
def kernels(request: pytest.FixtureRequest) -> Iterator[ctypes.PyDLL]:
    """Every library that this processor can run, as the one that chains use."""
    loaded = load(FOLDER, [request.param])
    assert loaded is not None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chain, "library", lambda: loaded)
        yield loaded


def staged(stages: list[Stage], request: dict[str, Any]) -> dict[str, Any]:
    """All tensors, stage by stage in Python."""
    tensors = dict(request)
    for stage in stages:
        tensors |= stage(**stage_inputs(stage.name, tensors))._asdict()
    return tensors


def alone(kernels: ctypes.PyDLL, stages: list[Stage], name: str, tensors: dict[str, Any]) -> dict[str, Any]:
    """What the compiled form of one stage answers to these inputs."""
    (stage,) = (stage for stage in stages if stage.name == name)
    outputs = {tensor.name for tensor in STAGES[name].outputs}
    given = {name: value for name, value in tensors.items() if name not in outputs}
    NativeStages(kernels, [name], stage.tables() or {}, outputs).run(given)
    return {name: given[name] for name in outputs}


def close(found: np.ndarray, expected: np.ndarray) -> None:
    listed = expected[expected > -1e30]
    np.testing.assert_allclose(
        found, expected, atol=TOLERANCE * max(1, np.ptp(listed) if listed.size else 0), rtol=1e-5
    )


def same_lists(found: dict[str, Any], expected: dict[str, Any]) -> None:
    """The same rungs, reasons and scores, and items but for those whose scores are about equal."""
    np.testing.assert_array_equal(found["rung"], expected["rung"])
    np.testing.assert_array_equal(found["reason"], expected["reason"])
    close(found["score"], expected["score"])
    score = expected["score"].astype(np.float64)
    scale = TOLERANCE * np.maximum(1, np.ptp(np.where(score > -1e30, score, score[:, :1]), axis=1, keepdims=True))
    apart = np.diff(score, axis=1, prepend=np.inf, append=-np.inf) < -2 * scale
    alike = found["item_id"] == expected["item_id"]
    assert (alike | ~(apart[:, :-1] & apart[:, 1:])).all()
    for mine, others in zip(found["item_id"], expected["item_id"], strict=True):
        assert (mine < 0).sum() == (others < 0).sum()


def ambiguous(stages: list[Stage], tensors: dict[str, Any]) -> np.ndarray:
    """The rows in which the last candidate and the best of the others are about equal, so that either may be one, or in which
    rounding decides whether a list of an inverted file is looked into."""
    search: Any = stages[2]
    query, every = tensors["query"], np.arange(search.index.catalogue_size)
    excluded = search.seen.pairs(tensors["user_row"], tensors["history_index"], tensors["excluded"])
    found, score = search.index.search(query, excluded, search.candidates + 1)
    score = -np.sort(-np.where(found >= 0, score.astype(np.float64), -1e30), axis=1)
    last, next_ = score[:, -2], score[:, -1]
    about = last < next_ + TOLERANCE * np.maximum(1, np.abs(last))
    borderline = np.array([search.index.borderline(one, every).any() for one in query], dtype=bool)
    return ((next_ > -1e30) & (last != next_) & about) | borderline


class TestEveryStage:
    """Each alone, with the inputs that the others make."""

    @examples
    @given(sizes=sizes(), **requests)
    def test_feature_transform_answers_the_same(
        self, kernels: ctypes.PyDLL, sizes: dict[str, Any], **request: Any
    ) -> None:
        stages = random_stages(sizes)
        tensors = staged(stages, random_request(stages, **request))
        for name, found in alone(kernels, stages, "feature_transform", tensors).items():
            np.testing.assert_allclose(found, tensors[name], rtol=1e-6)

    @examples
    @given(sizes=sizes(), **requests)
    def test_user_tower_answers_the_same(self, kernels: ctypes.PyDLL, sizes: dict[str, Any], **request: Any) -> None:
        stages = random_stages(sizes)
        tensors = staged(stages, random_request(stages, **request))
        close(alone(kernels, stages, "user_tower", tensors)["query"], tensors["query"])

    @examples
    @given(sizes=sizes(), **requests)
    def test_retrieval_answers_the_same(self, kernels: ctypes.PyDLL, sizes: dict[str, Any], **request: Any) -> None:
        stages = random_stages(sizes)
        tensors = staged(stages, random_request(stages, **request))
        found = alone(kernels, stages, "retrieval", tensors)
        sure = ~ambiguous(stages, tensors)
        np.testing.assert_array_equal(found["candidate_index"][sure], tensors["candidate_index"][sure])
        close(found["retrieval_score"], tensors["retrieval_score"])

    @examples
    @given(sizes=sizes(), **requests)
    def test_ranking_answers_the_same(self, kernels: ctypes.PyDLL, sizes: dict[str, Any], **request: Any) -> None:
        stages = random_stages(sizes)
        tensors = staged(stages, random_request(stages, **request))
        listed = tensors["candidate_index"] >= 0
        found = alone(kernels, stages, "ranking", tensors)["ranking_score"]
        close(found[listed], tensors["ranking_score"][listed])

    def test_a_user_who_runs_short_is_searched_in_more_lists(self, kernels: ctypes.PyDLL) -> None:
        stages = random_stages({**PLAIN, "items": 700, "candidates": 30, "lists": 40, "margin": 0.0, "users": 0})
        search: Any = stages[2]
        tensors = staged(stages, random_request(stages, 6, 1, history=False, excluding=False))
        nothing = np.empty(0, np.int64), np.empty(0, np.int32)
        best, _ = search.index.search(tensors["query"], nothing, 650)
        for leave in (30, 29):  # as many as are asked for, and one less
            # All but the worst are excluded for every second user: these lie in the last lists that are looked into.
            kept = np.stack([np.setdiff1d(np.arange(700), row)[:leave] for row in best[::2]])
            left_out = [
                (row, item)
                for row, own in zip(range(0, 6, 2), kept, strict=True)
                for item in range(700)
                if item not in own
            ]
            tensors["excluded"] = tuple(np.array(left_out).T)
            found = alone(kernels, stages, "retrieval", tensors)
            expected = search(**stage_inputs("retrieval", tensors))
            np.testing.assert_array_equal(found["candidate_index"], expected.candidate_index)
            close(found["retrieval_score"], expected.retrieval_score)
            for row, own in zip(found["candidate_index"][::2], kept, strict=True):
                assert sorted(row[row >= 0].tolist()) == own.tolist()
                assert (row[leave:] == -1).all()
            assert (found["candidate_index"][1::2] >= 0).all()

    @examples
    @given(sizes=sizes(), **requests)
    def test_reranking_answers_the_same(self, kernels: ctypes.PyDLL, sizes: dict[str, Any], **request: Any) -> None:
        stages = random_stages(sizes)
        tensors = staged(stages, random_request(stages, **request))
        for name, found in alone(kernels, stages, "reranking", tensors).items():
            np.testing.assert_array_equal(found, tensors[name])


class TestTheFunnel:
    @examples
    @given(sizes=sizes(), **requests)
    def test_compiled_stages_answer_the_same_lists(
        self, kernels: ctypes.PyDLL, sizes: dict[str, Any], **request: Any
    ) -> None:
        stages = random_stages(sizes)
        asked = random_request(stages, **request)
        funnel = Funnel(stages)
        assert funnel.compiled == tuple(STAGES)
        tensors = staged(stages, asked)
        sure = ~ambiguous(stages, tensors)
        names = [tensor.name for tensor in funnel.signature.answered]
        found = dict(zip(names, (output[sure] for output in funnel.run(**asked).outputs), strict=True))
        same_lists(found, {name: tensors[name][sure] for name in names})

    @examples
    @given(sizes=sizes(), **requests)
    def test_the_steps_of_the_ensemble_answer_what_the_funnel_does(
        self, kernels: ctypes.PyDLL, sizes: dict[str, Any], **request: Any
    ) -> None:
        stages = random_stages(sizes)
        asked = random_request(stages, **request)
        tensors = dict(asked)
        for names in LAYOUTS["cpu"].ensemble.values():
            part = Chain([stage for stage in stages if stage.name in names])
            inputs = {tensor.name: tensors[tensor.name] for tensor in part.signature.inputs}
            run = part.run(**inputs, excluded=asked["excluded"])
            tensors |= zip((tensor.name for tensor in part.signature.answered), run.outputs, strict=True)
        funnel = Funnel(stages)
        for tensor, output in zip(funnel.signature.answered, funnel.run(**asked).outputs, strict=True):
            np.testing.assert_array_equal(tensors[tensor.name], output)

    @examples
    @given(sizes=sizes(), **requests)
    def test_a_model_of_ones_own_leaves_the_others_compiled(
        self, kernels: ctypes.PyDLL, sizes: dict[str, Any], **request: Any
    ) -> None:
        stages = random_stages(sizes)
        asked = random_request(stages, **request)
        ranking: Any = stages[3]
        mixed = Funnel([*stages[:3], Ranking(ranking.model), stages[4]])
        assert mixed.compiled == ("feature_transform", "user_tower", "retrieval", "reranking")
        names = [tensor.name for tensor in mixed.signature.answered]
        tensors = staged(stages, asked)
        sure = ~ambiguous(stages, tensors)
        found = dict(zip(names, (output[sure] for output in mixed.run(**asked).outputs), strict=True))
        same_lists(found, {name: tensors[name][sure] for name in names})

    def test_an_empty_batch_has_empty_answers(self, kernels: ctypes.PyDLL) -> None:
        stages = random_stages(PLAIN)
        outputs = Funnel(stages).run(**random_request(stages, 0, 0, history=True, excluding=False)).outputs
        reranking: Any = stages[4]
        length = reranking.list_length
        assert [output.shape for output in outputs] == [(0, length), (0, length), (0, 1), (0, 1), (0, 1)]

    @pytest.mark.parametrize("lists", [0, 7, 40])
    def test_answers_do_not_depend_on_the_batch(self, kernels: ctypes.PyDLL, lists: int) -> None:
        stages = random_stages(
            {**PLAIN, "items": 700, "candidates": 30, "lists": lists, "margin": 0.05, "contexts": (3, 2)}
        )
        asked = random_request(stages, 2 * BATCH + 3, 2, history=True, excluding=True)
        row, item = asked["excluded"]
        funnel = Funnel(stages)
        together = funnel.run(**asked).outputs
        for user in range(0, 2 * BATCH + 3, 7):
            inputs = {name: asked[name][[user]] for name in ("user_id", "history", "context")}
            mine = np.zeros((row == user).sum(), int), item[row == user]
            for all_, one in zip(together, funnel.run(**inputs, excluded=mine).outputs, strict=True):
                np.testing.assert_allclose(one[0], all_[user], rtol=1e-4, atol=1e-4)

    def test_two_funnels_in_one_process_do_not_mix(self, kernels: ctypes.PyDLL) -> None:
        one, other = random_stages(PLAIN), random_stages({**PLAIN, "seed": 4, "length": 3, "items": 9})
        asked = [random_request(stages, 5, 1, history=True, excluding=False) for stages in (one, other)]
        funnels = Funnel(one), Funnel(other)
        first = [funnel.run(**request).outputs for funnel, request in zip(funnels, asked, strict=True)]
        again = [funnel.run(**request).outputs for funnel, request in zip(funnels, asked, strict=True)]
        for before, after in zip(first, again, strict=True):
            for a, b in zip(before, after, strict=True):
                np.testing.assert_array_equal(a, b)


class TestFaults:
    """Numbers that are none, or hardly any."""

    def tensors(self, rows: int = 6) -> tuple[list[Stage], dict[str, Any]]:
        stages = random_stages({**PLAIN, "items": 700, "seed": 5})
        return stages, staged(stages, random_request(stages, rows, 2, history=True, excluding=True))

    def test_weights_of_a_head_that_are_no_numbers_show_in_the_query(self, kernels: ctypes.PyDLL) -> None:
        stages, tensors = self.tensors()
        tower = copy.copy(stages[1])
        tower.compiled = {**tower.compiled, "position": np.full_like(tower.compiled["position"], np.nan)}
        query = alone(kernels, [tower], "user_tower", tensors)["query"]
        known = tensors["history_index"][:, -1] >= 0
        assert np.isnan(query[known][:, 0]).all()
        assert np.isfinite(query[~known]).all()

    def test_a_gate_that_is_no_number_shows_in_the_score(self, kernels: ctypes.PyDLL) -> None:
        stages, tensors = self.tensors()
        ranker = copy.copy(stages[3])
        ranker.compiled = {**ranker.compiled, "cross_bias": np.full_like(ranker.compiled["cross_bias"], np.nan)}
        score = alone(kernels, [ranker], "ranking", tensors)["ranking_score"]
        assert np.isnan(score[tensors["candidate_index"] >= 0]).all()

    def test_a_user_whose_features_are_no_numbers_leaves_the_next_one_alone(self, kernels: ctypes.PyDLL) -> None:
        stages = random_stages({**PLAIN, "latent": 4})
        features, ranker = stages[0], copy.copy(stages[3])
        features.category[1:3, 1] = 1, 2
        features.history[1:3] = np.arange(5)
        ranker.compiled = {**ranker.compiled, "rank_category": ranker.compiled["rank_category"].copy()}
        ranker.compiled["rank_category"][ranker.compiled["rank_first"][1] + 1] = np.nan
        funnel = Funnel([*stages[:3], ranker, stages[4]])
        broken, sound = features.user_ids[1:3].reshape(2, 1, 1)  # who have not seen everything
        before = funnel.run(user_id=sound).outputs
        assert funnel.run(user_id=broken).outputs[2:4] == (RETRIEVAL_ORDER, FAULT)
        for a, b in zip(before, funnel.run(user_id=sound).outputs, strict=True):
            np.testing.assert_array_equal(a, b)

    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
    def test_a_query_that_is_no_vector_finds_nothing(self, kernels: ctypes.PyDLL, value: float) -> None:
        stages, tensors = self.tensors()
        tensors["query"][[1, 4], 2] = value
        found, expected = alone(kernels, stages, "retrieval", tensors), stages[2](**stage_inputs("retrieval", tensors))
        assert (found["candidate_index"][[1, 4]] == -1).all()
        assert np.isnan(found["retrieval_score"][[1, 4]]).all()
        np.testing.assert_array_equal(found["candidate_index"], expected.candidate_index)

    @pytest.mark.parametrize("size", [1e-42, 1e-36, 1e-23, 1e-18, 0, 1e18, 1e34])
    def test_queries_of_any_length_find_the_same(self, kernels: ctypes.PyDLL, size: float) -> None:
        stages, tensors = self.tensors(rows=100)
        tensors["query"] = (np.rint(tensors["query"] * 4) * size).astype(np.float32)
        found, expected = alone(kernels, stages, "retrieval", tensors), stages[2](**stage_inputs("retrieval", tensors))
        score = np.sort(expected.retrieval_score, axis=1)
        np.testing.assert_allclose(np.sort(found["retrieval_score"], axis=1), score, rtol=1e-4, atol=size * 1e-3)

    @pytest.mark.parametrize("lists", [0, 7])
    def test_products_that_overflow_to_no_number_are_no_candidates(self, kernels: ctypes.PyDLL, lists: int) -> None:
        stages = random_stages({**PLAIN, "items": 700, "candidates": 2, "lists": lists, "margin": 1e9})
        tensors = staged(stages, random_request(stages, 40, 2, history=True, excluding=True))
        search: Any = stages[2]
        vectors = search.index.compiled["vectors"]
        vectors[::2] = 0
        vectors[1::2, 0], vectors[1::2, 1] = 1e9, -1e9
        tensors["query"] = np.full_like(tensors["query"], 1e30)
        found = alone(kernels, stages, "retrieval", tensors)
        assert np.isfinite(found["retrieval_score"]).all()
        place = search.index.compiled["place"] if lists else np.arange(700)
        candidates = found["candidate_index"][found["candidate_index"] >= 0]
        assert candidates.size > 40
        assert (place[candidates] % 2 == 0).all()

    def test_a_query_beyond_the_range_of_codes_is_looked_for_in_all_lists(self, kernels: ctypes.PyDLL) -> None:
        stages = random_stages({**PLAIN, "items": 700, "candidates": 2, "lists": 40, "margin": 0.0})
        tensors = staged(stages, random_request(stages, 40, 2, history=True, excluding=True))
        tensors["query"] = (tensors["query"] * 1e34).astype(np.float32)
        search: Any = stages[2]
        search.index.margin = 1e9
        with np.errstate(invalid="ignore", over="ignore"):
            expected = search(**stage_inputs("retrieval", tensors))
        search.index.margin = 0.0
        found = alone(kernels, stages, "retrieval", tensors)
        score = np.sort(expected.retrieval_score, axis=1)
        np.testing.assert_allclose(np.sort(found["retrieval_score"], axis=1), score, rtol=1e-4)

    def test_the_order_of_retrieval_stands_in_for_scores_that_are_no_numbers(self, kernels: ctypes.PyDLL) -> None:
        stages, tensors = self.tensors()
        tensors["history_index"][:] = np.arange(5)
        one, other, third = np.flatnonzero(tensors["candidate_index"][:, -1] >= 0)[:3]
        tensors["ranking_score"][one] = np.nan
        tensors["ranking_score"][other, 0], tensors["retrieval_score"][other, 2] = np.inf, np.nan
        tensors["ranking_score"][third], tensors["retrieval_score"][third] = np.nan, np.nan
        expected = stages[4](**stage_inputs("reranking", tensors))._asdict()
        for name, found in alone(kernels, stages, "reranking", tensors).items():
            np.testing.assert_array_equal(found, expected[name])
        assert expected["rung"][[one, other, third]].tolist() == [[RETRIEVAL_ORDER]] * 3


class TestRefusals:
    """Tensors that a stranger may send to a step of the ensemble: a wrong index would read, or write, foreign memory."""

    def refused(self, step: str, changes: dict[str, Any], error: type[Exception], message: str) -> None:
        stages = random_stages(PLAIN)
        asked = random_request(stages, 3, 2, history=True, excluding=False)
        asked["history"][:, -1] = stages[0].item_ids[0]
        tensors = staged(stages, asked)
        part = Chain([stage for stage in stages if stage.name in LAYOUTS["cpu"].ensemble[step]])
        inputs = {t.name: np.array(tensors[t.name]) for t in part.signature.inputs if tensors[t.name] is not None}
        part.run(**inputs)
        for name, change in changes.items():
            inputs[name] = change(inputs[name]) if callable(change) else change
        with pytest.raises(StageFailedError) as failure:
            part.run(**inputs)
        assert isinstance(failure.value.cause, error)
        assert re.search(message, str(failure.value.cause))

    @pytest.mark.parametrize(
        ("step", "tensor", "value"),
        [
            ("retrieval", "user_row", 9),
            ("retrieval", "user_row", -2),
            ("retrieval", "history_index", 41),
            ("retrieval", "history_index", -2),
            ("ranking", "user_row", 9),
            ("ranking", "history_index", 2**31 - 1),
            ("ranking", "user_category", 7),
            ("ranking", "user_category", -1),
            ("ranking", "candidate_index", 41),
            ("ranking", "candidate_index", -2),
        ],
    )
    def test_an_index_out_of_range_is_named(self, kernels: ctypes.PyDLL, step: str, tensor: str, value: int) -> None:
        def last(array: np.ndarray) -> np.ndarray:
            array[-1, -1] = value
            return array

        self.refused(step, {tensor: last}, IndexError, f"^{tensor} holds a value that is out of range")

    @pytest.mark.parametrize(("tensor", "column"), [("history_index", -1), ("candidate_index", 0)])
    def test_padding_among_items_is_named(self, kernels: ctypes.PyDLL, tensor: str, column: int) -> None:
        def padded(array: np.ndarray) -> np.ndarray:
            array[0] = 1
            array[0, column] = -1
            return array

        self.refused("ranking", {tensor: padded}, IndexError, f"^{tensor} holds a value that is out of range")

    @pytest.mark.parametrize("tensor", ["query", "user_row", "history_index"])
    def test_a_tensor_of_another_width_is_named(self, kernels: ctypes.PyDLL, tensor: str) -> None:
        def wider(array: np.ndarray) -> np.ndarray:
            return np.concatenate([array, array[:, :1]], axis=1)

        self.refused(
            "retrieval", {tensor: wider}, ValueError, rf"^{tensor} has the shape \[3, \d+\], needed: \[3, \d+\]"
        )

    @pytest.mark.parametrize("rows", [0, 2])
    def test_tensors_of_different_numbers_of_rows_are_named(self, kernels: ctypes.PyDLL, rows: int) -> None:
        def fewer(array: np.ndarray) -> np.ndarray:
            return array[:rows]

        self.refused(
            "retrieval", {"history_index": fewer}, ValueError, r"^query has the shape \[3, 15\], needed: \[\d, 15\]"
        )

    def test_an_input_that_is_missing_is_named(self, kernels: ctypes.PyDLL) -> None:
        stages = random_stages(PLAIN)
        tensors = staged(stages, random_request(stages, 2, 1, history=False, excluding=False))
        part = Chain([stages[2]])
        with pytest.raises(StageFailedError, match="KeyError: 'user_row'"):
            part.run(query=tensors["query"], history_index=tensors["history_index"])

    @pytest.mark.parametrize("item", [-1, 41])
    def test_an_excluded_item_out_of_range_is_refused(self, kernels: ctypes.PyDLL, item: int) -> None:
        stages = random_stages(PLAIN)
        asked = random_request(stages, 2, 1, history=False, excluding=False)
        with pytest.raises(StageFailedError, match="excluded holds a value that is out of range"):
            Funnel(stages).run(**{**asked, "excluded": (np.array([1]), np.array([item]))})

    @pytest.mark.parametrize(("table", "value"), [("history", 41), ("category", 4)])
    def test_a_table_of_users_with_an_index_out_of_range_is_refused(
        self, kernels: ctypes.PyDLL, table: str, value: int
    ) -> None:
        stages = random_stages(PLAIN)
        getattr(stages[0], table)[0, -1] = value
        with pytest.raises(StageFailedError, match=r"(history_index|user_category) holds a value that is out of range"):
            Funnel(stages).run(user_id=stages[0].user_ids[[0]][:, None])

    def test_a_seen_item_out_of_range_is_refused(self, kernels: ctypes.PyDLL) -> None:
        stages = random_stages(PLAIN)
        stages[2].seen.items[:] = 41
        user = np.flatnonzero(np.diff(stages[2].seen.offsets))[:1]
        with pytest.raises(StageFailedError, match="seen_items holds a value that is out of range"):
            Funnel(stages).run(user_id=stages[0].user_ids[user][:, None])


class TestTables:
    def test_stages_that_differ_about_a_size_are_refused(self, kernels: ctypes.PyDLL) -> None:
        one, other = random_stages(PLAIN), random_stages({**PLAIN, "feature_dim": 4})
        message = "^compiled stages: category_width is 3 in user_tower and 4 in ranking$"
        with pytest.raises(ArtifactError, match=message):
            Funnel([*one[:3], other[3], one[4]])

    def test_models_of_another_catalogue_are_refused(self, kernels: ctypes.PyDLL) -> None:
        one, other = random_stages(PLAIN), random_stages({**PLAIN, "items": 40})
        with pytest.raises(
            ArtifactError, match=r"^compiled stages: items is 41 in feature_transform and 40 in ranking$"
        ):
            Funnel([*one[:3], other[3], one[4]])

    @pytest.mark.parametrize("stage", range(5))
    @pytest.mark.parametrize("lists", [0, 7])
    def test_a_table_that_is_too_short_is_named(self, kernels: ctypes.PyDLL, lists: int, stage: int) -> None:
        made = random_stages({**PLAIN, "lists": lists, "contexts": (3, 2)})[stage]
        for name, table in (made.tables() or {}).items():
            if isinstance(table, np.ndarray) and name != "seen_offsets":
                tables = {**(made.tables() or {}), name: table.ravel()[:-1]}
                needed = f"^compiled {made.name}: {name} has {table.size - 1} values, needed: {table.size}$"
                with pytest.raises(ArtifactError, match=needed):
                    NativeStages(kernels, [made.name], tables, set())

    @pytest.mark.parametrize("stage", range(5))
    def test_a_table_or_size_that_is_missing_is_named(self, kernels: ctypes.PyDLL, stage: int) -> None:
        made = random_stages(PLAIN)[stage]
        for name in made.tables() or {}:
            tables = {key: value for key, value in (made.tables() or {}).items() if key != name}
            with pytest.raises(ArtifactError, match=f"^compiled {made.name}: there is no {name}; export again$"):
                NativeStages(kernels, [made.name], tables, set())

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"first": lambda first: first[[0, 2, 1, *range(3, first.size)]]}, "first is no order of lists"),
            ({"first": lambda first: first[[0, 2, 1, *range(3, first.size)]].astype("uint64")}, "first is no order"),
            ({"first": lambda first: first + 8}, "first is no order of lists of whole groups of 8 up to "),
            ({"first": lambda first: first - 1}, "first is no order of lists"),
            ({"first": lambda first: first.astype("float32")}, "first is float32, needed: int64"),
            ({"item": lambda item: np.where(item == 5, 41, item)}, "item holds -1 to 41, allowed: -1 to 40"),
            ({"item": lambda item: np.where(item == 5, -2, item)}, "item holds -2 to 40, allowed: -1 to 40"),
            ({"item": lambda item: np.where(item == 5, 6, item)}, "item and place are not the inverse"),
            ({"item": lambda item: np.where(item < 0, 6, item)}, "item and place are not the inverse"),
            ({"item": lambda item: item.astype(str)}, "item is str.*, needed: int32"),
            ({"place": lambda place: place - place.max() - 1}, r"place holds -\d+ to -1, allowed: 0 to"),
            ({"place": lambda place: place + 1000}, "place holds .* allowed: 0 to"),
            ({"place": lambda place: place[::-1]}, "item and place are not the inverse"),
            ({"place": np.zeros_like}, "item and place are not the inverse"),
            ({"lists": lambda lists: lists + 1}, "bonus has .* values, needed"),
            ({"places": lambda places: places + 8}, "item has .* values, needed"),
            ({"codes": lambda codes: codes.astype("float32")}, "codes is float32, needed: int8"),
        ],
    )
    def test_an_inverted_file_that_is_inconsistent_is_refused(
        self, kernels: ctypes.PyDLL, changes: dict[str, Any], message: str
    ) -> None:
        made = random_stages({**PLAIN, "lists": 7, "margin": 0.3})[2]
        tables = made.tables() or {}
        NativeStages(kernels, ["retrieval"], tables, set())
        tables = {**tables, **{name: change(tables[name]) for name, change in changes.items()}}
        with pytest.raises(ArtifactError, match=f"^compiled retrieval: {message}"):
            NativeStages(kernels, ["retrieval"], tables, set())

    @pytest.mark.parametrize(
        ("name", "value", "needed"),
        [
            *(("candidates", value, "a whole number from 1") for value in (0, -5, 8.0, "8", None)),
            *(("lists", value, "a whole number from 0") for value in (-7, 7.0, [7])),
            *(("margin", value, "a number from 0") for value in (-1, np.nan, "0.3", None)),
            ("longest", np.nan, "a number from 0"),
        ],
    )
    def test_a_size_that_is_none_is_refused(self, kernels: ctypes.PyDLL, name: str, value: Any, needed: str) -> None:
        stages = random_stages({**PLAIN, "lists": 7, "margin": 0.3})
        tables = joined({"retrieval": {**(stages[2].tables() or {}), name: value}})
        with pytest.raises(
            ArtifactError, match=rf"^compiled stages: {name} is {re.escape(repr(value))}, needed: {needed}$"
        ):
            NativeStages(kernels, ["retrieval"], tables, set())

    def test_padding_before_the_end_of_a_list_is_refused(self, kernels: ctypes.PyDLL) -> None:
        tables = random_stages({**PLAIN, "lists": 7, "margin": 0.3})[2].tables() or {}
        item, place = tables["item"].copy(), tables["place"].copy()
        end = int(np.flatnonzero(item < 0)[0])
        item[end - 1], item[end] = item[end], item[end - 1]
        place[item[end]] = end
        with pytest.raises(ArtifactError, match="item has padding before the end of a list"):
            NativeStages(kernels, ["retrieval"], {**tables, "item": item, "place": place}, set())

    def test_popular_items_out_of_range_are_refused(self, kernels: ctypes.PyDLL) -> None:
        stages = random_stages(PLAIN)
        stages[4].popular[0, 0] = 41
        with pytest.raises(ArtifactError, match=r"^compiled reranking: popular holds -1 to 41, allowed: -1 to 40$"):
            Funnel(stages)


@pytest.mark.parametrize(("name", "structure"), [("Bundle", binding.Bundle), ("Batch", binding.Batch)])
def test_python_has_the_fields_of_c_in_their_order(name: str, structure: type[ctypes.Structure]) -> None:
    header = re.sub(r"/\*.*?\*/", "", (FOLDER / "funnel.h").read_text(), flags=re.DOTALL)
    (body,) = re.findall(rf"typedef struct {{([^}}]*)}} {name};", header)
    kinds = {"int64_t": ctypes.c_int64, "float": ctypes.c_float}
    expected = [
        (field.strip(" *"), ctypes.c_void_p if "*" in field else kinds[kind])
        for kind, fields in re.findall(r"(?:const )?(\w+) ([^;]*);", body)
        for field in fields.split(",")
    ]
    assert list(structure._fields_) == expected
