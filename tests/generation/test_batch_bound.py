"""Rows and positions, each within its limit, are bounded together too."""

import pytest
import tensorflow as tf

from keras_llm import models, tokenizers
from keras_llm.generation import BeamSearch, Generator, prompt_model

POSITIONS = 64


@pytest.fixture(scope="module")
def model():
    return models.build(
        models.GPT2Config(
            vocab_size=257, width=4, num_layers=1, num_heads=2, max_positions=POSITIONS
        )
    )


def test_as_many_slots_as_fit_are_filled_and_one_row_more_is_refused(model):
    generator = Generator(model, tokenizers.ByteTokenizer())
    most = prompt_model.LEAST_SLOTS // POSITIONS
    prompts = ["a" * (POSITIONS - 1)] * most
    found = generator.generate(prompts, max_new_tokens=1)
    assert [len(one.token_ids) for one in found] == [1] * most
    with pytest.raises(ValueError, match=f"16384 positions.*fewer rows.*{most + 1} 1"):
        generator.generate([*prompts, "a"], max_new_tokens=1)
    # The same rows, each a little shorter.
    short = ["a" * (POSITIONS - 2)] * (most + 1)
    assert len(generator.generate(short, max_new_tokens=1)) == most + 1


def test_beams_count_as_rows(model):
    search = BeamSearch(model, tokenizers.ByteTokenizer())
    prompts = ["a" * 60] * 9
    with pytest.raises(ValueError, match="fewer rows at once.*9 32 64"):
        search.search_all(prompts, num_beams=[2] * 8 + [32], max_new_tokens=4)
    assert len(search.search_all(prompts[:2], num_beams=2, max_new_tokens=1)) == 2


def test_eight_full_rows_always_fit():
    config = models.LSTMLMConfig(vocab_size=257, embedding_width=3, units=3)
    text_model = prompt_model_of(models.build(config))
    limit = prompt_model.UNBOUNDED_LIMIT
    ids, slots = text_model.bounded(tf.zeros([8, 1], tf.int32), tf.constant(limit))
    assert ids.shape == (8, 1) and int(slots) == limit
    with pytest.raises(tf.errors.InvalidArgumentError, match="at most 262144"):
        text_model.bounded(tf.zeros([9, 1], tf.int32), tf.constant(limit))


def prompt_model_of(model):
    return Generator(model, tokenizers.ByteTokenizer()).text_model
