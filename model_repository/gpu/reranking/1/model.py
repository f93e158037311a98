"""reranking: the final list."""

from trireme_runtime.triton.model import ChainModel


class TritonPythonModel(ChainModel):
    """Runs reranking."""
