"""Answers of graph models against the expected ones: what is let through, and what is found. A fake server computes nothing; the
end-to-end test asks a server."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tritonclient.grpc.model_config_pb2 import ModelConfig

from tests.support.graph_repository import config_of, publish, write_graph_repository
from trireme_server import ParityError, RepositoryError
from trireme_server.plans import check_parity
from trireme_server.plans.answers import Answers, Tolerance
from trireme_server.plans.parity import batch_sizes
from trireme_server.plans.profile import Profile

TOLERANCE = Tolerance(score_difference=0.03, index_recall=0.9)
SAMPLES, CANDIDATES = 16, 20
ORDER = np.arange(SAMPLES)


@pytest.fixture
def generator() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture
def query(generator: np.random.Generator) -> np.ndarray:
    return generator.standard_normal((SAMPLES, 8)).astype(np.float32)


@pytest.fixture
def funnel(generator: np.random.Generator) -> dict[str, np.ndarray]:
    """Candidates of each user with scores; the last three of each are padding."""
    index = np.stack([generator.permutation(500)[:CANDIDATES] for _ in range(SAMPLES)]).astype(np.int32)
    index[:, -3:] = -1
    scores = generator.standard_normal((2, SAMPLES, CANDIDATES)).astype(np.float32)
    return {"candidate_index": index, "retrieval_score": scores[0], "ranking_score": scores[1]}


def shuffled(answer: dict[str, np.ndarray], generator: np.random.Generator) -> dict[str, np.ndarray]:
    """The same candidates of each user in another order."""
    orders = np.stack([generator.permutation(CANDIDATES) for _ in range(SAMPLES)])
    return {name: np.take_along_axis(values, orders, axis=1) for name, values in answer.items()}


class TestScores:
    def test_rounding_is_let_through(self, query: np.ndarray) -> None:
        answers = Answers({"query": query}, None, TOLERANCE)
        assert answers.problem(ORDER, {"query": query}) is None
        assert answers.problem(ORDER, {"query": query.astype(np.float16).astype(np.float32)}) is None

    def test_a_difference_beyond_the_tolerance(self, query: np.ndarray) -> None:
        answers = Answers({"query": query}, None, TOLERANCE)
        spread = float(query.std())
        assert answers.problem(ORDER, {"query": query + 0.029 * spread}) is None
        said = answers.problem(ORDER, {"query": query + 0.031 * spread})
        assert said == "output query differs by 0.0310 standard deviations of what is expected; allowed: 0.0300"

    def test_one_user_who_is_far_off(self, query: np.ndarray) -> None:
        answers = Answers({"query": query}, None, Tolerance(0.1, 1.0))
        found = query.copy()
        found[5] += 1.1 * query.std()
        assert np.sqrt(np.mean((found - query) ** 2)) / query.std() > 0.1
        many = np.concatenate([np.tile(ORDER, 20), ORDER])
        found = np.concatenate([np.tile(query, (20, 1)), found])
        said = answers.problem(many, {"query": found})
        assert said is not None
        assert said.startswith("output query for sample 5 alone differs by 1.1000 standard deviations")

    @pytest.mark.parametrize("value", [np.nan, np.inf])
    def test_what_is_no_number(self, query: np.ndarray, value: float) -> None:
        found = query.copy()
        found[3, 2] = value
        said = Answers({"query": query}, None, TOLERANCE).problem(ORDER, {"query": found})
        assert said == "output query holds values that are no numbers; allowed: finite ones"

    def test_an_answer_of_another_request(self, query: np.ndarray) -> None:
        found = query.copy()
        found[7] = query[4]
        said = Answers({"query": query}, None, TOLERANCE).problem(ORDER, {"query": found})
        assert said is not None
        assert said.startswith("output query for sample 7 is that of another request, for sample 4; it differs by")

    def test_an_answer_of_another_request_is_found_even_where_all_answers_are_close(self, query: np.ndarray) -> None:
        close = np.float32(5) + query * 0 + np.linspace(-3, 3, 8, dtype=np.float32)
        close[7] += np.float32(0.1)
        found = close.copy()
        found[7] = close[4]
        said = Answers({"query": close}, None, TOLERANCE).problem(ORDER, {"query": found})
        assert said is not None
        assert "is that of another request" in said

    def test_rows_are_compared_with_the_sample_that_they_answer(self, query: np.ndarray) -> None:
        answers = Answers({"query": query}, None, TOLERANCE)
        order = ORDER[::-1]
        assert answers.problem(order, {"query": query[order]}) is None
        assert answers.problem(order, {"query": query}) is not None

    def test_scores_of_padding_are_undefined(self, funnel: dict[str, np.ndarray]) -> None:
        given, scores = funnel["candidate_index"], funnel["ranking_score"]
        found = np.where(given < 0, np.nan, scores)
        answers = Answers({"ranking_score": scores}, given, TOLERANCE)
        assert answers.problem(ORDER, {"ranking_score": found}) is None
        assert Answers({"ranking_score": scores}, None, TOLERANCE).problem(ORDER, {"ranking_score": found}) is not None

    def test_where_all_expected_scores_are_equal_the_unit_is_one(self) -> None:
        answers = Answers({"query": np.zeros((4, 2), np.float32)}, None, TOLERANCE)
        assert answers.problem(np.arange(4), {"query": np.full((4, 2), 0.02, np.float32)}) is None
        assert answers.problem(np.arange(4), {"query": np.full((4, 2), 0.04, np.float32)}) is not None


class TestCandidates:
    def test_their_order_does_not_matter(self, funnel: dict[str, np.ndarray], generator: np.random.Generator) -> None:
        assert Answers(funnel, None, TOLERANCE).problem(ORDER, shuffled(funnel, generator)) is None

    def test_one_user_whose_candidates_are_others(self, funnel: dict[str, np.ndarray]) -> None:
        found = np.tile(funnel["candidate_index"], (20, 1))
        found[5] = np.arange(600, 600 + CANDIDATES)
        answers = Answers({"candidate_index": funnel["candidate_index"]}, None, Tolerance(0.03, 0.98))
        said = answers.problem(np.tile(ORDER, 20), {"candidate_index": found})
        assert said is not None
        assert said.startswith("output candidate_index for sample 5 alone holds 0.0000 of the expected candidates")

    def test_scores_are_those_of_the_item(self, funnel: dict[str, np.ndarray], generator: np.random.Generator) -> None:
        found = shuffled(funnel, generator) | {"ranking_score": funnel["ranking_score"]}
        said = Answers(funnel, None, TOLERANCE).problem(ORDER, found)
        assert said is not None
        assert said.startswith("output ranking_score differs by")

    def test_more_are_missing_than_allowed(self, funnel: dict[str, np.ndarray]) -> None:
        answers = Answers({"candidate_index": funnel["candidate_index"]}, None, TOLERANCE)
        found = funnel["candidate_index"].copy()
        found[:, 0] = 900
        assert answers.problem(ORDER, {"candidate_index": found}) is None  # 16 of 17
        found[:, 1] = 901
        said = answers.problem(ORDER, {"candidate_index": found})
        assert said == "output candidate_index holds 0.8824 of the expected candidates; allowed: at least 0.9000"

    def test_of_equal_scores_at_the_cut_off_any_will_do(self, funnel: dict[str, np.ndarray]) -> None:
        lowest = funnel["retrieval_score"][:, :-3].min(axis=1, keepdims=True)
        funnel["retrieval_score"][:, :4] = lowest
        found = {name: values.copy() for name, values in funnel.items()}
        found["candidate_index"][:, :4] = [900, 901, 902, 903]
        answers = Answers(funnel, None, TOLERANCE)
        assert answers.problem(ORDER, found) is None
        found["retrieval_score"][:, :4] += 1
        assert answers.problem(ORDER, found) is not None

    def test_candidates_of_another_request(self, funnel: dict[str, np.ndarray]) -> None:
        found = {name: values.copy() for name, values in funnel.items()}
        for name in found:
            found[name][7] = funnel[name][4]
        said = Answers(funnel, None, TOLERANCE).problem(ORDER, found)
        assert said is not None
        assert said.startswith("output candidate_index for sample 7 is that of another request, for sample 4")

    def test_none_where_none_are_expected(self, funnel: dict[str, np.ndarray]) -> None:
        funnel["candidate_index"][2] = -1
        answers = Answers(funnel, None, Tolerance(0.03, 0.98))
        assert answers.problem(ORDER, funnel) is None
        found = {name: values.copy() for name, values in funnel.items()}
        found["candidate_index"][2, 0] = 3
        said = answers.problem(ORDER, found)
        assert said == "output candidate_index holds 0.9375 of the expected candidates; allowed: at least 0.9800"


class FakeApi:
    """Answers by a function, and keeps the batches that it was asked for."""

    def __init__(self, answer: Callable[[np.ndarray], dict[str, np.ndarray]]) -> None:
        self._answer = answer
        self.asked: list[tuple[str, np.ndarray]] = []

    def infer(self, model: str, inputs: dict[str, np.ndarray], timeout_s: float) -> dict[str, np.ndarray]:
        self.asked.append((model, inputs["user_number"]))
        return self._answer(inputs["user_number"])


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    return write_graph_repository(tmp_path / "repository", ("user_tower",), engine="onnxruntime")


@pytest.fixture
def ask(repository: Path) -> Callable[..., FakeApi]:
    """Checks parity with a server that answers as the function says, which gets the right answers."""
    with np.load(repository / "user_tower/1/samples.npz") as samples:
        known = {
            row.tobytes(): answer for row, answer in zip(samples["in:user_number"], samples["out:query"], strict=True)
        }

    def asked(change: Callable[[np.ndarray], Any] = lambda right: {"query": right}) -> FakeApi:
        api = FakeApi(lambda users: change(np.stack([known[row.tobytes()] for row in users])))
        check_parity(api, repository)  # type: ignore[arg-type]
        return api

    return asked


class TestAsking:
    def test_alone_between_and_in_the_largest_batches_in_changing_orders_twice(
        self, ask: Callable[..., FakeApi]
    ) -> None:
        api = ask()
        sizes = [len(users) for _, users in api.asked]
        once = [1] * 12 + [4] * 3 + [5] * 3 + [8] * 2
        assert sizes == once * 2
        alone = [users.tobytes() for _, users in api.asked[:12]]
        again = [users.tobytes() for _, users in api.asked[len(once) : len(once) + 12]]
        assert sorted(alone) == sorted(again)
        assert alone != again
        assert {name for name, _ in api.asked} == {"user_tower"}

    @pytest.mark.parametrize(("most", "sizes"), [(1, [1]), (2, [1, 2]), (3, [1, 2, 3]), (64, [1, 32, 33, 64])])
    def test_sizes(self, most: int, sizes: list[int]) -> None:
        assert batch_sizes(Profile.of(ModelConfig(max_batch_size=most))) == sizes

    def test_an_error_names_the_model_the_size_and_the_difference(self, ask: Callable[..., FakeApi]) -> None:
        def wrong_in_full_batches(right: np.ndarray) -> dict[str, np.ndarray]:
            return {"query": right + 0.5 * (len(right) == 8)}

        message = r"^model user_tower, batches of 8: output query differs by 0\.\d+ standard .*; allowed: 0\.0300$"
        with pytest.raises(ParityError, match=message):
            ask(wrong_in_full_batches)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda right: {}, r"output query is missing; expected shape \[1, 4\]"),
            (lambda right: {"query": right[:, :3]}, r"output query is of shape \[1, 3\]; expected shape \[1, 4\]"),
        ],
    )
    def test_outputs_of_another_shape(
        self, ask: Callable[..., FakeApi], change: Callable[..., Any], message: str
    ) -> None:
        with pytest.raises(ParityError, match=message):
            ask(change)

    def test_a_model_without_samples(self, ask: Callable[..., FakeApi], repository: Path) -> None:
        (repository / "user_tower/1/samples.npz").unlink()
        with pytest.raises(RepositoryError, match=r"user_tower/1/samples\.npz: cannot be read"):
            ask()

    def test_samples_of_different_numbers(self, ask: Callable[..., FakeApi], repository: Path) -> None:
        arrays = {"in:user_number": np.zeros((3, 5), np.float32), "out:query": np.zeros((2, 4), np.float32)}
        np.savez(repository / "user_tower/1/samples.npz", **arrays)
        publish(repository)
        with pytest.raises(RepositoryError, match="holds no samples with inputs and outputs of the same users"):
            ask()

    @pytest.mark.parametrize("text", ["", "[]", json.dumps({"score_difference": 0.1}), json.dumps({"scores": 1})])
    def test_a_model_without_a_tolerance(self, ask: Callable[..., FakeApi], repository: Path, text: str) -> None:
        with config_of(repository, "user_tower") as config:
            config.parameters["parity"].string_value = text
        with pytest.raises(RepositoryError, match="user_tower: parameter parity of its config is not a tolerance"):
            ask()
