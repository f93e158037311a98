"""ranking: a score for every candidate, and the final list."""

from trireme_runtime.triton.model import ChainModel


class TritonPythonModel(ChainModel):
    """Runs ranking and reranking."""
