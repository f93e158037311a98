"""features: rows, history and features of the user, and the items to leave out."""

from trireme_runtime.triton.model import ChainModel


class TritonPythonModel(ChainModel):
    """Runs feature_transform and exclusion."""
