"""features: ids, history and features of the user, and the query vector."""

from trireme_runtime.triton.model import ChainModel


class TritonPythonModel(ChainModel):
    """Runs feature_transform and user_tower."""
