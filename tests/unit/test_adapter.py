"""The adapter: one array call per batch, and errors that stay with the request that caused them."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tests.support import fake_backend, toy
from tests.support.fake_backend import Request
from tests.support.random_checkpoint import SIZES
from tests.support.random_funnel import random_stages
from trireme_runtime.schema import FEATURE_AGE, FRESHNESS, ITEM_ID, LEDGER, REASON, STAGES, STORED
from trireme_runtime.stages.chain import Chain, Funnel, Run, StageFailedError
from trireme_runtime.triton.adapter import Adapter
from trireme_runtime.triton.parameters import MOST_EXCLUDED, most_characters, vocabulary_of


class Recorder:
    """A chain with the inputs and the output of user_tower that remembers the batches it was called with."""

    signature = STAGES["user_tower"]
    item_ids = None
    compiles = False

    def __init__(self) -> None:
        self.batches: list[int] = []

    def invalid_rows(self, **inputs: np.ndarray) -> dict[int, str]:
        return {}

    def run(self, history_index: np.ndarray, user_category: np.ndarray, user_number: np.ndarray, excluded: None) -> Run:
        self.batches.append(len(user_number))
        if (user_number == 13).any():
            raise StageFailedError("user_tower", (1,), RuntimeError("thirteen"))
        return Run((user_number * 2,), (1,))


WIDTH_ONE = fake_backend.config(dict.fromkeys(("history_index", "user_category", "user_number"), 1))


def tower_request(*values: float) -> Request:
    number = np.array(values, np.float32)[:, None]
    zeros = np.zeros((len(values), 1), np.int32)
    return Request({"history_index": zeros, "user_category": zeros, "user_number": number})


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
def tower(recorder: Recorder) -> Adapter:
    return Adapter(recorder, fake_backend, WIDTH_ONE)


@pytest.fixture(scope="module")
def funnel(tmp_path_factory: pytest.TempPathFactory) -> Funnel:
    return toy.funnel(tmp_path_factory.mktemp("toy"))


@pytest.fixture
def recommend(funnel: Funnel) -> Adapter:
    return Adapter(funnel, fake_backend, fake_backend.chain_config(funnel, toy.DIMS))


def ask(*users: int, history: list[list[int]] | None = None) -> Request:
    inputs = {"user_id": np.array(users, np.int64)[:, None]}
    if history is not None:
        inputs["history"] = np.array(history, np.int64)
    return Request(inputs)


def test_a_batch_is_one_call_and_every_request_gets_its_rows(tower: Adapter, recorder: Recorder) -> None:
    responses = tower.execute([tower_request(1), tower_request(2, 3), tower_request(4)])
    assert recorder.batches == [4]
    assert [r.output_tensors[0].array.ravel().tolist() for r in responses] == [[2], [4, 6], [8]]
    assert all(r.error is None for r in responses)


def test_no_requests_no_responses(tower: Adapter, recorder: Recorder) -> None:
    assert tower.execute([]) == []
    assert recorder.batches == []


def test_a_failing_request_fails_alone(tower: Adapter) -> None:
    responses = tower.execute([tower_request(1), tower_request(13), tower_request(3)])
    assert [r.error and r.error.message for r in responses] == [None, "RuntimeError: thirteen", None]
    assert responses[1].error.code == fake_backend.TritonError.INTERNAL
    assert responses[2].output_tensors[0].array.tolist() == [[6]]


def test_two_failing_requests_among_64_leave_their_neighbours_their_answers(
    tower: Adapter, recorder: Recorder, caplog: pytest.LogCaptureFixture
) -> None:
    responses = tower.execute([tower_request(13 if place in (5, 50) else 1) for place in range(64)])
    assert [place for place, response in enumerate(responses) if response.error] == [5, 50]
    assert len(recorder.batches) <= 1 + 4 * 6
    assert [record.getMessage() for record in caplog.records] == ["a stage failed on a batch of 64 requests"]


def test_a_broken_stage_is_not_tried_for_every_request(
    tower: Adapter, recorder: Recorder, caplog: pytest.LogCaptureFixture
) -> None:
    responses = tower.execute([tower_request(13)] * 64)
    assert all(response.error.message == "RuntimeError: thirteen" for response in responses)
    assert len(recorder.batches) <= 1 + 4 * 6
    assert len(caplog.records) == 1


@pytest.mark.parametrize(
    ("user_id", "words"),
    [
        # As Triton 2.51 hands over [0, 1], [2**32, 1] and [-2**32, 1] with the bytes of one id.
        (np.array([103]), "user_id has the shape [1], allowed is [1 to 4, 1]"),
        (np.array([[103, 106]]), "user_id has the shape [1, 2], allowed is [1 to 4, 1]"),
        (np.empty((0, 1), np.int64), "user_id has the shape [0, 1], allowed is [1 to 4, 1]"),
        (np.array(103), "user_id has the shape [], allowed is [1 to 4, 1]"),
        (np.array([[103]] * 5), "user_id has the shape [5, 1], allowed is [1 to 4, 1]"),
    ],
)
def test_a_request_of_another_shape_is_refused_alone(funnel: Funnel, user_id: np.ndarray, words: str) -> None:
    adapter = Adapter(funnel, fake_backend, fake_backend.chain_config(funnel, toy.DIMS, max_batch_size=4))
    first, broken, last = adapter.execute([ask(103), Request({"user_id": user_id}), ask(106)])
    assert (broken.error.message, broken.error.code) == (words, fake_backend.TritonError.INVALID_ARG)
    assert first.error is None
    assert last.error is None


def test_inputs_of_different_lengths_are_refused(recommend: Adapter) -> None:
    request = ask(103, 106, history=[[1007, 1014, -1, -1, -1, -1]])
    (response,) = recommend.execute([request])
    assert "different numbers of users: {'user_id': 2, 'history': 1}" in response.error.message


def test_nothing_that_goes_wrong_leaves_execute(funnel: Funnel) -> None:
    class Unreadable(Request):
        def parameters(self) -> str:
            raise RuntimeError("no parameters")

    def note(times: object, outputs: object) -> None:
        raise RuntimeError("not noted")

    config = fake_backend.chain_config(funnel, toy.DIMS)
    unreadable = Unreadable({"user_id": np.array([[103]])})
    answered, failed = Adapter(funnel, fake_backend, config).execute([ask(103), unreadable])
    assert answered.error is None
    assert failed.error.message == "RuntimeError: no parameters"
    (failed,) = Adapter(funnel, fake_backend, config, note).execute([ask(103)])
    assert (failed.error.message, failed.error.code) == ("RuntimeError: not noted", fake_backend.TritonError.INTERNAL)


def test_a_missing_input_is_named_and_the_neighbours_are_answered(tower: Adapter) -> None:
    broken = tower_request(1)
    del broken.inputs["user_number"]
    responses = tower.execute([broken, tower_request(5)])
    assert responses[0].error.message == "input user_number is missing, float32 [batch, n] is required"
    assert responses[0].error.code == fake_backend.TritonError.INVALID_ARG
    assert responses[1].output_tensors[0].array.tolist() == [[10]]


def test_invalid_rows_are_refused_by_request(recommend: Adapter, funnel: Funnel) -> None:
    requests = [ask(103), ask(106, -5, -9), ask(109), ask(-2)]
    responses = recommend.execute(requests)
    assert [r.error and r.error.message for r in responses] == [
        None,
        "user_id is -5, allowed are ids ≥ 0 and -1 (anonymous) (row 1 of the request)",
        None,
        "user_id is -2, allowed are ids ≥ 0 and -1 (anonymous)",
    ]
    for position in (0, 2):
        expected = funnel(requests[position].inputs["user_id"])
        assert responses[position].output_tensors[0].array.tolist() == expected.item_id.tolist()


def test_only_invalid_requests_do_not_reach_the_stage(recommend: Adapter) -> None:
    assert [r.error is not None for r in recommend.execute([ask(-2), ask(-3)])] == [True, True]


def test_requests_with_and_without_history_are_one_batch_and_answered_in_order(funnel: Funnel) -> None:
    history = [[1007, 1014, -1, -1, -1, -1]]
    requests = [
        ask(103),
        ask(-1, history=history),
        ask(106),
        ask(103, history=history),
        ask(109, history=[[STORED] * 6]),
    ]
    batches: list[int] = []
    config = fake_backend.chain_config(funnel, toy.DIMS)
    adapter = Adapter(funnel, fake_backend, config, lambda times, outputs: batches.append(len(outputs[0])))
    responses = adapter.execute(requests)
    assert batches == [5]
    for request, response in zip(requests, responses, strict=True):
        expected = funnel(**request.inputs)
        names = [tensor.tensor_name for tensor in response.output_tensors]
        assert names == ["item_id", "score", "rung", "reason", "feature_age_s"]
        assert response.output_tensors[0].array.tolist() == expected.item_id.tolist()


def test_lists_are_cut_to_what_each_request_wants(recommend: Adapter, funnel: Funnel) -> None:
    requests = [ask(103, 106), ask(109), ask(112), ask(115)]
    for request, given in zip(requests, ('{"k":3}', "{}", '{"other":"x","k":1}', '{"k":99}'), strict=True):
        request.given = given
    for request, k, response in zip(requests, (3, 8, 1, 8), recommend.execute(requests), strict=True):
        expected = funnel(**request.inputs)
        item_id, score, rung, *_ = (tensor.array for tensor in response.output_tensors)
        assert item_id.tolist() == expected.item_id[:, :k].tolist()
        np.testing.assert_allclose(score, expected.score[:, :k], rtol=1e-6)
        assert rung.tolist() == expected.rung.tolist()


@pytest.mark.parametrize("k", ["0", "-1", "2.0", '"3"', "true", "[3]"])
def test_a_k_that_is_no_number_of_items_is_an_error_of_its_request(recommend: Adapter, k: str) -> None:
    broken = ask(103)
    broken.given = f'{{"k":{k}}}'
    failed, answered = recommend.execute([broken, ask(106)])
    assert failed.error.message == f"parameter k is {k}, allowed is an integer from 1"
    assert failed.error.code == fake_backend.TritonError.INVALID_ARG
    assert answered.error is None


def listed(response: object) -> list[list[int]]:
    return response.output_tensors[0].array.tolist()  # type: ignore[attr-defined]


def test_what_a_request_excludes_stays_out_of_its_lists_alone(recommend: Adapter, funnel: Funnel) -> None:
    requests = [ask(103, 106, -1), ask(109), ask(112)]
    first, second, third = map(listed, recommend.execute(requests))
    gone = {0: first[0][:2], 2: first[2][:3], 4: third[0][:1]}
    requests[0].given = json.dumps({"exclude": ";;".join(",".join(map(str, gone[row])) for row in (0, 2))})
    requests[2].given = json.dumps({"exclude": f"5,{third[0][0]}"})  # no item has the id 5
    answers = [row for response in recommend.execute(requests) for row in listed(response)]
    excluded = np.repeat(list(gone), [2, 3, 1]), np.searchsorted(toy.item_ids(), np.concatenate(list(gone.values())))
    users = np.concatenate([request.inputs["user_id"] for request in requests])
    assert answers == funnel.run(user_id=users, excluded=excluded).outputs[0].tolist()
    assert [answers[1], answers[3]] == [first[1], second[0]]
    for row, dropped in gone.items():
        assert len(set(answers[row]) - {-1, *dropped}) == 8


def test_a_batch_without_exclusions_runs_without_them(funnel: Funnel, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[object] = []

    def run(**inputs: object) -> Run:
        given.append(inputs["excluded"])
        return Funnel.run(funnel, **inputs)

    monkeypatch.setattr(funnel, "run", run)
    adapter = Adapter(funnel, fake_backend, fake_backend.chain_config(funnel, toy.DIMS))
    asking = ask(103)
    asking.given = '{"exclude":"1000"}'
    adapter.execute([ask(103), ask(106)])
    adapter.execute([ask(103), asking])
    assert given[0] is None
    assert [array.tolist() for array in given[1]] == [[1], [0]]  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("exclude", "words"),
    [
        (5, 'is 5, allowed is a text such as "12,15;;7"'),
        (["1"], 'is ["1"], allowed is a text such as "12,15;;7"'),
        ("1;2;3", "names 3 users, the request has 2"),
        ("1;2;", "names 3 users, the request has 2"),
        ("1;2,x", 'holds "x" in row 1, allowed are item ids ≥ 0 separated by commas'),
        ("-1", 'holds "-1" in row 0, allowed'),
        ("1,,2", 'holds "" in row 0, allowed'),
        (" 1", 'holds " 1" in row 0, allowed'),
        ("1.0", 'holds "1.0" in row 0, allowed'),
        ("٣", 'holds "\\u0663" in row 0, allowed'),
        (f"1,{2**63}", f'holds "{2**63}" in row 0, allowed'),
        ("1" * 5000, 'holds "11111'),
        (";" + ",".join(["1"] * 1001), "has 1001 ids in row 1, allowed are 1000"),
    ],
)
def test_exclusions_of_another_form_are_an_error_of_their_request(
    recommend: Adapter, exclude: object, words: str
) -> None:
    broken = ask(103, 106)
    broken.given = json.dumps({"exclude": exclude})
    failed, answered = recommend.execute([broken, ask(109)])
    assert f"parameter exclude {words}" in failed.error.message
    assert len(failed.error.message) < 200
    assert failed.error.code == fake_backend.TritonError.INVALID_ARG
    assert answered.error is None


def test_a_thousand_exclusions_are_allowed(recommend: Adapter) -> None:
    asking = ask(103)
    asking.given = json.dumps({"exclude": ",".join(str(2**63 - 1 - place) for place in range(1000))})
    assert recommend.execute([asking])[0].error is None


def test_parameters_longer_than_any_that_are_allowed_are_refused_unread(recommend: Adapter) -> None:
    most = most_characters(64)
    long, longest = ask(103), ask(106)
    long.given, longest.given = ("{" + " " * (size - 2) + "}" for size in (most + 1, most))
    refused, answered = recommend.execute([long, longest])
    assert refused.error.message == f"the parameters take {most + 1} characters of JSON, allowed are {most}"
    assert refused.error.code == fake_backend.TritonError.INVALID_ARG
    assert answered.error is None


def test_what_every_user_of_the_largest_request_may_exclude_fits(recommend: Adapter) -> None:
    ids = ",".join(str(2**63 - 1 - place) for place in range(MOST_EXCLUDED))
    asking = ask(*[103] * 64)
    asking.given = json.dumps({"exclude": ";".join([ids] * 64), "sent": 2**63 - 1, "sent_clock": 2**63 - 1})
    assert recommend.execute([asking])[0].error is None


def test_the_steps_before_the_last_cut_nothing(tower: Adapter) -> None:
    asking = tower_request(1, 2)
    asking.given = '{"k":1}'
    assert tower.execute([asking])[0].output_tensors[0].array.tolist() == [[2], [4]]


def test_the_ledger_is_answered_only_on_request(recommend: Adapter) -> None:
    asking = ask(103, 106)
    asking.given = '{"ledger": true}'
    silent, answered = recommend.execute([ask(109), asking])
    assert [tensor.tensor_name for tensor in silent.output_tensors] == [
        "item_id",
        "score",
        "rung",
        "reason",
        "feature_age_s",
    ]
    ledger = answered.output_tensors[5]
    assert (ledger.tensor_name, ledger.array.dtype, ledger.array.shape) == ("ledger", np.int64, (2, LEDGER.dim))
    assert ledger.array[:, :2].tolist() == [[3, 2], [3, 2]]
    assert (ledger.array[:, 2:] > 0).all()


def test_a_step_of_the_ensemble_has_no_ledger(tower: Adapter) -> None:
    asking = tower_request(1)
    asking.given = '{"ledger": true}'
    assert len(tower.execute([asking])[0].output_tensors) == 1


@pytest.mark.parametrize("compiles", [True, False])
@pytest.mark.parametrize("is_told", [True, False])
def test_a_step_that_is_not_told_how_old_features_are_takes_those_of_the_bundle(
    funnel: Funnel, monkeypatch: pytest.MonkeyPatch, compiles: bool, is_told: bool
) -> None:
    monkeypatch.setattr(Chain, "compiles", compiles)
    tensors = funnel.staged(user_id=np.array([[101], [103]], np.int64), history=None)
    tensors[FRESHNESS.name] = np.array([[10.0], [-1.0]], np.float32)
    step = Chain(funnel.stages[3:])
    config = fake_backend.chain_config(step, toy.DIMS)
    if not is_told:
        config["input"] = [each for each in config["input"] if each["name"] != FRESHNESS.name]
    request = Request({tensor["name"]: tensors[tensor["name"]] for tensor in config["input"]})
    (response,) = Adapter(step, fake_backend, config).execute([request])
    names = [tensor.name for tensor in step.signature.answered]
    found = dict(zip(names, (tensor.array.tolist() for tensor in response.output_tensors), strict=True))
    assert found[ITEM_ID.name] == tensors[ITEM_ID.name].tolist()
    assert found[FEATURE_AGE.name] == ([[10.0], [0.0]] if is_told else [[0.0], [0.0]])
    assert (found[REASON.name] != tensors[REASON.name].tolist()) == is_told


@pytest.mark.parametrize("compiles", [True, False])
def test_indices_of_another_vocabulary_are_an_unknown_context(monkeypatch: pytest.MonkeyPatch, compiles: bool) -> None:
    monkeypatch.setattr(Chain, "compiles", compiles)
    features = Chain(random_stages({**SIZES, "contexts": (4, 3)})[:1])
    config = fake_backend.config({"user_id": 1, "history": SIZES["length"], "context": 2})
    config["parameters"] = {"context": {"string_value": '{"c0": ["a", "b", "c"], "c1": ["x", "y"]}'}}
    own = vocabulary_of(config)
    assert own is not None

    def request(*context: list[int], vocabulary: object = None) -> Request:
        inputs = {"user_id": np.full((len(context), 1), -1, np.int64), "context": np.array(context, np.int32)}
        return Request(inputs, "{}" if vocabulary is None else json.dumps({"vocabulary": vocabulary}))

    asked = [
        request([1, 2], vocabulary=own),
        request([2, 1], [3, 1], vocabulary=own + 1),
        request([-7, 1], vocabulary=own + 1),
        request([3, 1]),
        request([4, 2**31 - 1]),
        request([-(2**31), 1], vocabulary=own),
        request([1, 1], vocabulary="x"),
    ]
    *answers, negative, wrong = Adapter(features, fake_backend, config).execute(asked)
    at = [tensor.name for tensor in features.signature.answered].index("user_category")
    found = [answer.output_tensors[at].array[:, -2:].tolist() for answer in answers]
    assert found == [[[1, 2]], [[0, 0], [0, 0]], [[0, 0]], [[3, 1]], [[0, 0]]]
    assert negative.error.message.startswith("context[0] is -2147483648, allowed are 0")
    assert wrong.error.message == 'parameter vocabulary is "x", allowed is an integer from 0'
