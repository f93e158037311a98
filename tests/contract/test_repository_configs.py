"""The authored model repository against the schema: names, dtypes, dims, and every edge of the ensemble."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tritonclient.grpc import model_config_pb2 as triton

from trireme_client import model as client
from trireme_export.repository import authored_repository
from trireme_export.triton_config import parse_config
from trireme_runtime.schema import CHAINS, ENTRY, EXCLUDE, LEDGER, MODELS, STAGES, STEPS, STORED, K, Tensor
from trireme_runtime.triton.parameters import MOST_EXCLUDED

CONFIGS = {name: parse_config(authored_repository() / name / "config.pbtxt") for name in MODELS}


def describe(tensors: list) -> list[tuple]:
    return [(t.name, triton.DataType.Name(t.data_type), list(t.dims), getattr(t, "optional", False)) for t in tensors]


def expected(tensors: tuple[Tensor, ...]) -> list[tuple]:
    return [(t.name, t.triton_dtype, [t.dim] if isinstance(t.dim, int) else [-1], t.optional) for t in tensors]


def test_the_authored_repository_holds_the_models_of_the_schema_and_no_others() -> None:
    folders = {path.name for path in authored_repository().iterdir() if path.is_dir()}
    assert folders == set(MODELS)


@pytest.mark.parametrize("name", MODELS)
def test_a_config_has_the_tensors_of_the_schema(name: str) -> None:
    config, signature = CONFIGS[name], MODELS[name]
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


@pytest.mark.parametrize("name", CHAINS)
def test_a_python_model_batches_and_runs_on_the_cpu(name: str) -> None:
    config = CONFIGS[name]
    assert config.backend == "python"
    assert config.HasField("dynamic_batching")
    assert [group.kind for group in config.instance_group] == [triton.ModelInstanceGroup.KIND_CPU]


@pytest.mark.parametrize("name", CHAINS)
def test_a_model_file_is_short(name: str) -> None:
    assert len((authored_repository() / name / "1" / "model.py").read_text().splitlines()) <= 30


class TestEnsemble:
    steps = CONFIGS[ENTRY].ensemble_scheduling.step

    def test_its_steps_run_the_stages_in_order(self) -> None:
        assert [step.model_name for step in self.steps] == list(STEPS)
        assert [stage for step in self.steps for stage in CHAINS[step.model_name]] == list(STAGES)

    @pytest.mark.parametrize("position", range(len(STEPS)))
    def test_a_step_maps_every_tensor_of_its_model(self, position: int) -> None:
        step = self.steps[position]
        signature = MODELS[step.model_name]
        assert set(step.input_map) == {tensor.name for tensor in signature.inputs}
        assert set(step.output_map) == {tensor.name for tensor in signature.outputs}

    def test_every_edge_has_one_producer_the_same_dtype_and_the_same_dim_on_both_ends(self) -> None:
        produced = {tensor.name: tensor for tensor in MODELS[ENTRY].inputs}
        consumed = {tensor.name for tensor in MODELS[ENTRY].outputs}
        for step in self.steps:
            signature = MODELS[step.model_name]
            for tensor in signature.inputs:
                source = produced[step.input_map[tensor.name]]
                assert (source.dtype, source.dim) == (tensor.dtype, tensor.dim), (step.model_name, tensor.name)
                consumed.add(source.name)
            for tensor in signature.outputs:
                edge = step.output_map[tensor.name]
                assert edge not in produced, f"{edge} has two producers"
                produced[edge] = tensor
        assert set(produced) == consumed, "an edge that nobody reads fails the load"
