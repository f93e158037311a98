"""feature_transform: from outside ids to rows, history and features of the user."""

from trireme_runtime.triton.model import ChainModel


class TritonPythonModel(ChainModel):
    """Runs feature_transform."""
