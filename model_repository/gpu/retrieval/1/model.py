"""retrieval: candidates by inner product."""

from trireme_runtime.triton.model import ChainModel


class TritonPythonModel(ChainModel):
    """Runs retrieval."""
