"""retrieval: candidates by inner product."""

from trireme_stages.triton_model import ChainModel


class TritonPythonModel(ChainModel):
    model = "retrieval"
