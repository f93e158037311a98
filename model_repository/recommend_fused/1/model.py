"""recommend_fused: all five stages in one process."""

from trireme_runtime.triton.model import ChainModel


class TritonPythonModel(ChainModel):
    model = "recommend_fused"
