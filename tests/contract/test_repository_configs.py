"""The authored model repository against the schema: names, dtypes, dims, and every edge of the ensemble."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tritonclient.grpc import model_config_pb2 as triton

from trireme_client import model as client
from trireme_export.repository import authored_repository
from trireme_export.repository.configs import parse_config
from trireme_runtime.schema import ENTRY, EXCLUDE, LAYOUTS, LEDGER, STAGES, STORED, K, Tensor
from trireme_runtime.triton.parameters import MOST_EXCLUDED

MODELS = [(target, name) for target, layout in LAYOUTS.items() for name in layout.names("both", stream=True)]
CONFIGS = {model: parse_config(authored_repository(model[0]) / model[1] / "config.pbtxt") for model in MODELS}
PYTHON = [(target, name) for target, layout in LAYOUTS.items() for name in layout.models if name not in layout.graphs]
GRAPHS = [(target, name) for target, layout in LAYOUTS.items() for name in sorted(layout.graphs)]
CPU = triton.ModelInstanceGroup.KIND_CPU
ENSEMBLES = [model for model in MODELS if CONFIGS[model].HasField("ensemble_scheduling")]
STEPS = [(*model, position) for model in ENSEMBLES for position in range(len(CONFIGS[model].ensemble_scheduling.step))]


def describe(tensors: list) -> list[tuple]:
    return [(t.name, triton.DataType.Name(t.data_type), list(t.dims), getattr(t, "optional", False)) for t in tensors]


def expected(tensors: tuple[Tensor, ...]) -> list[tuple]:
    return [(t.name, t.triton_dtype, [t.dim] if isinstance(t.dim, int) else [-1], t.optional) for t in tensors]


@pytest.mark.parametrize("target", LAYOUTS)
def test_the_authored_repository_holds_the_models_of_the_schema_and_no_others(target: str) -> None:
    folders = {path.name for path in authored_repository(target).iterdir() if path.is_dir()}
    assert folders == set(LAYOUTS[target].names("both", stream=True))
    assert {path.name for path in authored_repository(target).parent.iterdir() if path.is_dir()} == set(LAYOUTS)


@pytest.mark.parametrize(("target", "name"), MODELS)
def test_a_config_has_the_tensors_of_the_schema(target: str, name: str) -> None:
    config, signature = CONFIGS[target, name], LAYOUTS[target].signature(name)
    assert config.name == name
    assert describe(config.input) == expected(signature.inputs)
    # Triton's configs have no word for an output that not every answer has.
    always = tuple(replace(tensor, optional=False) for tensor in signature.outputs)
    assert describe(config.output) == expected(always)


def test_the_client_says_use_the_stored_history_as_the_server_reads_it() -> None:
    assert client.STORED == STORED


def test_the_client_names_the_parameters_as_the_server_reads_them() -> None:
    assert (client.K, client.EXCLUDE, client.MOST_EXCLUDED) == (K, EXCLUDE, MOST_EXCLUDED)


def test_the_client_knows_the_ledger_as_the_server_writes_it() -> None:
    assert tuple(STAGES) == client.STAGES
    assert (client.LEDGER, LEDGER.dim) == (LEDGER.name, 2 + len(client.STAGES))


@pytest.mark.parametrize(("target", "name"), PYTHON)
def test_a_python_model_batches_and_runs_on_the_cpu(target: str, name: str) -> None:
    config = CONFIGS[target, name]
    assert config.backend == "python"
    assert config.HasField("dynamic_batching")
    # Retrieval uses a GPU where there is one.
    kind = triton.ModelInstanceGroup.KIND_AUTO if (target, name) == ("gpu", "retrieval") else CPU
    assert [group.kind for group in config.instance_group] == [kind]


@pytest.mark.parametrize(("target", "name"), MODELS)
def test_only_the_model_that_answers_twice_is_decoupled(target: str, name: str) -> None:
    assert CONFIGS[target, name].model_transaction_policy.decoupled == (name in LAYOUTS[target].stream)


@pytest.mark.parametrize(("target", "name"), GRAPHS)
def test_a_graph_batches_and_loads_with_and_without_a_gpu(target: str, name: str) -> None:
    config = CONFIGS[target, name]
    assert config.platform == "tensorrt_plan"
    assert config.HasField("dynamic_batching")
    assert [group.kind for group in config.instance_group] == [triton.ModelInstanceGroup.KIND_AUTO]
    assert not any(tensor.optional for tensor in config.input), "a plan has no optional inputs"


@pytest.mark.parametrize(("target", "name"), PYTHON)
def test_a_model_file_is_short(target: str, name: str) -> None:
    assert len((authored_repository(target) / name / "1" / "model.py").read_text().splitlines()) <= 30


class TestEnsembles:
    @pytest.mark.parametrize(("target", "name"), ENSEMBLES)
    def test_its_steps_run_the_stages_in_order(self, target: str, name: str) -> None:
        layout = LAYOUTS[target]
        models = layout.ensemble if name == ENTRY else layout.fused
        steps = [step.model_name for step in CONFIGS[target, name].ensemble_scheduling.step]
        assert steps == list(models)
        assert [stage for step in steps for stage in models[step] if stage in STAGES] == list(STAGES)

    @pytest.mark.parametrize(("target", "name", "position"), STEPS)
    def test_a_step_maps_every_tensor_of_its_model(self, target: str, name: str, position: int) -> None:
        step = CONFIGS[target, name].ensemble_scheduling.step[position]
        signature = LAYOUTS[target].signature(step.model_name)
        assert set(step.input_map) == {tensor.name for tensor in signature.inputs}
        assert set(step.output_map) == {tensor.name for tensor in signature.outputs}

    @pytest.mark.parametrize(("target", "name"), ENSEMBLES)
    def test_every_edge_has_one_producer_the_same_dtype_and_the_same_dim_on_both_ends(
        self, target: str, name: str
    ) -> None:
        layout = LAYOUTS[target]
        produced = {tensor.name: tensor for tensor in layout.signature(ENTRY).inputs}
        consumed = {tensor.name for tensor in layout.signature(ENTRY).outputs}
        for step in CONFIGS[target, name].ensemble_scheduling.step:
            signature = layout.signature(step.model_name)
            for tensor in signature.inputs:
                source = produced[step.input_map[tensor.name]]
                assert (source.dtype, source.dim) == (tensor.dtype, tensor.dim), (step.model_name, tensor.name)
                consumed.add(source.name)
            for tensor in signature.outputs:
                edge = step.output_map[tensor.name]
                assert edge not in produced, f"{edge} has two producers"
                produced[edge] = tensor
        assert set(produced) == consumed, "an edge that nobody reads fails the load"
