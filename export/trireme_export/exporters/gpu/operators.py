"""What TensorRT's parser takes of ONNX, as far as it matters to graphs of recommenders.

Source: ``docs/operators.md`` of github.com/onnx/onnx-tensorrt, as of TensorRT 10.15. The operators listed are those that are
supported there and were in TensorRT 10.1 (tag 10.1-GA, commit 96e7811), so they hold for 10.12, too; the guide of TensorRT 11
refers to the same file. The restriction of UINT8 is that of ``nvinfer1::DataType``: inputs of a network only, to be cast to
floats; the largest K is that of ``nvinfer1::ITopKLayer``.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from trireme_export.exporters.constants import constant_tensors
from trireme_export.exporters.nodes import attribute, label
from trireme_export.exporters.shapes import tensor_types

__all__ = ["LARGEST_K", "large_topk", "unsupported_operators"]

#: Entries that a TopK may keep.
LARGEST_K = 3840
NAMES = """
    Abs Acos Acosh Add And ArgMax ArgMin Asin Asinh Atan Atanh AveragePool BatchNormalization Cast CastLike Ceil Celu
    Clip Concat Constant ConstantOfShape Conv ConvTranspose Cos Cosh CumSum DeformConv DepthToSpace DequantizeLinear Div
    Dropout Einsum Elu Equal Erf Exp Expand EyeLike Flatten Floor GRU Gather GatherElements GatherND Gelu Gemm
    GlobalAveragePool GlobalLpPool GlobalMaxPool Greater GreaterOrEqual GridSample GroupNormalization HardSigmoid
    HardSwish Hardmax Identity If ImageScaler InstanceNormalization IsInf IsNaN LRN LSTM LayerNormalization LeakyRelu
    Less LessOrEqual Log LogSoftmax Loop LpNormalization LpPool MatMul Max MaxPool Mean MeanVarianceNormalization Min
    Mish Mod Mul Neg NonMaxSuppression NonZero Not OneHot Or PRelu Pad ParametricSoftplus Pow QuantizeLinear RNN
    RandomNormal RandomNormalLike RandomUniform RandomUniformLike Range Reciprocal ReduceL1 ReduceL2 ReduceLogSum
    ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare Relu Reshape Resize
    ReverseSequence RoiAlign Round ScaledTanh Scan Scatter ScatterElements ScatterND Selu Shape Shrink Sigmoid Sign Sin
    Sinh Size Slice Softmax Softplus Softsign SpaceToDepth Split Sqrt Squeeze Sub Sum Tan Tanh ThresholdedRelu Tile TopK
    Transpose Trilu Unsqueeze Upsample Where Xor
"""
SUPPORTED = frozenset(NAMES.split())
#: The input of an operator that has to be constant: its axes.
AXES = {
    **{name: 1 for name in SUPPORTED if name.startswith("Reduce")},
    "CumSum": 1,
    "Slice": 3,
    "Squeeze": 1,
    "Unsqueeze": 1,
}
QUANTISING = ("QuantizeLinear", "DequantizeLinear")


def unsupported_operators(model: onnx.ModelProto) -> list[str]:
    """Returns a message for every node that the parser does not take."""
    constants, types = constant_tensors(model), tensor_types(model)
    uint8 = {name for name, found in types.items() if found.element == TensorProto.UINT8}
    messages = []
    for node in model.graph.node:
        if node.domain not in ("", "ai.onnx") or node.op_type not in SUPPORTED:
            domain = f" of {node.domain}" if node.domain else ""
            messages.append(f"{label(node)}: TensorRT has no operator {node.op_type}{domain}")
            continue
        messages.extend(f"{label(node)}: {fault}" for fault in _faults(node, constants, uint8))
    return messages


def _faults(node: onnx.NodeProto, constants: dict[str, onnx.TensorProto], uint8: set[str]) -> Iterator[str]:
    position = AXES.get(node.op_type, len(node.input))
    if position < len(node.input) and node.input[position] not in ("", *constants):
        yield f"its axes {node.input[position]} have to be constant"
    if node.op_type in QUANTISING and not _is_symmetric(node, constants):
        yield "TensorRT quantises to INT8 with a zero point of 0 only"
    floats = (TensorProto.FLOAT, TensorProto.FLOAT16)
    for name in node.input:
        if name in uint8 and not (node.op_type == "Cast" and attribute(node, "to", 0) in floats):
            yield f"it reads {name}, UINT8, which has to be cast to FLOAT first"


def _is_symmetric(node: onnx.NodeProto, constants: dict[str, onnx.TensorProto]) -> bool:
    zero = constants.get(node.input[2]) if len(node.input) > 2 else None
    return zero is not None and zero.data_type == TensorProto.INT8 and not np.any(numpy_helper.to_array(zero))


def large_topk(model: onnx.ModelProto) -> list[str]:
    """Returns a message for every TopK that keeps more than ``LARGEST_K`` entries, a number that is not fixed, or no order."""
    constants, messages = constant_tensors(model), []
    for node in model.graph.node:
        if node.op_type != "TopK":
            continue
        tensor = constants.get(node.input[1])
        if tensor is None:
            messages.append(f"{label(node)}: its K {node.input[1]} has to be constant")
        elif (k := int(numpy_helper.to_array(tensor).item())) > LARGEST_K:
            messages.append(f"{label(node)}: K is {k}, at most {LARGEST_K} is allowed")
        if not attribute(node, "sorted", 1):
            messages.append(f"{label(node)}: sorted has to be 1")
    return messages
