"""user_tower: the query vector of the user."""

from trireme_stages.triton_model import StageModel
from trireme_stages.user_tower import UserTower


class TritonPythonModel(StageModel):
    stage_type = UserTower
