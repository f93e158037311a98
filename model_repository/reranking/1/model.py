"""reranking: the final list."""

from trireme_stages.reranking import Reranking
from trireme_stages.triton_model import StageModel


class TritonPythonModel(StageModel):
    stage_type = Reranking
