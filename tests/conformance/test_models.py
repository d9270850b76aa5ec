"""Every architecture, on either backend."""

import json

import keras
import numpy as np
import pytest

from keras_llm import models
from tests.conformance import cases
from tests.conformance.comparing import assert_same, graph, quick, quick_decoding

RNG = np.random.default_rng(41)
IDS = RNG.integers(0, 9, (3, 11)).astype("int32")
LENGTHS = np.array([4, 1, 7], "int32")


@pytest.fixture(scope="module", params=sorted(cases.MODELS))
def model(request):
    model = models.build(cases.MODELS[request.param])
    for weight in model.weights:
        scale = 0.7 * weight.path.endswith("scale")
        weight.assign(RNG.normal(scale, 0.3, weight.shape))
    return model


@pytest.fixture(scope="module")
def run(model):
    """Returns the function from ids to logits."""
    call = quick(model)
    return lambda ids: np.asarray(call(ids))


@pytest.fixture(scope="module")
def whole(model):
    """Returns the logits of the whole batch, from an eager call."""
    return np.asarray(model(IDS))


def test_config_round_trip(model):
    text = json.dumps(model.config.to_dict())
    assert type(model.config).from_dict(json.loads(text)) == model.config


def test_it_is_a_functional_model_from_ids_to_logits(model):
    assert [tuple(x.shape) for x in model.inputs] == [(None, None)]
    assert tuple(model.output.shape) == (None, None, cases.V)
    assert model.output.dtype == "float32"
    for name in ("token_embedding", "final_norm"):
        assert model.get_layer(name)


def test_eager_is_graph(model, whole):
    assert_same(graph(model)(IDS), whole, rtol=1e-4, atol=1e-5)


def test_a_row_alone_is_the_row_in_a_batch(run, whole):
    for b in range(3):
        alone = run(IDS[b : b + 1])[0]
        np.testing.assert_allclose(alone, whole[b], rtol=1e-4, atol=1e-5)


def test_later_tokens_change_nothing_before_them(run):
    other = IDS.copy()
    other[:, 6:] = 8 - other[:, 6:]
    one, two = (run(ids)[:, :6] for ids in (IDS, other))
    np.testing.assert_allclose(one, two, rtol=1e-4, atol=1e-5)


def test_separators_keep_documents_apart(run):
    packed = np.concatenate([[0], IDS[0, :5] % 8 + 1, [0], IDS[1, :4] % 8 + 1])
    together = run(packed[None])[0]
    for part in (slice(0, 6), slice(6, 11)):
        # Later tokens, which change nothing, fill it up: one shape is one compile.
        alone = run(np.resize(packed[part], (1, 11)))[0, : part.stop - part.start]
        np.testing.assert_allclose(together[part], alone, rtol=1e-4, atol=1e-5)


def test_cached_decoding_is_the_full_forward_pass(model, whole):
    rows = np.arange(3)
    prefill, step = quick_decoding(models.decoder(model), 11)
    logits, state = prefill(IDS[:, :7], LENGTHS)
    for t in range(4):
        expected = whole[rows, LENGTHS + t - 1]
        np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-5)
        logits, state = step(IDS[rows, LENGTHS + t], state)
        assert {value.shape[0] for value in state.values()} == {3}


def test_traced_decoding_is_eager_decoding(model):
    decoder = models.decoder(model, jit=keras.config.backend() == "jax")

    def run(ids, lengths, later):
        _, state = decoder.prefill(ids, lengths, 9)
        return decoder.step(later, state)

    arguments = (IDS[:, :7], LENGTHS, IDS[:, 9])
    assert_same(graph(run)(*arguments), run(*arguments), rtol=1e-4, atol=1e-5)


def test_model_folder_round_trip(model, whole, tmp_path):
    models.save(model, tmp_path / "model")
    again = models.load(tmp_path / "model")
    assert again.config == model.config
    assert_same(again(IDS), whole)


def test_split_head(model, whole):
    trunk, project = models.split_head(model)
    assert_same(quick(lambda ids: project(trunk(ids)))(IDS), whole, atol=1e-5)


def test_mixed_precision(model):
    mixed = models.build(model.config, "mixed_bfloat16")
    exact = models.build(model.config)
    mixed.set_weights(exact.get_weights())
    assert {weight.dtype for weight in mixed.weights} == {"float32"}
    rounded = quick(mixed)(IDS)
    assert_same(rounded, quick(exact)(IDS), rtol=0.05, atol=0.05)
    assert keras.backend.standardize_dtype(rounded.dtype) == "float32"


def test_sizes_are_counted(model):
    count = sum(int(np.prod(w.shape)) for w in model.trainable_weights)
    assert models.count_parameters(model) == count
    assert models.flops_per_token(model.config, 11) > 0
