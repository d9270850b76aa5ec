"""Beam search against trying every text."""

import itertools

import keras
import numpy as np
import pytest

from keras_llm import models, tokenizers
from keras_llm.generation import BeamSearch, Generator

TEXT = ["ab", "ba", "aab"]  # Three characters with the end token and unknown.


@pytest.fixture(scope="module")
def search():
    tokenizer = tokenizers.CharacterTokenizer.train(TEXT)
    keras.utils.set_random_seed(1)
    model = models.build(
        models.GPT2Config(
            vocab_size=tokenizer.vocab_size,
            width=10,
            num_layers=1,
            num_heads=2,
            max_positions=16,
        )
    )
    for weight in model.trainable_weights:
        weight.assign(weight + 0.7 * keras.random.normal(weight.shape, seed=4))
    return BeamSearch(model, tokenizer)


def _all_texts(search, prompt_ids, length, penalty):
    """Returns (score, ids) of every text of at most `length` tokens, best first."""
    model, end = search.text_model.model, search.text_model.end_id
    vocab = model.config.vocab_size
    found = []
    for ids in itertools.product(range(vocab), repeat=length):
        cut = ids[: ids.index(end) + 1] if end in ids else ids
        if cut + (end,) * (length - len(cut)) != ids:
            continue  # The same text, counted once.
        logits = np.asarray(model(np.array([prompt_ids + list(cut)], "int32")))[0]
        logits = logits.astype(float)
        logits -= np.log(np.exp(logits).sum(-1, keepdims=True))
        start = len(prompt_ids) - 1
        log_prob = sum(logits[start + i, token] for i, token in enumerate(cut))
        found.append((log_prob / ((5 + len(cut)) / 6) ** penalty, list(cut)))
    return sorted(found, reverse=True)


@pytest.mark.parametrize("penalty", [0.0, 1.0])
def test_wide_beams_find_the_best_text_of_all(search, penalty):
    vocab = search.text_model.model.config.vocab_size
    prompt_ids = search.text_model.tokenizer.encode("ab").numpy().tolist()
    expected = _all_texts(search, prompt_ids, 3, penalty)
    beams = search.search("ab", vocab - 1, 3, penalty)
    assert beams[0].token_ids == expected[0][1]
    np.testing.assert_allclose(beams[0].score, expected[0][0], rtol=1e-4)
    scores = [beam.score for beam in beams]
    assert scores == sorted(scores, reverse=True)
    assert len({tuple(beam.token_ids) for beam in beams}) == vocab - 1
    by_ids = {tuple(ids): score for score, ids in expected}
    for beam in beams:
        np.testing.assert_allclose(beam.score, by_ids[tuple(beam.token_ids)], rtol=1e-4)


def test_one_beam_is_greedy(search):
    generator = Generator(search.text_model.model, search.text_model.tokenizer)
    greedy = generator.generate(["ab"], max_new_tokens=6)[0]
    beam = search.search("ab", 1, 6, 0.0)[0]
    if beam.finish_reason == "length":
        assert beam.token_ids == greedy.token_ids
    np.testing.assert_array_less(sum(greedy.log_probs) - 1e-4, beam.log_prob)


def test_prompts_of_any_length_share_one_trace(search):
    for prompt in ("a", "ab", "abba"):
        beams = search.search(prompt, 2)
        assert max(len(beam.token_ids) for beam in beams) <= 16 - len(prompt)
    assert search._run.experimental_get_tracing_count() == 1


@pytest.mark.parametrize(
    ("values", "message"),
    [((0, 3, 0.6), "num_beams"), ((2, 0, 0.6), "max_new_tokens"), ((2, 3, 9), "pena")],
)
def test_bad_values_are_refused(search, values, message):
    with pytest.raises(ValueError, match=message):
        search.search("ab", *values)
