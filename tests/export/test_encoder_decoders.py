"""Encoder-decoders exported: source strings in, target strings and beams out."""

import os

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_llm import export, models, tokenizers
from keras_llm.core import check_manifest
from keras_llm.generation import BeamSearch, Generator

CONFIGS = {
    "t5": models.T5Config(
        vocab_size=257,
        max_positions=48,
        width=14,
        num_layers=1,
        num_heads=3,
        head_size=5,
        feed_forward_width=11,
    ),
    "lstm_seq2seq": models.LSTMSeq2SeqConfig(
        vocab_size=257, embedding_width=7, units=10, num_layers=1
    ),
}
SOURCES = ["Call me", "", "文字"]


@pytest.fixture(scope="module", params=CONFIGS)
def exported(request, tmp_path_factory):
    """Returns model, tokenizer and the export, loaded from where it was moved to."""
    keras.utils.set_random_seed(6)
    model = models.build(CONFIGS[request.param])
    for weight in model.trainable_weights:
        weight.assign(weight + 0.3 * keras.random.normal(weight.shape, seed=2))
    tokenizer = tokenizers.ByteTokenizer()
    folder = tmp_path_factory.mktemp("served")
    out = export.export(model, tokenizer, folder / "1")
    assert check_manifest(out)["verified_answers"] > 10
    os.rename(out, folder / "elsewhere")
    return model, tokenizer, tf.saved_model.load(folder / "elsewhere")


def test_targets_are_those_of_the_model_in_memory(exported):
    model, tokenizer, served = exported
    expected = Generator(model, tokenizer).generate(SOURCES)
    answer = served.signatures["serving_default"](prompt=tf.constant(SOURCES))
    assert [t.decode() for t in answer["text"].numpy()] == [e.text for e in expected]


def test_all_beams_are_those_of_the_model_in_memory(exported):
    model, tokenizer, served = exported
    widths, rooms = [2, 3, 1], [5, 7, 6]
    answer = served.signatures["beam_search"](
        prompt=tf.constant(SOURCES),
        num_beams=tf.constant(widths),
        max_new_tokens=tf.constant(rooms),
        length_penalty=tf.constant([0.6] * 3),
    )
    expected = BeamSearch(model, tokenizer).search_all(SOURCES, widths, rooms)
    for row, beams in enumerate(expected):
        assert len(beams) == widths[row]
        for i, beam in enumerate(beams):
            assert answer["texts"][row, i].numpy().decode() == beam.text
            np.testing.assert_allclose(answer["scores"][row, i], beam.score, rtol=1e-4)
        assert set(answer["texts"][row, widths[row] :].numpy()) <= {b""}


def test_source_and_target_have_each_their_positions(exported):
    model, _, served = exported
    if getattr(model.config, "max_positions", None) is None:
        limit, source = 2**15, "a" * 10
    else:
        limit, source = 48, "a" * 47  # And its end token.
    knobs = {
        "num_beams": tf.constant([1]),
        "length_penalty": tf.constant([0.0]),
    }
    ask = served.signatures["beam_search"]
    found = ask(prompt=tf.constant([source]), max_new_tokens=tf.constant([3]), **knobs)
    assert found["num_tokens"].numpy().max() <= 3
    with pytest.raises(tf.errors.InvalidArgumentError, match="max_new_tokens"):
        ask(
            prompt=tf.constant([source]),
            max_new_tokens=tf.constant([limit + 1]),
            **knobs,
        )
