"""features: ids, history and features of the user, and his query vector."""

from trireme_runtime.triton.model import ChainModel


class TritonPythonModel(ChainModel):
    model = "features"
