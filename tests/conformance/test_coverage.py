"""Everything public has a case, and every case has a subject."""

import inspect

import pytest

from keras_llm import layers
from tests.conformance import cases, subjects


def architectures():
    """Returns the architectures that have a case."""
    padded = {case.config.architecture for case in cases.PADDED_MODELS.values()}
    return padded | set(cases.MODELS)


@pytest.mark.parametrize(
    ("known", "public"),
    [
        (cases.LAYERS, subjects.layer_names),
        (architectures(), subjects.model_names),
        (cases.SAMPLERS, subjects.sampler_names),
    ],
    ids=["layers", "models", "samplers"],
)
def test_cases_are_the_public_subjects(known, public):
    names = public()
    assert len(names) > 2
    missing, left_over = names - set(known), set(known) - names
    assert not missing, f"no case in tests/conformance/cases.py: {sorted(missing)}"
    assert not left_over, f"no subject any more: {sorted(left_over)}"


def test_every_layer_that_can_draw_says_how_often():
    can_draw = {
        name
        for name in subjects.layer_names()
        if "seed" in inspect.signature(getattr(layers, name).__init__).parameters
    }
    always = {name for name, case in cases.LAYERS.items() if case.random_output}
    assert can_draw - always == set(cases.DRAWS) - {"Dropout"}


def test_each_model_case_is_of_its_architecture():
    for name, config in cases.MODELS.items():
        assert config.architecture == name
    for name, case in cases.PADDED_MODELS.items():
        assert name.startswith(case.config.architecture)
