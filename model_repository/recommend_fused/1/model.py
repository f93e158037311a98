"""recommend_fused: all five stages in one process."""

from trireme_stages.funnel import Funnel
from trireme_stages.triton_model import StageModel


class TritonPythonModel(StageModel):
    stage_type = Funnel
