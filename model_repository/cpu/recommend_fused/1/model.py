"""recommend_fused: the whole funnel."""

from trireme_runtime.triton.model import ChainModel


class TritonPythonModel(ChainModel):
    """Runs all five stages in one process."""
