"""Every public layer, on either backend."""

import functools
import inspect
import json

import keras
import numpy as np
import pytest

from tests.conformance import cases
from tests.conformance.comparing import arrays, assert_same, graph

NAMES = sorted(cases.LAYERS)
CAUSAL = [name for name in NAMES if cases.LAYERS[name].causal]


@pytest.fixture(params=NAMES)
def case(request):
    return cases.LAYERS[request.param]


def test_config_round_trip(case):
    layer = case.make(name="subject")
    expected = case.call(layer, case.x)
    text = json.dumps(keras.saving.serialize_keras_object(layer))
    again = keras.saving.deserialize_keras_object(json.loads(text))
    assert type(again) is type(layer)
    assert again.get_config() == layer.get_config()
    case.call(again, case.x)
    assert [w.path for w in again.weights] == [w.path for w in layer.weights]
    again.set_weights(layer.get_weights())
    assert_same(case.call(again, case.x), expected)


def test_config_holds_every_constructor_argument(case):
    arguments = set(inspect.signature(type(case.make()).__init__).parameters)
    config = set(case.make().get_config())
    assert arguments - {"self", "kwargs"} <= config


def test_symbolic_call_tells_shapes_and_types(case):
    layer = case.make()
    symbol = keras.Input(
        batch_shape=(None, None, *case.x.shape[2:]), dtype=case.x.dtype
    )
    promised = keras.tree.flatten(case.call(layer, symbol))
    found = keras.tree.flatten(case.call(layer, case.x))
    for spec, real in zip(promised, found, strict=True):
        assert len(spec.shape) == len(real.shape)
        for size, known in zip(real.shape, spec.shape, strict=True):
            # Rows and steps are open here; every other size must be told.
            assert known == size or known is None and size in (1, cases.B, cases.T)
        standard = keras.backend.standardize_dtype
        assert standard(spec.dtype) == standard(real.dtype)


def test_inside_a_functional_model(case):
    layer = case.make()
    symbol = keras.Input(case.x.shape[1:], dtype=case.x.dtype)
    model = keras.Model(symbol, case.call(layer, symbol))
    assert_same(model(case.x), case.call(layer, case.x), atol=1e-6)


def test_eager_is_graph(case):
    layer = case.make()
    case.call(layer, case.x)
    traced = graph(functools.partial(case.call, layer))
    assert_same(traced(case.x), case.call(layer, case.x), rtol=1e-4, atol=1e-6)


def test_a_row_alone_is_the_row_in_a_batch(case):
    layer = case.make()
    whole = arrays(case.call(layer, case.x))
    for b in range(cases.B):
        alone = arrays(case.call(layer, case.x[b : b + 1]))
        for one, batch in zip(alone, whole, strict=True):
            row = batch[b if len(batch) > 1 else 0]  # One row may stand for all.
            np.testing.assert_allclose(one[0], row, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("case", CAUSAL, indirect=True)
def test_padding_on_the_right_changes_nothing(case):
    layer = case.make()
    other = case.x.copy()
    other[:, 3:] = other[::-1, 3:]
    found, changed = (arrays(case.call(layer, x)) for x in (case.x, other))
    for one, two in zip(found, changed, strict=True):
        np.testing.assert_allclose(one[:, :3], two[:, :3], rtol=1e-4, atol=1e-6)


def test_mixed_precision(case):
    exact, mixed = case.make(), case.make(dtype="mixed_bfloat16")
    expected, _ = case.call(exact, case.x), case.call(mixed, case.x)
    mixed.set_weights(exact.get_weights())
    assert {w.dtype for w in mixed.trainable_weights} <= {"float32"}
    rounded = case.call(mixed, case.x)
    for y, whole in zip(
        keras.tree.flatten(rounded), keras.tree.flatten(expected), strict=True
    ):
        name = keras.backend.standardize_dtype(y.dtype)
        if name != keras.backend.standardize_dtype(whole.dtype):
            assert name == "bfloat16"
    # bfloat16 keeps 8 bits: what is small beside its neighbours has lost most of them.
    for y, whole in zip(arrays(rounded), arrays(expected), strict=True):
        np.testing.assert_allclose(y, whole, atol=0.03 * max(1, np.abs(whole).max()))


def test_weights_are_saved_and_reloaded(case, tmp_path):
    def made():
        symbol = keras.Input(case.x.shape[1:], dtype=case.x.dtype)
        return keras.Model(symbol, case.call(case.make(name="subject"), symbol))

    model, again = made(), made()
    model.save_weights(tmp_path / "subject.weights.h5")
    again.load_weights(tmp_path / "subject.weights.h5")
    assert_same(again(case.x), model(case.x))


def test_same_seed_same_training_output(case):
    outputs = []
    for _ in range(2):
        keras.utils.set_random_seed(3)
        outputs.append(case.call(case.make(), case.x, **training(case)))
    assert_same(*outputs)


def training(case):
    return {"training": True} if case.random_output else {}
