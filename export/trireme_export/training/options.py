"""The ``training:`` section of pipeline.yaml. One set of defaults serves all data."""

from __future__ import annotations

from pydantic import Field, PositiveFloat, model_validator

from trireme_export.section import Section

__all__ = ["RankerConfig", "TowerConfig", "TrainingConfig"]


class TowerConfig(Section):
    """How the two towers are built and trained."""

    dim: int = Field(128, ge=8, le=1024, description="length of query and item vectors, popularity columns included")
    heads: int = Field(6, ge=1, le=32, description="pooling heads over the history")
    feature_dim: int = Field(16, ge=1, le=256, description="embedding length of a categorical feature")
    hidden: int = Field(256, ge=8, le=4096, description="width of the user tower's hidden layer")
    dropout: float = Field(0.2, ge=0, lt=1, description="dropout in the user tower")
    history_dropout: float = Field(0.3, ge=0, lt=0.5, description="mean share of history items hidden in an example")
    user_dropout: float = Field(0.15, ge=0, le=1, description="share of examples in which the user is unknown")
    context_dropout: float = Field(
        0.3, ge=0, le=1, description="share of examples in which the context is unknown, see data.context"
    )
    batch_size: int = Field(512, ge=1, description="examples in a step")
    learning_rate: float = Field(1e-3, gt=0, description="of Adam")
    weight_decay: float = Field(1e-5, ge=0, description="decoupled, of Adam")
    averaging: float = Field(0.98, ge=0, lt=1, description="decay of the running average of the weights that is kept")
    epoch_steps: int = Field(25, ge=1, description="steps between two looks at the validation slice")
    max_epochs: int = Field(24, ge=1, description="largest number of epochs")
    patience: int = Field(3, ge=1, description="epochs without a better validation result before training stops")
    window: float = Field(0.1, gt=0, lt=1, description="share of the clock after a cut from which targets come")
    targets: int = Field(32, ge=1, description="targets of one example; a longer window is sampled")
    recency: float = Field(
        0.3, ge=0, description="half-life of an example's weight, share of the clock; 0 = all weigh the same"
    )
    half_lives: tuple[PositiveFloat, ...] = Field(
        (1 / 256, 1 / 64, 1 / 16, 1 / 4), description="of the popularity columns, as shares of the clock"
    )
    moments: int = Field(128, ge=2, description="moments at which past popularity is known to the training")
    softmax_items: int = Field(12_288, ge=2, description="items in a softmax; larger catalogues are sampled, with logQ")
    warm_start: bool = Field(True, description="start item vectors from factorised co-occurrences")
    warm_window: int = Field(10, ge=1, description="steps within which two items of a history co-occur")
    warm_scale: float = Field(1.0, gt=0, description="root mean square length of the vectors started from")
    factors: float = Field(
        0.3,
        ge=0,
        lt=1,
        description="share of the item vectors that holds factors of who took what, not learned; left out where the validation "
        "slice says that the towers do better without",
    )

    @model_validator(mode="after")
    def _sizes(self) -> TowerConfig:
        # Beside the learned part, a vector has a bias, a column per half-life and one for all of the past.
        if self.dim <= (taken := len(self.half_lives) + 2):
            raise ValueError(f"dim {self.dim} must be above {taken}, the half_lives and 2")
        return self


class RankerConfig(Section):
    """How the ranker is built and trained."""

    dim: int = Field(64, ge=8, le=512, description="length of the ranker's own item vectors")
    hidden: int = Field(32, ge=4, le=1024, description="width of its layers")
    history: int = Field(16, ge=1, le=256, description="newest history items that candidates are compared with")
    heads: int = Field(4, ge=1, le=32, description="recency weightings of that comparison")
    dropout: float = Field(0.1, ge=0, lt=1, description="dropout before the output layer")
    candidates: int = Field(200, ge=2, description="candidates of a training list, drawn by the retrieval")
    batch_size: int = Field(64, ge=1, description="lists in a step")
    learning_rate: float = Field(2e-3, gt=0, description="of Adam")
    weight_decay: float = Field(1e-3, ge=0, description="decoupled, of Adam")
    max_epochs: int = Field(12, ge=1, description="largest number of passes over the lists")
    patience: int = Field(3, ge=1, description="epochs without a better held-out result before training stops")
    max_users: int = Field(8_000, ge=10, description="users of the validation slice that are used")


class TrainingConfig(Section):
    """The whole of the ``training:`` section."""

    seed: int = Field(0, ge=0, description="of every random choice")
    history_length: int = Field(100, ge=1, le=512, description="L: newest positives that the models read")
    validation: float = Field(0.1, gt=0, lt=0.5, description="share of the clock at its end held out to choose epochs")
    refit: float = Field(
        1.0,
        ge=0,
        description="length of the final training on all data, as a multiple of the steps chosen; 0 = keep the chosen model",
    )
    threads: int = Field(0, ge=0, description="torch threads; 0 = leave as they are")
    tower: TowerConfig = Field(default_factory=TowerConfig, description="two towers")
    ranker: RankerConfig = Field(default_factory=RankerConfig, description="ranker")
