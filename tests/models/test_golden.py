"""GPT-2, Llama and Mistral against Transformers on torch: stored answers.

`tests/golden/make_golden.py` made them; the tests need neither library.
"""

import pathlib

import numpy as np
import pytest
from keras import ops

from keras_llm import models

FOLDER = pathlib.Path(__file__).parents[2] / "testdata" / "golden"
SHARED = {"vocab_size": 37, "max_positions": 29, "num_layers": 3}
LLAMA = {
    **SHARED,
    "width": 24,
    "num_heads": 6,
    "key_value_heads": 2,
    "head_size": 14,
    "feed_forward_width": 31,
    "rotary_base": 500.0,
}
CONFIGS = {
    "gpt2": models.GPT2Config(**SHARED, width=20, num_heads=5, feed_forward_width=31),
    "llama": models.LlamaConfig(**LLAMA),
    "llama_tied": models.LlamaConfig(**LLAMA, tied=True),
    "mistral": models.LlamaConfig(**LLAMA, window=5),
}


@pytest.fixture(scope="module", params=CONFIGS)
def case(request):
    """Returns a model with the reference's weights, and the answers."""
    model = models.build(CONFIGS[request.param])
    models.load_weights(model, FOLDER / f"{request.param}.safetensors")
    with np.load(FOLDER / f"{request.param}.npz") as answers:
        return model, dict(answers)


def real(answers):
    ids, lengths = answers["token_ids"], answers["lengths"]
    return np.arange(ids.shape[1])[None] < lengths[:, None]


def test_logits(case):
    model, answers = case
    logits = np.asarray(model(answers["token_ids"]))
    where = real(answers)
    np.testing.assert_allclose(logits[where], answers["logits"][where], atol=1e-4)


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
