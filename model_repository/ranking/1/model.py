"""ranking: a score for every candidate."""

from trireme_stages.ranking import Ranking
from trireme_stages.triton_model import StageModel


class TritonPythonModel(StageModel):
    stage_type = Ranking
