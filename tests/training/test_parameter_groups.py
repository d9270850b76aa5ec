"""Which weights move, at which rate, and what stays as it is."""

import keras
import numpy as np
import pytest

from keras_llm import models, training
from keras_llm.core import read_json
from keras_llm.training import ParameterGroup, TrainConfig, parameter_groups


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    config = models.GPT2Config(
        vocab_size=11, width=8, num_layers=3, num_heads=2, max_positions=16
    )
    return models.build(config)


def by_path(model, **options):
    variables = model.trainable_variables
    found = parameter_groups.settings(variables, TrainConfig(**options))
    return {v.path: s for v, s in zip(variables, found, strict=True)}


def test_without_groups_matrices_alone_decay(model):
    found = by_path(model, weight_decay=0.25)
    assert {s.rate for s in found.values()} == {1.0}
    for variable in model.trainable_variables:
        expected = 0.25 if len(variable.shape) >= 2 else 0.0
        assert found[variable.path].weight_decay == expected


def test_the_first_group_that_matches_counts(model):
    groups = (
        ParameterGroup(pattern=r"block_1/.*bias", rate=0.5, weight_decay=0.125),
        ParameterGroup(pattern=r"block_1", rate=2.0),
        ParameterGroup(pattern=r"token_embedding", rate=0.0, weight_decay=0.0),
    )
    found = by_path(model, groups=groups, weight_decay=0.25)
    for path, (rate, decay) in found.items():
        if "block_1" in path and "bias" in path:
            assert (rate, decay) == (0.5, 0.125)
        elif "block_1" in path:
            assert rate == 2.0 and decay in (0.0, 0.25)
        elif "token_embedding" in path:
            assert (rate, decay) == (0.0, 0.0)
        else:
            assert rate == 1.0 and decay in (0.0, 0.25)
    assert len({s for s in found.values()}) == 6


def test_rates_fall_by_layer_from_the_top_down(model):
    found = by_path(model, layer_decay=0.5)
    powers = {"embedding": 4, "block_0": 3, "block_1": 2, "block_2": 1, "final_norm": 0}
    seen = set()
    for path, settings in found.items():
        (name,) = [name for name in powers if name in path]
        seen.add(name)
        assert settings.rate == 0.5 ** powers[name]
    assert seen == set(powers)


def test_frozen_weights_stay_and_have_no_slots(experiment, texts, tmp_path, eagerly):
    config = experiment.replace(
        train=experiment.train.replace(
            freeze="embedding|block_0/.*kernel",
            groups=(ParameterGroup(pattern="final_norm", rate=0.0),),
            weight_decay=0.5,
        )
    )
    training.train(config, *texts, tmp_path / "run", progress=False)
    keras.utils.set_random_seed(config.train.seed)
    resolved = training.Experiment.from_dict(
        read_json(tmp_path / "run" / "config.json")
    )
    begun = {w.path: np.asarray(w) for w in models.build(resolved.model).weights}
    ended = models.load(tmp_path / "run" / "last")
    moved = {w.path for w in ended.weights if (np.asarray(w) != begun[w.path]).any()}
    assert moved == {
        path
        for path in begun
        if "block_0" in path and "kernel" not in path or "block_0" not in path
        and "embedding" not in path and "final_norm" not in path
    }  # fmt: skip


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"groups": (ParameterGroup(pattern="blok_1"),)}, "'blok_1', which matches no"),
        ({"groups": (ParameterGroup(pattern="^$"),)}, "which matches none"),
    ],
)
def test_a_group_of_no_weight_is_refused(model, options, reason):
    with pytest.raises(ValueError, match=reason):
        by_path(model, **options)


def test_layers_of_a_model_without_blocks_are_refused():
    weight = keras.Variable(np.ones(3, "float32"), name="kernel")
    with pytest.raises(ValueError, match="layer_decay=0.5, weights such as 'kernel'"):
        parameter_groups.settings([weight], TrainConfig(layer_decay=0.5))


@pytest.mark.parametrize(
    ("pattern", "reason"), [("blok", "matches none"), ("", "which matches all")]
)
def test_freezing_nothing_or_all_is_refused(model, pattern, reason):
    with pytest.raises(ValueError, match=reason):
        parameter_groups.freeze(model, pattern)
    assert model.trainable_variables


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"optimizer": "adam"}, "Received: optimizer='adam'"),
        ({"freeze": "("}, "`freeze` must be a regular expression"),
        ({"layer_decay": 0.0}, "above 0 and at most 1"),
        ({"layer_decay": float("nan")}, "above 0 and at most 1"),
        ({"momentum": 1.0}, "`momentum` must be at least 0 and below 1"),
    ],
)
def test_bad_fields_are_refused(options, reason):
    with pytest.raises(ValueError, match=reason):
        TrainConfig(**options)


def test_groups_survive_json(experiment):
    groups = (ParameterGroup(pattern="norm", rate=0.5),)
    config = experiment.replace(train=experiment.train.replace(groups=groups))
    assert training.Experiment.from_dict(config.to_dict()) == config
