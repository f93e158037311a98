"""recommend_fused: all five stages in one process."""

from trireme_stages.triton_model import ChainModel


class TritonPythonModel(ChainModel):
    model = "recommend_fused"
