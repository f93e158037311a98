"""pipeline.yaml: what it takes, and the one line that names what is wrong with it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import BaseModel, ValidationError

from trireme_export.config import ConfigError, PipelineConfig, load_config


def write(directory: Path, text: str) -> Path:
    file = directory / "pipeline.yaml"
    file.write_text(text, encoding="utf-8")
    return file


def test_no_file_and_an_empty_file_give_the_defaults(tmp_path: Path) -> None:
    assert load_config(None) == load_config(write(tmp_path, "")) == PipelineConfig()
    assert PipelineConfig().data.test_fraction == 0.1
    assert PipelineConfig().serving.max_batch_size == 64


def test_what_is_not_set_keeps_its_default(tmp_path: Path) -> None:
    text = "data:\n  item_features: {ratings_count: number}\n  label_column: rating\n  label_minimum: 4\n"
    config = load_config(str(write(tmp_path, text + "serving: {candidates: 300}\ntraining: {seed: 7}\n")))
    assert config.data.item_features == {"ratings_count": "number"}
    assert config.data.label_minimum == 4
    assert config.serving.candidates == 300
    assert config.serving.list_length == 200
    assert config.training.seed == 7


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("data: {test_fracton: 0.2}", ["data.test_fracton: unknown key", "did you mean 'test_fraction'?", "allowed: "]),
        ("budget: {p50_ms: 30}", ["budget: p99_ms 20 must not be below p50_ms 30"]),
        ("budget: {shares: {retrieval: 1.0}}", ["budget: shares.retrieval is 1; allowed: above 0, below 1"]),
        ("budget: {shares: {retrieval: 0.5}}", ["budget: shares lacks feature_transform, user_tower, ranking"]),
        ("budget: {shares: {retreival: 0.5}}", ["budget: shares names 'retreival'; allowed: feature_transform, "]),
        (
            "budget: {shares: {feature_transform: 0.1, user_tower: 0.1, retrieval: 0.1, ranking: 0.1, reranking: 0.1, "
            "transport: 0.1}}",
            ["budget: shares add up to 0.6; they must add up to 1"],
        ),
        ("trainig: {}", ["trainig: unknown key", "did you mean 'training'?", "data, training, serving"]),
        ("training: {tower: {dims: 3}}", ["training.tower.dims: unknown key", "did you mean 'dim'?"]),
        ("serving: {zzz: 1}", ["serving.zzz: unknown key; allowed: candidates"]),
        ("data: {test_fraction: 1.5}", ["data.test_fraction: 1.5 is not allowed", "less than 1"]),
        ("data: {test_fraction: many}", ["data.test_fraction: 'many'", "valid number"]),
        ("data: {item_features: {a: colour}}", ["data.item_features.a: 'colour'", "'category'", "'ignore'"]),
        ("data: {split_by: day}", ["data.split_by: 'day'", "'time'", "'user'"]),
        ("data: {label_minimum: 4}", ["data: label_minimum needs label_column"]),
        ("serving: {max_batch_size: 0}", ["serving.max_batch_size: 0", "greater than or equal to 1"]),
        ("serving: {list_length: 300}", ["serving: list_length 300 must not exceed candidates 200"]),
        ("serving: 3", ["serving: 3 is not allowed"]),
        ("[1, 2]", ["holds [1, 2]; sections are needed: data, training, serving"]),
        ("data: {a: 1", ["not YAML"]),
        ("training: {seed: 1}\nserving: {}\ntraining: {}\n", ["the key 'training' occurs twice, in lines 1 and 3"]),
        ("serving:\n  candidates: 5\n  candidates: 6\n", ["the key 'candidates' occurs twice, in lines 2 and 3"]),
        ("training: {ranker: {dim: 4}}", ["training.ranker.dim: 4 is not allowed", "greater than or equal to 8"]),
        (
            "training: {tower: {half_lives: [0.1, 0]}}",
            ["training.tower.half_lives.1: 0 is not allowed", "greater than 0"],
        ),
        ("training: {tower: {learning_rate: .inf}}", ["training.tower.learning_rate: inf is not allowed", "finite"]),
        ("training: {tower: {dim: 8, half_lives: [1, 2, 3, 4, 5, 6]}}", ["training.tower: dim 8 must be above 8"]),
    ],
)
def test_a_fault_is_named_in_one_line(tmp_path: Path, text: str, parts: list[str]) -> None:
    file = write(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        load_config(file)
    message = str(caught.value)
    assert message.startswith(f"{file}: ")
    assert "\n" not in message
    for part in parts:
        assert part in message


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.yaml: no such file"):
        load_config(tmp_path / "nowhere.yaml")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(tmp_path)
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00\xd8")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(tmp_path / "binary.yaml")


@pytest.mark.parametrize("share", [-0.1, 1.0, 2.0])
def test_a_holdout_that_is_not_a_share_is_refused(share: float) -> None:
    with pytest.raises(ConfigError, match=r"data\.holdout_users"):
        PipelineConfig().with_holdout(share)
    assert PipelineConfig().with_holdout(0.3).data.holdout_users == 0.3


def test_an_export_takes_its_sections_from_the_file_and_keeps_the_others() -> None:
    trained = PipelineConfig.model_validate(
        {"training": {"seed": 7}, "serving": {"candidates": 300, "list_length": 100}, "gate": {"ndcg_loss": 0.1}}
    )
    given = PipelineConfig.model_validate({"serving": {"list_length": 50}, "budget": {"p50_ms": 5}})
    settings = trained.for_export(given)
    assert (settings.serving.list_length, settings.serving.candidates) == (50, 200)  # the whole section
    assert settings.budget.p50_ms == 5
    assert (settings.gate, settings.training, settings.data) == (trained.gate, trained.training, trained.data)
    assert trained.for_export(trained) == trained
    assert trained.for_export(PipelineConfig()) == trained


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            {"training": {"seed": 8}},
            "training.seed is 8, the checkpoint was trained with 7; allowed: the same, or train",
        ),
        ({"training": {"seed": 7, "tower": {"dim": 32}}}, "training.tower.dim is 32, the checkpoint was trained with "),
        ({"data": {"item_features": {"a": "number"}}}, "data.item_features is {'a': 'number'}, the checkpoint was "),
    ],
)
def test_an_export_refuses_what_needs_training(content: dict, message: str) -> None:
    trained = PipelineConfig.model_validate({"training": {"seed": 7}})
    with pytest.raises(ConfigError) as caught:
        trained.for_export(PipelineConfig.model_validate(content))
    assert str(caught.value).startswith(message)


def sections(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
    yield model
    for field in model.model_fields.values():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from sections(field.annotation)


def test_every_section_refuses_unknown_keys_is_frozen_and_describes_its_keys() -> None:
    found = list(sections(PipelineConfig))
    assert len(found) >= 4
    for section in found:
        with pytest.raises(ValidationError, match="Extra inputs"):
            section(unknown_key=1)
        assert section.model_config["frozen"]
        assert all(field.description for field in section.model_fields.values()), section


def test_a_recipe_with_another_split_or_seed_keeps_the_rest() -> None:
    recipe = PipelineConfig().with_holdout(0.2).with_split("user").with_seed(3)
    assert (recipe.data.split_by, recipe.data.holdout_users) == ("user", 0.2)
    assert (recipe.data.holdout_seed, recipe.training.seed) == (3, 3)
    assert recipe.training.tower == PipelineConfig().training.tower
