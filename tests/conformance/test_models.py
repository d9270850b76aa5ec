"""Every architecture, on either backend."""

import json

import keras
import numpy as np
import pytest

from keras_llm import models
from tests.conformance import cases
from tests.conformance.comparing import assert_same, graph

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


def test_config_round_trip(model):
    text = json.dumps(model.config.to_dict())
    assert type(model.config).from_dict(json.loads(text)) == model.config


def test_it_is_a_functional_model_from_ids_to_logits(model):
    assert [tuple(x.shape) for x in model.inputs] == [(None, None)]
    assert tuple(model.output.shape) == (None, None, cases.V)
    assert model.output.dtype == "float32"
    for name in ("token_embedding", "final_norm"):
        assert model.get_layer(name)


def test_eager_is_graph(model):
    assert_same(graph(model)(IDS), model(IDS), rtol=1e-4, atol=1e-5)


def test_a_row_alone_is_the_row_in_a_batch(model):
    whole = np.asarray(model(IDS))
    for b in range(3):
        alone = np.asarray(model(IDS[b : b + 1]))[0]
        np.testing.assert_allclose(alone, whole[b], rtol=1e-4, atol=1e-5)


def test_later_tokens_change_nothing_before_them(model):
    other = IDS.copy()
    other[:, 6:] = 8 - other[:, 6:]
    one, two = (np.asarray(model(ids))[:, :6] for ids in (IDS, other))
    np.testing.assert_allclose(one, two, rtol=1e-4, atol=1e-5)


def test_separators_keep_documents_apart(model):
    packed = np.concatenate([[0], IDS[0, :5] % 8 + 1, [0], IDS[1, :4] % 8 + 1])
    whole = np.asarray(model(packed[None]))[0]
    for part in (slice(0, 6), slice(6, 11)):
        alone = np.asarray(model(packed[None, part]))[0]
        np.testing.assert_allclose(whole[part], alone, rtol=1e-4, atol=1e-5)


def test_cached_decoding_is_the_full_forward_pass(model):
    full, rows = np.asarray(model(IDS)), np.arange(3)
    decoder = models.decoder(model)
    logits, state = decoder.prefill(IDS[:, :7], LENGTHS, 11)
    for t in range(4):
        expected = full[rows, LENGTHS + t - 1]
        np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-5)
        logits, state = decoder.step(IDS[rows, LENGTHS + t], state)
        assert {value.shape[0] for value in state.values()} == {3}


def test_traced_decoding_is_eager_decoding(model):
    decoder = models.decoder(model, jit=keras.config.backend() == "jax")

    def run(ids, lengths, later):
        _, state = decoder.prefill(ids, lengths, 9)
        return decoder.step(later, state)

    arguments = (IDS[:, :7], LENGTHS, IDS[:, 9])
    assert_same(graph(run)(*arguments), run(*arguments), rtol=1e-4, atol=1e-5)


def test_model_folder_round_trip(model, tmp_path):
    models.save(model, tmp_path / "model")
    again = models.load(tmp_path / "model")
    assert again.config == model.config
    assert_same(again(IDS), model(IDS))


def test_split_head(model):
    trunk, project = models.split_head(model)
    assert_same(project(trunk(IDS)), model(IDS), atol=1e-5)


def test_mixed_precision(model):
    mixed = models.build(model.config, "mixed_bfloat16")
    exact = models.build(model.config)
    mixed.set_weights(exact.get_weights())
    assert {weight.dtype for weight in mixed.weights} == {"float32"}
    assert_same(mixed(IDS), exact(IDS), rtol=0.05, atol=0.05)
    assert keras.backend.standardize_dtype(mixed(IDS).dtype) == "float32"


def test_sizes_are_counted(model):
    count = sum(int(np.prod(w.shape)) for w in model.trainable_weights)
    assert models.count_parameters(model) == count
    assert models.flops_per_token(model.config, 11) > 0
