"""Decoder-only models against Transformers on torch: stored answers.

`tests/golden/make_golden.py` made them; the tests need neither library.
"""

import pathlib

import keras
import numpy as np
import pytest
from keras import ops

from keras_llm import convert, models
from tests.conformance.comparing import quick

FOLDER = pathlib.Path(__file__).parents[2] / "testdata" / "golden"
NAMES = (
    "gpt2",
    "llama",
    "llama_tied",
    "llama3",
    "mistral",
    "qwen2",
    "qwen3",
    "gemma",
    "gemma2",
)


def load(name, folder):
    """Returns a model with the reference's weights, and the answers."""
    convert.import_folder(FOLDER / name, folder / name)
    with np.load(FOLDER / f"{name}.npz") as answers:
        return models.load(folder / name), dict(answers)


@pytest.fixture(scope="module", params=NAMES)
def case(request, tmp_path_factory):
    return load(request.param, tmp_path_factory.mktemp("imported"))


def real(answers):
    ids, lengths = answers["token_ids"], answers["lengths"]
    return np.arange(ids.shape[1])[None] < lengths[:, None]


def test_logits(case):
    model, answers = case
    logits = np.asarray(model(answers["token_ids"]))
    where = real(answers)
    np.testing.assert_allclose(logits[where], answers["logits"][where], atol=1e-4)


def test_hidden_states_of_every_layer(case):
    model, answers = case
    last = model.config.num_layers - 1
    layers = ["embedding_dropout", *(f"block_{i}" for i in range(last)), "final_norm"]
    outputs = [model.get_layer(layer).output for layer in layers]
    states = quick(keras.Model(model.input, outputs))(answers["token_ids"])
    assert len(states) == len(answers["hidden"]) == 4
    where = real(answers)
    for ours, theirs in zip(states, answers["hidden"], strict=True):
        np.testing.assert_allclose(np.asarray(ours)[where], theirs[where], atol=1e-4)


def test_loss(case):
    model, answers = case
    ids, weight = answers["token_ids"], real(answers)[:, 1:]
    logits = model(ids)[:, :-1]
    log_probs = np.asarray(ops.log_softmax(logits))
    chosen = np.take_along_axis(log_probs, ids[:, 1:, None], axis=-1)[..., 0]
    loss = -(chosen * weight).sum() / weight.sum()
    assert loss == pytest.approx(float(answers["loss"]), abs=1e-5)


def test_greedy_continuation_from_the_cache(case):
    model, answers = case
    decoder, expected = models.decoder(model), answers["greedy"]
    lengths = answers["lengths"]
    capacity = lengths.max() + expected.shape[1]
    logits, state = decoder.prefill(answers["token_ids"], lengths, int(capacity))
    for t in range(expected.shape[1]):
        token = np.asarray(ops.argmax(logits, axis=-1))
        np.testing.assert_array_equal(token, expected[:, t])
        logits, state = decoder.step(token.astype("int32"), state)


def test_packed_documents_are_documents_alone(case):
    model, answers = case
    apart = models.build(model.config.replace(separator_id=0))
    apart.set_weights(model.get_weights())
    logits = np.asarray(apart(answers["packed_ids"]))[0]
    np.testing.assert_allclose(logits, answers["packed_logits"], atol=1e-4)
    together = np.asarray(model(answers["packed_ids"]))[0]
    assert np.abs(together - answers["packed_logits"]).max() > 0.1
