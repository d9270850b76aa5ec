"""Every architecture over named, right-padded inputs, on either backend."""

import json

import numpy as np
import pytest

from keras_llm import models
from tests.conformance import cases
from tests.conformance.comparing import assert_same, graph, quick

RNG = np.random.default_rng(47)
CLOSE = {"rtol": 1e-4, "atol": 1e-5}


@pytest.fixture(scope="module", params=sorted(cases.PADDED_MODELS))
def case(request):
    return cases.PADDED_MODELS[request.param]


@pytest.fixture(scope="module")
def model(case):
    model = models.build(case.config)
    for weight in model.weights:
        scale = 0.7 * weight.path.endswith("scale")
        value = RNG.normal(scale, 0.3, weight.shape)
        weight.assign(np.abs(value) if weight.path.endswith("variance") else value)
    return model


@pytest.fixture(scope="module")
def run(case, model):
    """Returns the function from a batch to the outputs, by name."""
    call = quick(model)
    return lambda inputs: case.named(call(inputs))


@pytest.fixture(scope="module")
def whole(case, model):
    """Returns the outputs for the whole batch, by name, from an eager call."""
    return case.named(model(case.inputs))


def assert_same_where_real(case, found, expected, rows=slice(None)):
    assert set(found) == set(expected) == set(case.outputs)
    for name, value in found.items():
        where = np.ones(len(value), bool)
        if name in case.lengths_of:
            length = expected[name].shape[1]
            where = case.real(name, length)[rows]
            value = value[:, :length]
        np.testing.assert_allclose(
            value[where], expected[name][rows][where], err_msg=name, **CLOSE
        )


def test_config_round_trip(case):
    text = json.dumps(case.config.to_dict())
    assert type(case.config).from_dict(json.loads(text)) == case.config


def test_it_is_a_functional_model_of_named_inputs(case, model):
    assert set(model.input) == set(case.inputs)
    for name, symbol in model.input.items():
        assert symbol.name == name and symbol.dtype == case.inputs[name].dtype
        assert len(symbol.shape) == case.inputs[name].ndim
        assert set(symbol.shape) <= {None}


def test_outputs_are_float32_or_ids_of_the_shapes_told(case, model, whole):
    outputs = model.output if isinstance(model.output, dict) else None
    outputs = outputs or {"output": model.output}
    assert {name: tuple(y.shape) for name, y in outputs.items()} == case.outputs
    assert set(whole) == set(case.outputs)
    for name, value in whole.items():
        assert np.isfinite(value).all()
        assert value.dtype == ("int32" if name.endswith("_ids") else "float32")
        for size, told in zip(value.shape, case.outputs[name], strict=True):
            assert told in (None, size)


def test_eager_is_graph(case, model, whole):
    assert_same(case.named(graph(model)(case.inputs)), whole, **CLOSE)


def test_a_row_alone_is_the_row_in_a_batch(case, run, whole):
    for b in range(len(next(iter(case.inputs.values())))):
        row = slice(b, b + 1)
        alone = run({name: x[row] for name, x in case.inputs.items()})
        assert_same(alone, {k: v[row] for k, v in whole.items()}, **CLOSE)


def test_what_stands_at_padding_changes_nothing(case, run, whole):
    changed = dict(case.inputs)
    for name in set(case.lengths_of) & set(case.inputs):
        given = case.inputs[name]
        real = case.real(name, given.shape[1])
        changed[name] = np.where(real, given, given[::-1, ::-1])
        assert (changed[name] != given).any()
    assert_same_where_real(case, run(changed), whole)


def test_more_padding_changes_nothing(case, run, whole):
    wider = {
        name: np.pad(x, ((0, 0), (0, 2))) if name in case.lengths_of else x
        for name, x in case.inputs.items()
    }
    assert_same_where_real(case, run(wider), whole)


def test_a_row_without_tokens_is_finite_and_disturbs_no_other(case, run, whole):
    lengths = {name: case.inputs[name].copy() for name in case.lengths_of.values()}
    for value in lengths.values():
        value[2] = 0
    found = run({**case.inputs, **lengths})
    assert all(np.isfinite(value).all() for value in found.values())
    others = [0, 1, 3]
    kept = {name: value[others] for name, value in found.items()}
    assert_same_where_real(case, kept, whole, others)


def test_model_folder_round_trip(case, model, whole, tmp_path):
    models.save(model, tmp_path / "model")
    again = models.load(tmp_path / "model")
    assert again.config == model.config
    assert_same(case.named(quick(again)(case.inputs)), whole, **CLOSE)


def test_mixed_precision(case):
    exact = models.build(case.config)
    mixed = models.build(case.config, "mixed_bfloat16")
    mixed.set_weights(exact.get_weights())
    assert {weight.dtype for weight in mixed.weights} == {"float32"}
    found, expected = (case.named(quick(each)(case.inputs)) for each in (mixed, exact))
    for name in set(found) - set(case.discrete):
        assert found[name].dtype == "float32"
        np.testing.assert_allclose(found[name], expected[name], rtol=0.05, atol=0.05)


def test_sizes_are_counted(model):
    count = sum(int(np.prod(w.shape)) for w in model.trainable_weights)
    assert models.count_parameters(model) == count
    flops = models.flops_per_token(model.config, 5)
    assert isinstance(flops, int) and flops > 0
