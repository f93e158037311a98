"""A small repository of target gpu: an entry model, and a user tower and a ranker as ONNX graphs, with samples of answers."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from google.protobuf import text_format
from onnx import TensorProto, helper, numpy_helper
from tritonclient.grpc.model_config_pb2 import ModelConfig

from tests.support.toy_repository import DIMS, write_toy_repository
from trireme_runtime.bundle import Manifest, describe_file, read_manifest

VERSION = 1
SAMPLES = 12
PARITY = {"score_difference": 0.03, "index_recall": 0.98}
CAPABILITIES = ("7.5", "8.0", "8.6", "8.9", "9.0", "10.0", "10.3", "12.0")
WIDTHS = {"user_number": 5, "query": 4, "candidate_index": 6, "ranking_score": 6}

#: Of each graph: its inputs, its output, and the input that the output is a product of.
GRAPHS = {
    "user_tower": (("user_number",), "query"),
    "ranking": (("user_number", "candidate_index"), "ranking_score"),
}


def graph_config(
    name: str, inputs: Sequence[str], output: str, *, engine: str = "tensorrt", max_batch_size: int = 8
) -> ModelConfig:
    """The config of a graph model, as the exporter writes it."""
    config = ModelConfig(name=name, max_batch_size=max_batch_size)
    if engine == "tensorrt":
        config.platform = "tensorrt_plan"
        config.default_model_filename = "model.plan"
        for capability in CAPABILITIES:
            config.cc_model_filenames[capability] = f"{capability}.plan"
    else:
        config.backend = "onnxruntime"
        config.default_model_filename = "model.onnx"
    for tensor in inputs:
        config.input.add(name=tensor, data_type=f"TYPE_{_kind(tensor)[0]}", dims=[WIDTHS[tensor]])
    config.output.add(name=output, data_type="TYPE_FP32", dims=[WIDTHS[output]])
    config.dynamic_batching.max_queue_delay_microseconds = 100
    config.version_policy.specific.versions.append(VERSION)
    config.parameters["parity"].string_value = json.dumps(PARITY)
    return config


def write_graph_repository(root: Path, models: Sequence[str] = tuple(GRAPHS), engine: str = "tensorrt") -> Path:
    """Writes the repository under `root`; returns `root`."""
    write_toy_repository(root)
    for name in models:
        write_graph_model(root, name, engine)
    publish(root)
    return root


def write_graph_model(root: Path, name: str, engine: str = "tensorrt", graph: str | None = None) -> None:
    """Writes model `name` with one of GRAPHS, by default the one of its name."""
    inputs, output = GRAPHS[graph or name]
    folder = root / name / str(VERSION)
    folder.mkdir(parents=True)
    _save_graph(folder / "model.onnx", inputs, output)
    text = text_format.MessageToString(graph_config(name, inputs, output, engine=engine))
    for file in (root / name / "config.pbtxt", folder / "config.pbtxt"):
        file.write_text(text)
    _save_samples(folder, inputs, output)


def publish(root: Path, bundle_id: str = "toy-1", target: str = "gpu") -> None:
    """Writes the manifest of all files that are there now."""
    files = sorted(file for file in root.glob("*/*/*") if file.suffix in {".onnx", ".data", ".npz", ".pbtxt", ".py"})
    artifacts = {str(file.relative_to(root)): describe_file(file) for file in files}
    manifest = Manifest(bundle_id, VERSION, "ensemble", target, DIMS, artifacts, {})
    (root / "recommend" / str(VERSION) / "manifest.json").write_text(manifest.to_json())


@contextmanager
def config_of(root: Path, name: str) -> Iterator[ModelConfig]:
    """A model's config, to be changed and published again."""
    file = root / name / "config.pbtxt"
    config = text_format.Parse(file.read_text(), ModelConfig())
    yield config
    text = text_format.MessageToString(config)
    for each in (file, root / name / str(VERSION) / "config.pbtxt"):
        each.write_text(text)
    publish(root, read_manifest(root).bundle_id)


def _kind(tensor: str) -> tuple[str, int, type]:
    return (
        ("INT32", TensorProto.INT32, np.int32) if tensor.endswith("index") else ("FP32", TensorProto.FLOAT, np.float32)
    )


def _save_graph(file: Path, inputs: Sequence[str], output: str) -> None:
    """The output is user_number · weights, plus a tenth of the candidates' indices. The weights lie beside the graph."""
    weights = np.random.default_rng(1).standard_normal((WIDTHS["user_number"], WIDTHS[output])).astype(np.float32)
    constants = [numpy_helper.from_array(weights, "weights")]
    nodes = [helper.make_node("MatMul", ["user_number", "weights"], ["product"], name="project")]
    if "candidate_index" in inputs:
        constants.append(numpy_helper.from_array(np.float32(0.1), "tenth"))
        nodes += [
            helper.make_node("Cast", ["candidate_index"], ["index"], name="cast", to=TensorProto.FLOAT),
            helper.make_node("Mul", ["index", "tenth"], ["part"], name="weigh"),
            helper.make_node("Add", ["product", "part"], [output], name="add"),
        ]
    else:
        nodes.append(helper.make_node("Identity", ["product"], [output], name="answer"))
    tensors = [
        helper.make_tensor_value_info(name, _kind(name)[1], ["batch", WIDTHS[name]]) for name in (*inputs, output)
    ]
    graph = helper.make_graph(nodes, "graph", tensors[:-1], tensors[-1:], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save_model(model, file, save_as_external_data=True, location="model.data", size_threshold=16)


def _save_samples(folder: Path, inputs: Sequence[str], output: str) -> None:
    generator = np.random.default_rng(2)
    given = {}
    for name in inputs:
        shape = (SAMPLES, WIDTHS[name])
        given[name] = (
            generator.integers(-1, 90, shape, dtype=np.int32)
            if _kind(name)[2] is np.int32
            else generator.standard_normal(shape, dtype=np.float32)
        )
    (answered,) = onnxruntime.InferenceSession(folder / "model.onnx").run([output], given)
    arrays = {f"in:{name}": values for name, values in given.items()}
    np.savez(folder / "samples.npz", **arrays, **{f"out:{output}": answered})
