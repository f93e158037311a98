"""features: ids, history and features of the user, and his query vector."""

from trireme_stages.triton_model import ChainModel


class TritonPythonModel(ChainModel):
    model = "features"
