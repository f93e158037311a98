"""feature_transform: ids, history and features of the user."""

from trireme_stages.feature_transform import FeatureTransform
from trireme_stages.triton_model import StageModel


class TritonPythonModel(StageModel):
    stage_type = FeatureTransform
