"""How many instances of its models a server runs: what the bundle says, or one for each CPU that the server may use, or GPU.

That depends on the machine that serves, while a bundle stays as it was published. So the server reads a folder of links to
the bundle, in which the configs are its own.
"""

from __future__ import annotations

from pathlib import Path

from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import ModelConfig, ModelInstanceGroup

from trireme_runtime.bundle import CONFIG
from trireme_runtime.schema import AUTO, INSTANCES
from trireme_server.errors import RepositoryError

#: Devices of NVIDIA's driver, which containers see, too.
GPU_DEVICES = "nvidia[0-9]*"


def has_gpu(devices: Path = Path("/dev")) -> bool:
    """Whether a server started here would find a GPU of NVIDIA's."""
    return any(devices.glob(GPU_DEVICES))


def link_repository(repository: Path, folder: Path, cpus: int, gpu: bool) -> dict[str, int]:
    """Makes ``folder``, a model repository of links to ``repository``; returns the number of instances by model.

    Args:
        repository: as `trireme export` wrote it.
        folder: is made.
        cpus: the instances of each model whose config leaves their number to the server.
        gpu: whether models that can run on a GPU will: then one instance for each GPU keeps it busy.

    Raises:
        RepositoryError: a config is not one.
    """
    counts: dict[str, int] = {}
    for file in sorted(repository.glob(f"*/{CONFIG}")):
        model = folder / file.parent.name
        model.mkdir(parents=True)
        for path in file.parent.iterdir():
            if path.name != CONFIG:
                (model / path.name).symlink_to(path)
        try:
            config = text_format.Parse(file.read_text(), ModelConfig())
        except text_format.ParseError as error:
            raise RepositoryError(f"{file}: is not a configuration that Triton reads ({error})") from None
        if INSTANCES in config.parameters and config.parameters[INSTANCES].string_value == AUTO:
            for group in config.instance_group:
                if group.kind == ModelInstanceGroup.KIND_CPU or not gpu:
                    group.count = cpus
        if config.instance_group:
            counts[model.name] = sum(group.count for group in config.instance_group)
        (model / CONFIG).write_text(str(text_format.MessageToString(config)))
    return counts
