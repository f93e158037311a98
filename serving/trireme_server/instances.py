"""How many instances of its models a server runs: what the bundle says, or one for each CPU that the server may use, or GPU.

That depends on the machine that serves, while a bundle stays as it was published. So the server reads a folder of links to
the bundle, in which the configs are its own.

There, every instance can have a group of its own. When Triton loads a changed config, it keeps the instances of groups whose
settings are the same, be they dead or alive, and makes the others anew. A host policy is such a setting, and one that the server
does not know changes nothing else: `renew` replaces single instances by that.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import ModelConfig, ModelInstanceGroup

from trireme_runtime.bundle import CONFIG
from trireme_runtime.schema import AUTO, FRESHNESS, INSTANCES
from trireme_server.configs import read_config
from trireme_server.left_out import leave_out

#: Devices of NVIDIA's driver, which containers see, too.
GPU_DEVICES = "nvidia[0-9]*"
#: Where Python keeps what it has compiled.
BYTECODE = "__pycache__"


def has_gpu(devices: Path = Path("/dev")) -> bool:
    """Whether a server started here would find a GPU of NVIDIA's."""
    return any(devices.glob(GPU_DEVICES))


def link_repository(
    repository: Path, folder: Path, cpus: int, gpu: bool, separate: bool = False, fresh: bool = True
) -> dict[str, int]:
    """Makes ``folder``, a model repository of links to ``repository``; returns the number of instances by model.

    Args:
        repository: as `trireme export` wrote it.
        folder: is made.
        cpus: the instances of each model whose config leaves their number to the server.
        gpu: whether models that can run on a GPU will: then one instance for each GPU keeps it busy.
        separate: give every instance a group of its own, so that `renew` can replace it; not in models that name host policies.
        fresh: whether the server has a feature store; without one, steps do not tell each other how old features are.

    Raises:
        RepositoryError: a config is not one.
    """
    counts: dict[str, int] = {}
    for file in sorted(repository.glob(f"*/{CONFIG}")):
        model = folder / file.parent.name
        model.mkdir(parents=True)
        for path in file.parent.iterdir():
            if path.name != CONFIG:
                _link(path, model / path.name)
        config = read_config(file)
        if not fresh:
            leave_out(config, FRESHNESS.name)
        if INSTANCES in config.parameters and config.parameters[INSTANCES].string_value == AUTO:
            for group in config.instance_group:
                if group.kind == ModelInstanceGroup.KIND_CPU or not gpu:
                    group.count = cpus
        if config.instance_group:
            counts[model.name] = sum(group.count for group in config.instance_group)
            if separate and not any(group.host_policy for group in config.instance_group):
                _separate(config, model.name)
        (model / CONFIG).write_text(text_format.MessageToString(config))
    return counts


def renew(folder: Path, model: str, groups: Collection[str]) -> None:
    """Changes the config of a model in ``folder`` so that Triton, when it loads it, makes the instances of ``groups`` anew."""
    file = folder / model / CONFIG
    config = read_config(file)
    for group in config.instance_group:
        if group.name in groups:
            group.host_policy = _next_policy(group)
    written = folder / f".{model}"
    written.write_text(text_format.MessageToString(config))
    written.replace(file)


def group_of(instance: str, groups: Collection[str]) -> str | None:
    """Returns the group of an instance, by its name, which is that of the group and a number."""
    return max((group for group in groups if instance.startswith(f"{group}_")), key=len, default=None)


def groups_of(folder: Path) -> dict[str, str]:
    """Returns the model of each instance group in ``folder`` that can be replaced."""
    configs = {file.parent.name: read_config(file) for file in folder.glob(f"*/{CONFIG}")}
    groups = [(group, model) for model, config in configs.items() for group in config.instance_group]
    return {group.name: model for group, model in groups if _has_own_policy(group)}


def _link(path: Path, link: Path) -> None:
    """Links to a file or a folder; to what is in it, if it holds Python code, so that the bytecode can be kept out."""
    if not (path / "model.py").is_file():
        link.symlink_to(path)
        return
    link.mkdir()
    for part in path.iterdir():
        if part.name != BYTECODE:
            (link / part.name).symlink_to(part)
    # A file of this name keeps Python from writing bytecode, after which Triton would take the whole model for a changed one.
    (link / BYTECODE).touch()


def _separate(config: ModelConfig, model: str) -> None:
    """Gives every instance a group of its own, with a name and a host policy of its own."""
    groups = [group for group in config.instance_group for _ in range(max(group.count, 1))]
    separate = []
    for index, group in enumerate(groups):
        one = ModelInstanceGroup()
        one.CopyFrom(group)
        one.name, one.count = f"{model}_{index}", 1
        one.host_policy = _next_policy(one)
        separate.append(one)
    del config.instance_group[:]
    config.instance_group.extend(separate)


def _has_own_policy(group: ModelInstanceGroup) -> bool:
    return bool(group.name) and group.host_policy.startswith(f"{group.name}.")


def _next_policy(group: ModelInstanceGroup) -> str:
    """Returns a host policy that no group has had."""
    number = int(group.host_policy.rpartition(".")[2]) + 1 if _has_own_policy(group) else 0
    return f"{group.name}.{number}"
