"""retrieval: candidates by inner product."""

from trireme_stages.retrieval import Retrieval
from trireme_stages.triton_model import StageModel


class TritonPythonModel(StageModel):
    stage_type = Retrieval
