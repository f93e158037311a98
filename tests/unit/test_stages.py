"""The stages on the toy funnel, against numbers worked out from their definitions."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from tests.support import toy
from trireme_export.exporters.product import exact_index
from trireme_runtime.errors import ArtifactError
from trireme_runtime.schema import STAGES, STORED, Dims
from trireme_runtime.stages.chain import STAGE_TYPES, Chain, Funnel, StageFailedError
from trireme_runtime.stages.feature_transform import FeatureTransform
from trireme_runtime.stages.reranking import (
    EXHAUSTED,
    FAULT,
    FULL,
    LOWEST,
    NONE,
    NOTHING_KNOWN,
    POPULAR,
    RETRIEVAL_ORDER,
    SEGMENT_POPULAR,
    Reranking,
    Slate,
)
from trireme_runtime.stages.retrieval import Retrieval
from trireme_runtime.stages.user_tower import UserTower

EMPTY = np.full((1, toy.DIMS.history), -1, dtype=np.int64)


@pytest.fixture(scope="module")
def funnel(tmp_path_factory: pytest.TempPathFactory) -> Funnel:
    return toy.funnel(tmp_path_factory.mktemp("toy"))


def stage(funnel: Funnel, kind: type) -> object:
    return next(stage for stage in funnel.stages if isinstance(stage, kind))


def user(row: int) -> np.ndarray:
    return toy.user_ids()[[row]][:, None]


class TestFeatureTransform:
    def test_known_user_gets_the_stored_history_and_features(self, funnel: Funnel) -> None:
        features = stage(funnel, FeatureTransform)(user(3))
        assert features.user_row.tolist() == [[3]]
        assert features.history_index.tolist() == [toy.stored_history()[3].tolist()]
        assert features.user_category.tolist() == [[0, 1]]
        np.testing.assert_allclose(features.user_number, [[-1 + 3 * 2 / 19, np.log1p(3)]], rtol=1e-6)

    def test_a_context_takes_the_last_columns_and_what_is_unknown_is_0(self) -> None:
        tables = FeatureTransform(
            np.array([5, 8]),
            np.array([10]),
            np.full((3, 2), -1, np.int32),
            np.array([[1, 0, 0], [2, 0, 0], [0, 0, 0]], np.int32),
            np.zeros((3, 0), np.float32),
            np.array([3, 2], np.int32),
        )
        users = np.array([[8], [5], [-1]])
        assert tables(users, None, np.array([[2, 1], [3, 0], [1, 2]], np.int32)).user_category.tolist() == [
            [2, 2, 1],
            [1, 0, 0],
            [0, 1, 0],
        ]
        assert tables(users).user_category.tolist() == [[2, 0, 0], [1, 0, 0], [0, 0, 0]]
        assert FeatureTransform.invalid_rows(users, None, np.array([[0, 1], [0, -4], [9, 9]], np.int32)) == {
            1: "context[1] is -4, allowed are 0 (unknown) and the indices of values"
        }

    def test_unknown_and_anonymous_users_have_no_row_and_no_features(self, funnel: Funnel) -> None:
        features = stage(funnel, FeatureTransform)(np.array([[999_999], [-1], [0]]))
        assert features.user_row.tolist() == [[-1]] * 3
        assert (features.history_index == -1).all()
        assert not features.user_category.any()
        assert not features.user_number.any()

    def test_given_history_replaces_the_stored_one(self, funnel: Funnel) -> None:
        features = stage(funnel, FeatureTransform)(user(5), np.array([[1007, 5, 1014, -1, 1000, -1]]))
        # Unknown item 5 and padding leave; the rest moves to the right, in order.
        assert features.history_index.tolist() == [[-1, -1, -1, 1, 2, 0]]
        np.testing.assert_allclose(features.user_number[0, -1], np.log1p(3), rtol=1e-6)

    def test_a_history_that_begins_with_minus_two_is_the_stored_one(self, funnel: Funnel) -> None:
        users = np.concatenate([user(5), user(6), user(6)])
        given = [1007, 1014, -1, -1, -1, -1]
        features = stage(funnel, FeatureTransform)(
            users, np.array([[STORED, 1007, -9, -1, -1, -1], given, [STORED] * 6])
        )
        stored = toy.stored_history()
        assert features.history_index.tolist() == [stored[5].tolist(), [-1, -1, -1, -1, 1, 2], stored[6].tolist()]
        np.testing.assert_allclose(features.user_number[:, -1], np.log1p([5, 2, 6]), rtol=1e-6)

    def test_invalid_rows_names_field_value_and_what_is_allowed(self) -> None:
        history = np.array([[1, 2], [3, -9], [4, 5], [STORED, -9], [5, STORED], [-3, 1]])
        problems = FeatureTransform.invalid_rows(np.array([[1], [2], [-2], [3], [4], [5]]), history)
        allowed = "allowed are ids ≥ 0, -1 (padding), and -2 in the first place (use the stored history)"
        assert problems == {
            1: f"history[1] is -9, {allowed}",
            2: "user_id is -2, allowed are ids ≥ 0 and -1 (anonymous)",
            4: f"history[1] is -2, {allowed}",
            5: f"history[0] is -3, {allowed}",
        }

    def test_without_users_everybody_is_unknown(self) -> None:
        none = FeatureTransform(
            np.empty(0, np.int64),
            toy.item_ids(),
            EMPTY.astype(np.int32),
            np.zeros((1, 1), np.int32),
            np.zeros((1, 0), np.float32),
        )
        assert none(np.array([[7]])).user_row.tolist() == [[-1]]


class TestUserTower:
    def test_query_is_what_the_graph_says(self, funnel: Funnel) -> None:
        history = np.array([[-1, -1, -1, -1, 4, 9]], dtype=np.int32)
        query = stage(funnel, UserTower)(history, np.zeros((1, 2), np.int32), np.zeros((1, 2), np.float32)).query
        np.testing.assert_allclose(query[0], toy.item_vectors()[[4, 9]].sum(axis=0), rtol=1e-6)


class TestRetrieval:
    def test_finds_the_best_unseen_items(self, funnel: Funnel) -> None:
        rng = np.random.default_rng(0)
        query = rng.normal(size=(toy.USERS, toy.DIMS.query)).astype(np.float32)
        rows = np.arange(toy.USERS, dtype=np.int32)
        history = toy.stored_history()[rows]
        found = stage(funnel, Retrieval)(query, rows[:, None], history)
        scores = query @ toy.item_vectors().T
        for row in rows:
            scores[row, history[row][history[row] >= 0]] = -np.inf
        expected = np.argsort(-scores, axis=1, kind="stable")[:, : toy.DIMS.candidates]
        # A set: the order of candidates is ranking's business.
        assert found.candidate_index.tolist() == np.sort(expected, axis=1).tolist()
        np.testing.assert_allclose(
            found.retrieval_score, np.take_along_axis(scores, np.sort(expected, axis=1), axis=1), rtol=1e-5
        )

    def test_what_a_request_excludes_makes_room_for_others_of_its_row(self, funnel: Funnel) -> None:
        query = np.repeat(toy.item_vectors()[:1], 3, axis=0)
        unknown, history = np.full((3, 1), -1, np.int32), np.full((3, toy.DIMS.history), -1, np.int32)
        search = stage(funnel, Retrieval)
        before = search(query, unknown, history)
        dropped = before.candidate_index[1, :5]
        found = search(query, unknown, history, (np.full(5, 1), dropped)).candidate_index
        assert found[[0, 2]].tolist() == before.candidate_index[[0, 2]].tolist()
        assert not set(found[1].tolist()) & set(dropped.tolist())
        assert (found[1] >= 0).all()
        assert set(before.candidate_index[1, 5:].tolist()) <= set(found[1].tolist())

    def test_a_small_catalogue_leaves_padding(self, tmp_path: Path) -> None:
        index = exact_index(toy.item_vectors()[:5], tmp_path)
        retrieval = Retrieval(index, toy.seen_items(), toy.DIMS.candidates, toy.item_ids()[:5])
        history = np.array([[-1, -1, -1, -1, -1, 2]], dtype=np.int32)
        found = retrieval(toy.item_vectors()[:1], np.array([[-1]], np.int32), history)
        assert sorted(found.candidate_index[0, :4].tolist()) == [0, 1, 3, 4]
        assert (found.candidate_index[0, 4:] == -1).all()
        assert not found.retrieval_score[0, 4:].any()


def rerank(funnel: Funnel, **changed: np.ndarray) -> object:
    """Candidates 10, 11, … with ranking scores 0, 1, … for an unknown user who has item 40 in his history."""
    count = toy.DIMS.candidates
    tensors = {
        "user_row": np.array([[-1]], np.int32),
        "history_index": np.array([[-1, -1, -1, -1, -1, 40]], np.int32),
        "user_category": np.zeros((1, 2), np.int32),
        "freshness": np.zeros((1, 1), np.float32),
        "candidate_index": np.arange(10, 10 + count, dtype=np.int32)[None],
        "retrieval_score": np.arange(count, 0, -1, dtype=np.float32)[None],
        "ranking_score": np.arange(count, dtype=np.float32)[None],
    }
    return stage(funnel, Reranking)(**(tensors | changed))


def ids(*index: int) -> list[int]:
    return [1000 + 7 * i for i in index]


class TestReranking:
    def test_orders_by_ranking_score(self, funnel: Funnel) -> None:
        slate = rerank(funnel)
        assert slate.item_id[0].tolist() == ids(*range(21, 13, -1))
        assert slate.score[0].tolist() == [11, 10, 9, 8, 7, 6, 5, 4]
        assert (slate.rung.tolist(), slate.reason.tolist()) == ([[FULL]], [[NONE]])

    def test_fills_with_popular_items_below_the_candidates(self, funnel: Funnel) -> None:
        candidates = np.full((1, toy.DIMS.candidates), -1, np.int32)
        candidates[0, :3] = [1, 7, 30]
        slate = rerank(funnel, candidate_index=candidates)
        # Popular are 0, 1, 2, …; 1 and 7 are there already.
        assert slate.item_id[0].tolist() == ids(30, 7, 1, 0, 2, 3, 4, 5)
        assert (np.diff(slate.score[0]) <= 0).all()
        assert slate.rung.tolist() == [[FULL]]

    def test_popular_items_that_are_excluded_fill_nothing(self, funnel: Funnel) -> None:
        """Of the second row of three, which alone is short with the third."""
        three = {
            "user_row": np.full((3, 1), -1, np.int32),
            "history_index": np.full((3, toy.DIMS.history), 40, np.int32),
            "user_category": np.zeros((3, 2), np.int32),
            "freshness": np.zeros((3, 1), np.float32),
            "candidate_index": np.tile(np.arange(10, 10 + toy.DIMS.candidates, dtype=np.int32), (3, 1)),
            "retrieval_score": np.zeros((3, toy.DIMS.candidates), np.float32),
            "ranking_score": np.tile(np.arange(toy.DIMS.candidates, dtype=np.float32), (3, 1)),
        }
        three["candidate_index"][1:, 3:] = -1
        excluded = np.array([1, 0, 1, 1]), np.array([0, 15, 2, 5], np.int32)
        slate = rerank(funnel, **three, excluded=excluded)
        assert slate.item_id[1].tolist() == ids(12, 11, 10, 1, 3, 4, 6, 7)
        assert slate.item_id[2].tolist() == ids(12, 11, 10, 0, 1, 2, 3, 4)

    @pytest.mark.parametrize("broken", [np.nan, np.inf])
    def test_falls_back_to_the_order_of_retrieval(self, funnel: Funnel, broken: float) -> None:
        scores = np.arange(toy.DIMS.candidates, dtype=np.float32)[None]
        scores[0, 4] = broken
        slate = rerank(funnel, ranking_score=scores)
        assert slate.item_id[0].tolist() == ids(*range(10, 18))
        assert (slate.rung.tolist(), slate.reason.tolist()) == ([[RETRIEVAL_ORDER]], [[FAULT]])

    def test_a_broken_score_of_padding_is_no_reason_to_fall_back(self, funnel: Funnel) -> None:
        candidates = np.arange(10, 10 + toy.DIMS.candidates, dtype=np.int32)[None]
        candidates[0, -1] = -1
        scores = np.arange(toy.DIMS.candidates, dtype=np.float32)[None]
        scores[0, -1] = np.nan
        slate = rerank(funnel, candidate_index=candidates, ranking_score=scores)
        assert slate.rung.tolist() == [[FULL]]
        assert slate.item_id[0, 0] == ids(20)[0]

    def test_without_history_the_popular_list_of_the_segment_or_of_all(self, funnel: Funnel) -> None:
        segment = np.array([[0, 1]], np.int32)
        empty = np.full((1, toy.DIMS.history), -1, np.int32)
        of_segment = rerank(funnel, history_index=empty, user_category=segment)
        assert of_segment.item_id[0].tolist() == ids(*range(49, 41, -1))
        assert of_segment.rung.tolist() == [[SEGMENT_POPULAR]]
        of_all = rerank(funnel, history_index=empty)
        assert of_all.item_id[0].tolist() == ids(*range(8))
        assert of_all.rung.tolist() == [[POPULAR]]
        assert of_segment.reason.tolist() == of_all.reason.tolist() == [[NOTHING_KNOWN]]
        np.testing.assert_allclose(of_all.score[0], 5 - np.arange(8) * 0.01, rtol=1e-6)

    def test_scores_of_a_filled_list_never_rise(self, funnel: Funnel) -> None:
        rng = np.random.default_rng(7)
        count = toy.DIMS.candidates
        candidates = np.full((2000, count), -1, np.int32)
        candidates[:, :3] = [1, 7, 30]
        tensors = {
            "user_row": np.full((2000, 1), -1, np.int32),
            "history_index": np.full((2000, toy.DIMS.history), 40, np.int32),
            "user_category": np.zeros((2000, 2), np.int32),
            "candidate_index": candidates,
            "retrieval_score": np.zeros((2000, count), np.float32),
            "ranking_score": rng.normal(0, 3, (2000, count)).astype(np.float32),
        }
        slate = rerank(funnel, **tensors)
        assert (np.diff(slate.score, axis=1) <= 0).all()

    def test_a_query_that_is_no_vector_is_a_fault_and_not_an_unknown_user(self, funnel: Funnel) -> None:
        users = toy.user_ids()[3:7, None]
        features = stage(funnel, FeatureTransform)(users)
        query = stage(funnel, UserTower)(features.history_index, features.user_category, features.user_number).query
        query = query.copy()
        query[1, 0] = np.nan
        found = stage(funnel, Retrieval)(query, features.user_row, features.history_index)
        assert (found.candidate_index[1] == -1).all()
        slate = stage(funnel, Reranking)(
            features.user_row,
            features.history_index,
            features.user_category,
            features.freshness,
            *found,
            np.where(np.isnan(found.retrieval_score), np.float32(np.nan), found.retrieval_score),
        )
        assert slate.rung[[0, 2, 3], 0].tolist() == [FULL] * 3
        assert slate.reason[:, 0].tolist() == [NONE, FAULT, NONE, NONE]
        assert slate.rung[1, 0] in (SEGMENT_POPULAR, POPULAR)
        assert (slate.item_id[1] >= 0).all()

    def test_a_user_who_has_seen_every_item(self, funnel: Funnel) -> None:
        count = toy.DIMS.candidates
        nothing = {
            "candidate_index": np.full((1, count), -1, np.int32),
            "retrieval_score": np.zeros((1, count), np.float32),
        }
        slate = rerank(funnel, **nothing)
        assert (slate.rung.tolist(), slate.reason.tolist()) == ([[POPULAR]], [[EXHAUSTED]])

    def test_what_popular_items_cannot_fill_is_padding(self, funnel: Funnel) -> None:
        short = Reranking(
            toy.item_ids(),
            np.array([[3, -1]], np.int32),
            np.array([[1, 0]], np.float32),
            toy.seen_items(),
            toy.DIMS.list_length,
            segment_column=0,
        )
        count = toy.DIMS.candidates
        slate = short(
            np.array([[-1]], np.int32),
            np.full((1, toy.DIMS.history), -1, np.int32),
            np.zeros((1, 2), np.int32),
            np.zeros((1, 1), np.float32),
            np.full((1, count), -1, np.int32),
            np.zeros((1, count), np.float32),
            np.zeros((1, count), np.float32),
        )
        assert slate.item_id[0].tolist() == [*ids(3), *[-1] * 7][: slate.item_id.shape[1]]
        assert (slate.score[0, 1:] == LOWEST).all()


class TestFunnel:
    def test_outputs_have_the_dtypes_and_shapes_of_the_schema(self, funnel: Funnel) -> None:
        users = np.concatenate([toy.user_ids(), [-1, 5]])[:, None]
        tensors: dict = {"user_id": users, "history": None, "context": None}
        for part in funnel.stages:
            signature = STAGES[part.name]
            outputs = part(**{tensor.name: tensors[tensor.name] for tensor in signature.inputs})
            for tensor, array in zip(signature.outputs, outputs, strict=True):
                assert array.dtype == tensor.numpy_dtype, tensor.name
                assert array.shape == (len(users), tensor.length(toy.DIMS)), tensor.name
                tensors[tensor.name] = array

    def test_the_answer_of_a_user_does_not_depend_on_his_batch(self, funnel: Funnel) -> None:
        users = np.concatenate([toy.user_ids(), [-1]])[:, None]
        together = funnel(users)
        for row in range(len(users)):
            alone = funnel(users[row : row + 1])
            assert alone.item_id.tolist() == together.item_id[row : row + 1].tolist()
            assert alone.rung.tolist() == together.rung[row : row + 1].tolist()

    def test_no_answer_holds_a_seen_item_or_one_twice(self, funnel: Funnel) -> None:
        slate = funnel(toy.user_ids()[:, None])
        for row, answer in enumerate(slate.item_id):
            seen = toy.item_ids()[toy.stored_history()[row][toy.stored_history()[row] >= 0]]
            assert not set(answer.tolist()) & set(seen.tolist())
            assert len(set(answer.tolist())) == answer.size

    def test_with_an_empty_history_what_the_user_has_seen_stays_excluded_and_their_segment_counts(
        self, funnel: Funnel
    ) -> None:
        """The history that a request gives replaces what the models read, not what is known of the user."""
        users = toy.user_ids()[:, None]
        slate = funnel(users, np.full((len(users), toy.DIMS.history), -1, np.int64))
        features = stage(funnel, FeatureTransform)(users)
        segment = features.user_category[:, stage(funnel, Reranking).segment_column]
        assert slate.rung[:, 0].tolist() == np.where(segment > 0, SEGMENT_POPULAR, POPULAR).tolist()
        offsets, items = stage(funnel, Reranking).seen.offsets, stage(funnel, Reranking).seen.items
        for row, answer in enumerate(slate.item_id):
            seen = toy.item_ids()[items[offsets[row] : offsets[row + 1]]]
            assert not set(answer.tolist()) & set(seen.tolist())

    def test_no_excluded_item_comes_back_and_lists_stay_full(self, funnel: Funnel) -> None:
        """Of users with and without a history, whose lists are retrieved or popular."""
        users = np.concatenate([toy.user_ids(), [-1]])[:, None]
        whole = funnel(users).item_id
        dropped = np.searchsorted(funnel.item_ids, whole[:, :5])
        rows = np.repeat(np.arange(0, len(users), 2), 5)
        slate = Slate(*funnel.run(user_id=users, excluded=(rows, dropped[::2].ravel())).outputs)
        for row, item_id in enumerate(slate.item_id.tolist()):
            if row % 2:
                assert item_id == whole[row].tolist()
            else:
                assert not set(item_id) & set(whole[row, :5].tolist())
            assert len(set(item_id) - {-1}) == toy.DIMS.list_length

    def test_survives_saving_and_loading(self, funnel: Funnel, tmp_path: Path) -> None:
        funnel.save(tmp_path)
        loaded = Funnel.load(tmp_path)
        users = np.concatenate([toy.user_ids(), [-1]])[:, None]
        for before, after in zip(funnel(users), loaded(users), strict=True):
            assert before.tolist() == after.tolist()


class TestArtifacts:
    @pytest.fixture
    def saved(self, funnel: Funnel, tmp_path: Path) -> Path:
        funnel.save(tmp_path)
        return tmp_path

    @pytest.mark.parametrize("kind", STAGE_TYPES, ids=lambda kind: kind.name)
    def test_a_missing_description_is_named(self, saved: Path, kind: type) -> None:
        file = saved / kind.name / "stage.json"
        file.unlink()
        with pytest.raises(ArtifactError, match=f"{file}: cannot be read"):
            kind.load(saved / kind.name)

    @pytest.mark.parametrize(
        ("old", "new", "message"),
        [
            ('"format_version": 1', '"format_version": 9', "format_version is 9, expected 1"),
            ("feature_transform", "ranking", "stage is 'ranking', expected 'feature_transform'"),
            ('"dtype": "int64"', '"dtype": "int32"', "stage.json says"),
            ("{", "", "is not JSON"),
        ],
    )
    def test_a_changed_description_is_refused(self, saved: Path, old: str, new: str, message: str) -> None:
        file = saved / "feature_transform" / "stage.json"
        file.write_text(file.read_text().replace(old, new, 1))
        with pytest.raises(ArtifactError, match=message):
            FeatureTransform.load(file.parent)

    @pytest.mark.parametrize(
        ("name", "kind", "message"),
        [
            ("feature_transform/user_ids.npy", FeatureTransform, "cannot be read as an npy array"),
            ("user_tower/model.onnx", UserTower, "cannot be loaded by ONNX Runtime"),
            ("retrieval/index/compiled/codes.npy", Retrieval, "cannot be read as an npy array"),
        ],
    )
    def test_a_damaged_file_is_named(self, saved: Path, name: str, kind: type, message: str) -> None:
        (saved / name).write_bytes(b"not this")
        with pytest.raises(ArtifactError, match=message):
            kind.load(saved / kind.name)

    def test_a_damaged_graph_is_named_where_nothing_is_compiled(self, saved: Path) -> None:
        shutil.rmtree(saved / "retrieval" / "index" / "compiled")
        (saved / "retrieval" / "index" / "model.onnx").write_bytes(b"not this")
        with pytest.raises(ArtifactError, match="cannot be loaded by ONNX Runtime"):
            Retrieval.load(saved / "retrieval")


class TestDims:
    @pytest.mark.parametrize("field", [field.name for field in fields(Dims) if field.name != "context"])
    def test_every_size_is_at_least_one(self, field: str) -> None:
        sizes = {each.name: 1 for each in fields(Dims)}
        with pytest.raises(ValueError, match=f"dims.{field} is 0"):
            Dims(**(sizes | {field: 0}))

    def test_there_may_be_no_context(self) -> None:
        sizes = {each.name: 1 for each in fields(Dims)}
        assert Dims(**(sizes | {"context": 0})).context == 0
        with pytest.raises(ValueError, match=r"dims\.context is -1, must be at least 0"):
            Dims(**(sizes | {"context": -1}))

    def test_an_answer_is_no_longer_than_the_candidates(self) -> None:
        with pytest.raises(ValueError, match=r"at most dims\.candidates 5"):
            Dims(history=1, candidates=5, list_length=6, query=1, category=1, number=1, catalogue=1)


def test_stages_import_neither_torch_nor_the_exporter() -> None:
    code = (
        "import sys, trireme_runtime.stages.chain, trireme_runtime.bundle, trireme_runtime.triton.adapter;"
        "print([m for m in ('torch', 'pydantic', 'typer', 'pyarrow', 'tritonclient', 'trireme_export',"
        " 'trireme_server', 'trireme_client') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_a_chain_reports_the_stage_that_raised_and_the_time_of_those_that_ran(tmp_path: Path) -> None:
    class Broken:
        name = "retrieval"

        def __call__(self, **tensors: np.ndarray) -> None:
            raise ValueError("thirteen")

        def tables(self) -> None: ...

    stages = toy.funnel(tmp_path).stages
    chain = Chain((*stages[:2], Broken(), *stages[3:]))  # type: ignore[arg-type]
    with pytest.raises(StageFailedError, match=r"^retrieval: ValueError: thirteen$") as raised:
        chain.run(user_id=np.array([[103]]), history=None)
    assert len(raised.value.times) == 3
    assert min(raised.value.times) > 0
