"""The single steps of an export, fed what a batching server makes of requests."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_llm import models, tokenizers
from keras_llm.export import LanguageModelServable


@pytest.fixture(scope="module")
def servable():
    keras.utils.set_random_seed(5)
    model = models.build(
        models.GPT2Config(
            vocab_size=257, width=20, num_layers=2, num_heads=5, max_positions=32
        )
    )
    tokenizer = tokenizers.ByteTokenizer()
    return LanguageModelServable(model, tokenizer, False, model.weights)


def prefill(servable, prompt, capacity):
    return servable.prefill(
        token_ids=tf.constant([list(prompt)]),
        lengths=tf.constant([len(prompt)]),
        capacity=tf.constant([capacity]),
    )


def test_slots_that_a_server_padded_do_not_count(servable):
    state = prefill(servable, b"abcde", 7)
    del state["logits"]

    def padded(value):
        # As TF Serving joins unlike sizes: filled up with the tensor's first value.
        first = tf.reshape(value, [-1])[0]
        return tf.pad(value, [[0, 0], [0, 0], [0, 4], [0, 0]], constant_values=first)

    wide = {n: padded(v) if len(v.shape) == 4 else v for n, v in state.items()}
    for token in (102, 103):
        alone = servable.decode_step(tf.constant([token]), **state)
        joined = servable.decode_step(tf.constant([token]), **wide)
        np.testing.assert_allclose(
            joined.pop("logits"), alone.pop("logits"), rtol=1e-5, atol=1e-6
        )
        state, wide = alone, joined


def test_a_state_of_other_rows_is_refused(servable):
    state = prefill(servable, b"abc", 5)
    del state["logits"]
    with pytest.raises(tf.errors.InvalidArgumentError, match="one value per prompt"):
        servable.decode_step(tf.constant([102, 103]), **state)


def test_a_prompt_padded_beyond_the_positions_reaches_no_layer(servable):
    with pytest.raises(tf.errors.InvalidArgumentError, match="at most 32 columns"):
        servable.prefill(
            token_ids=tf.zeros([1, 10**7], tf.int32),
            lengths=tf.constant([3]),
            capacity=tf.constant([10]),
        )
    with pytest.raises(tf.errors.InvalidArgumentError, match="`capacity` must be"):
        prefill(servable, b"abcde", 4)
