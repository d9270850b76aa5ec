import pathlib

import pytest

from keras_llm import core, data, models, training
from keras_llm.training import Experiment, TokenizerConfig, TrainConfig

CONFIGS = pathlib.Path(training.__file__).parents[1] / "configs"
NAN = float("nan")


@pytest.mark.parametrize(
    "changes, named",
    [
        ({"steps": 0}, "steps"),
        ({"learning_rate": NAN}, "learning_rate"),
        ({"learning_rate": -1.0}, "learning_rate"),
        ({"clip_norm": 0.0}, "clip_norm"),
        ({"beta2": 1.0}, "beta2"),
        ({"ema_decay": NAN}, "ema_decay"),
        ({"weight_decay": NAN}, "weight_decay"),
        ({"label_smoothing": 1.0}, "label_smoothing"),
        ({"schedule": "cosin"}, "schedule"),
        ({"jit": "on"}, "jit"),
        ({"dtype": "float16"}, "dtype"),
        ({"dtype": "mixed_float16"}, "loss scaling"),
        ({"steps": 10, "warmup_steps": 11}, "warmup_steps"),
        ({"schedule": "warmup_stable_decay"}, "decay_steps"),
        ({"decay_steps": 5}, "decay_steps"),
        ({"patience": 0}, "patience"),
        ({"steps": 1e3}, "TrainConfig.steps.*int.*1000.0"),
        ({"learning_rate": "1e-3"}, "TrainConfig.learning_rate.*float.*'1e-3'"),
        ({"clip_norm": True}, "TrainConfig.clip_norm.*float or None.*True"),
    ],
)
def test_bad_values_are_refused_by_name(changes, named):
    with pytest.raises(ValueError, match=named):
        TrainConfig(**changes)


def experiment(**changes):
    return Experiment(
        model=models.LlamaConfig(width=8, num_layers=1, num_heads=2, max_positions=64),
        data=data.DataConfig(context=64),
        **changes,
    )


def test_survives_json():
    before = experiment(train=TrainConfig(ema_decay=0.9, patience=3))
    after = Experiment.from_dict(before.to_dict())
    assert after == before and type(after.model) is models.LlamaConfig


def test_an_unknown_architecture_is_refused():
    values = experiment().to_dict()
    values["model"]["architecture"] = "os.system"
    with pytest.raises(ValueError, match="architecture"):
        Experiment.from_dict(values)


@pytest.mark.parametrize("values", [None, {}, {"model": "llama"}, {"model": None}])
def test_an_experiment_without_a_model_is_refused(values):
    with pytest.raises(ValueError, match="whose `model` is a mapping"):
        Experiment.from_dict(values)


def test_any_field_can_be_overridden():
    changed = core.override(
        experiment(),
        {"model.width": "16", "train.clip_norm": "none", "tokenizer.kind": "byte"},
    )
    assert changed.model.width == 16 and changed.train.clip_norm is None
    assert changed.tokenizer == TokenizerConfig(kind="byte")


@pytest.mark.parametrize("field", ["train.stepps", "modle.width", "train.steps.x"])
def test_an_unknown_field_is_refused(field):
    with pytest.raises(ValueError, match="steps|model"):
        core.override(experiment(), {field: "1"})


def test_differing_fields_are_dotted():
    other = experiment(train=TrainConfig(steps=7))
    found = experiment().differing_fields(other)
    assert found == {"train.steps": (1_000, 7)}


def test_an_unknown_task_is_refused_and_an_early_run_has_none():
    values = experiment().to_dict()
    assert values["task"]["kind"] == "language_model"
    with pytest.raises(ValueError, match="kind.*language_model.*'poetry'"):
        Experiment.from_dict({**values, "task": {"kind": "poetry"}})
    del values["task"]
    assert Experiment.from_dict(values) == experiment()


def test_a_context_beyond_the_positions_is_refused():
    with pytest.raises(ValueError, match=r"data\.context=65.*max_positions=64"):
        Experiment(model=experiment().model, data=data.DataConfig(context=65))


def test_carried_state_needs_streams():
    with pytest.raises(ValueError, match="streams"):
        experiment(train=TrainConfig(carry_state=True))


@pytest.mark.parametrize(
    "path", sorted(CONFIGS.glob("[!_]*.py")), ids=lambda path: path.stem
)
def test_shipped_configs_load(path):
    config = training.load_config(path)
    assert Experiment.from_dict(config.to_dict()) == config


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("quikstart.py", r"Did you mean .*quickstart\.py\?$"),
        ("zzz.py", r"In .*configs there are: bert_reviews, .*, quickstart, .*\.$"),
        ("elsewhere/llama_smal.py", r"Did you mean .*configs/llama_small\.py\?$"),
    ],
)
def test_a_config_that_is_not_there_is_named_with_its_nearest(name, hint):
    with pytest.raises(FileNotFoundError, match=hint):
        training.load_config(CONFIGS / name)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"rank": "4"}, models.AdapterConfig(rank=4)),
        ({"kind": "dora"}, models.AdapterConfig(kind="dora")),
        ({"tokens": "5"}, models.PromptConfig(tokens=5)),
        ({"kind": "prompt"}, models.PromptConfig()),
    ],
)
def test_an_adapter_is_chosen_by_its_fields(given, expected):
    experiment = training.Experiment(model=models.GPT2Config(), task=training.Chat())
    changes = {f"adapter.{name}": value for name, value in given.items()}
    assert core.override(experiment, changes).adapter == expected
