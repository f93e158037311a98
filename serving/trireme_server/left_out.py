"""Takes a tensor out of the configs that a server reads: each that a step of an ensemble hands to another costs CPU time."""

from __future__ import annotations

from tritonclient.grpc.model_config_pb2 import ModelConfig

__all__ = ["leave_out"]


def leave_out(config: ModelConfig, tensor: str) -> None:
    """Removes ``tensor`` from the inputs, outputs and warm-up of a model, and from what the steps of an ensemble hand on."""
    for tensors in (config.input, config.output):
        for place in reversed(range(len(tensors))):
            if tensors[place].name == tensor:
                del tensors[place]
    for sample in config.model_warmup:
        sample.inputs.pop(tensor, None)
    for step in config.ensemble_scheduling.step:
        for names in (step.input_map, step.output_map):
            names.pop(tensor, None)
