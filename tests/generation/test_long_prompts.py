"""A prompt that cannot fit is refused before it is encoded."""

import pytest
import tensorflow as tf

from keras_llm import models, tokenizers
from keras_llm.generation.text_model import TextModel


class Unreadable(tokenizers.ByteTokenizer):
    """Tells when it is asked to encode while a graph runs."""

    def encode(self, text):
        def fail(text):
            raise AssertionError("encoded")

        unread = tf.numpy_function(fail, [text], tf.string)
        return super().encode(tf.ensure_shape(unread, [None]))


@pytest.fixture(scope="module")
def model():
    config = models.GPT2Config(
        vocab_size=257, width=6, num_layers=1, num_heads=2, max_positions=11
    )
    return TextModel(models.build(config), Unreadable())


@pytest.fixture(scope="module")
def score(model):
    """The traced function, in which nothing but the graph orders what runs."""
    text = tf.TensorSpec([None], tf.string)
    return tf.function(model.score, input_signature=[text, text], autograph=False)


@pytest.mark.parametrize("name", ["prompt", "completion"])
def test_what_cannot_fit_is_not_encoded(model, score, name):
    texts = {
        "prompt": tf.constant(["a", "a" * 23]),
        "completion": tf.constant(["b"] * 2),
    }
    if name == "completion":
        texts = dict(zip(texts, reversed(texts.values()), strict=True))
    refusal = f"`{name}` must hold at most 22 bytes.*shorten it"
    with pytest.raises(tf.errors.InvalidArgumentError, match=refusal):
        score(**texts)
    if name == "prompt":
        encode = tf.function(model.encode_prompt, autograph=False)
        with pytest.raises(tf.errors.InvalidArgumentError, match=refusal):
            encode(texts["prompt"])
    texts = {key: tf.constant(["a"]) for key in texts}
    with pytest.raises(tf.errors.OpError, match="encoded"):
        score(**texts)
