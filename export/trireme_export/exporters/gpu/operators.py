"""What TensorRT's parser takes of ONNX, as far as it matters to graphs of recommenders.

Source: ``docs/operators.md`` of github.com/onnx/onnx-tensorrt, as of TensorRT 10.15. The operators listed are those that are
supported there and were in TensorRT 10.1 (tag 10.1-GA, commit 96e7811), so they hold for 10.12 and later, too; those of
11 are documented to be the same list. The same page lists the types. The restriction of UINT8 is that of
``nvinfer1::DataType``: inputs of a network only, to be cast to floats; that of INT8 is that it is made by quantising.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

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
FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16)
#: Of tensors anywhere; 0 is one whose type is not known. DOUBLE is computed as FLOAT.
TYPES = frozenset(
    (0, *FLOATS, TensorProto.BFLOAT16, TensorProto.DOUBLE, TensorProto.INT32, TensorProto.INT64, TensorProto.BOOL)
)


def unsupported_operators(model: onnx.ModelProto) -> list[str]:
    """Returns a message for every node that the parser does not take."""
    constants = constant_tensors(model)
    types = {name: found.element for name, found in tensor_types(model).items()}
    messages = []
    for node in model.graph.node:
        if node.domain not in ("", "ai.onnx") or node.op_type not in SUPPORTED:
            domain = f" of {node.domain}" if node.domain else ""
            messages.append(f"{label(node)}: TensorRT has no operator {node.op_type}{domain}")
            continue
        messages.extend(f"{label(node)}: {fault}" for fault in _faults(node, constants, types))
    return messages


def _faults(node: onnx.NodeProto, constants: Mapping[str, onnx.TensorProto], types: Mapping[str, int]) -> Iterator[str]:
    position = AXES.get(node.op_type, len(node.input))
    if position < len(node.input) and node.input[position] not in ("", *constants):
        yield f"its axes {node.input[position]} have to be constant"
    if node.op_type in QUANTISING and not _is_symmetric(node, constants):
        yield "TensorRT quantises to INT8 with a zero point of 0 only"
    for name in (*node.input, *node.output):
        element = types.get(name, 0)
        if element == TensorProto.UINT8:
            if not (node.op_type == "Cast" and name in node.input and attribute(node, "to", 0) in FLOATS):
                yield f"it reads {name}, UINT8, which has to be cast to FLOAT first"
        elif element not in TYPES and node.op_type not in QUANTISING and name in (*constants, *node.output):
            yield f"{name} is {TensorProto.DataType.Name(element)}, a type that TensorRT does not compute with"


def _is_symmetric(node: onnx.NodeProto, constants: Mapping[str, onnx.TensorProto]) -> bool:
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
