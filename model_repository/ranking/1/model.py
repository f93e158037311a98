"""ranking: a score for every candidate, and the final list."""

from trireme_stages.triton_model import ChainModel


class TritonPythonModel(ChainModel):
    model = "ranking"
