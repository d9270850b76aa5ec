"""Beam search against trying every text."""

import itertools
import pathlib

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_llm import models, tokenizers
from keras_llm.generation import BeamSearch, beams

TEXT = ["ab", "ba", "aab"]  # Three characters with the end token and unknown.


SIZES = {"width": 10, "num_layers": 1, "num_heads": 2, "max_positions": 16}
CONFIGS = {
    "gpt2": models.GPT2Config(**SIZES),
    "t5": models.T5Config(**SIZES, head_size=3, feed_forward_width=7),
    "lstm_seq2seq": models.LSTMSeq2SeqConfig(embedding_width=5, units=6),
}
GOLDEN = pathlib.Path(__file__).parents[2] / "testdata" / "golden"


def made(name):
    tokenizer = tokenizers.CharacterTokenizer.train(TEXT)
    keras.utils.set_random_seed(1)
    model = models.build(CONFIGS[name].replace(vocab_size=tokenizer.vocab_size))
    for weight in model.trainable_weights:
        weight.assign(weight + 0.7 * keras.random.normal(weight.shape, seed=4))
    return BeamSearch(model, tokenizer)


@pytest.fixture(scope="module")
def search():
    return made("gpt2")


@pytest.fixture(scope="module", params=CONFIGS)
def any_search(request, search):
    return search if request.param == "gpt2" else made(request.param)


def _logits(search, prompt, written):
    """Returns float64 [N, T, V]: what comes after the prompt and each token."""
    text_model = search.text_model
    ids = text_model.encode_prompt(tf.constant([prompt]))[0].numpy()
    rows = np.repeat(ids, len(written), axis=0)
    if text_model.decoder.prompt_in_cache:
        whole = np.concatenate([rows, written], axis=1)
        logits = np.asarray(text_model.model(whole))[:, ids.size - 1 :]
    else:
        start = np.full_like(written[:, :1], text_model.model.config.start_id)
        inputs = {
            "source_ids": rows,
            "source_lengths": np.full(len(rows), ids.size, "int32"),
            "token_ids": np.concatenate([start, written], axis=1),
        }
        logits = np.asarray(text_model.model(inputs))
    return logits.astype(float)


def _all_texts(search, prompt, length, penalty):
    """Returns (score, ids) of every text of at most `length` tokens, best first."""
    end = search.text_model.end_id
    vocab = search.text_model.model.config.vocab_size
    every = np.array(list(itertools.product(range(vocab), repeat=length)), "int32")
    logits = _logits(search, prompt, every)
    logits -= np.log(np.exp(logits).sum(-1, keepdims=True))
    found = {}
    for ids, row in zip(every.tolist(), logits, strict=True):
        cut = ids[: ids.index(end) + 1] if end in ids else ids
        log_prob = sum(row[i, token] for i, token in enumerate(cut))
        found[tuple(cut)] = log_prob / ((5 + len(cut)) / 6) ** penalty
    return sorted(((score, list(ids)) for ids, score in found.items()), reverse=True)


@pytest.mark.parametrize("penalty", [0.0, 1.0])
def test_wide_beams_find_the_best_text_of_all(any_search, penalty):
    search = any_search
    vocab = search.text_model.model.config.vocab_size
    expected = _all_texts(search, "ab", 3, penalty)
    beams = search.search("ab", vocab - 1, 3, penalty)
    assert beams[0].token_ids == expected[0][1]
    np.testing.assert_allclose(beams[0].score, expected[0][0], rtol=1e-4)
    scores = [beam.score for beam in beams]
    assert scores == sorted(scores, reverse=True)
    assert len({tuple(beam.token_ids) for beam in beams}) == vocab - 1
    by_ids = {tuple(ids): score for score, ids in expected}
    for beam in beams:
        np.testing.assert_allclose(beam.score, by_ids[tuple(beam.token_ids)], rtol=1e-4)


def test_a_row_alone_is_the_row_in_a_batch(any_search):
    prompts, rooms, penalties = ["ab", "", "abba", "b"], [5, 3, 1, 7], [0, 0.6, 1, 2]
    together = any_search.search_all(prompts, 3, rooms, penalties)
    assert [len(row) for row in together] == [3] * 4
    for prompt, room, penalty, row in zip(
        prompts, rooms, penalties, together, strict=True
    ):
        alone = any_search.search(prompt, 3, room, penalty)
        assert [beam.token_ids for beam in alone] == [beam.token_ids for beam in row]
        for field in ("score", "log_prob"):
            one, two = ([getattr(b, field) for b in beams] for beams in (alone, row))
            np.testing.assert_allclose(one, two, rtol=1e-4)
        assert max(len(beam.token_ids) for beam in row) <= room


def test_beams_of_ids_are_batch_led_tensors(search):
    ids, lengths = search.text_model.encode_prompt(tf.constant(["ab", "b"]))
    traced = tf.function(search.search_ids, autograph=False)
    knobs = (tf.constant([3, 3]), tf.constant([4, 2]), tf.constant([0.6, 0.6]))
    result = traced(ids, lengths, *knobs)
    assert result["token_ids"].shape == (2, 3, 4)
    for name in ("scores", "log_probs", "num_tokens"):
        assert result[name].shape == (2, 3)
    expected = search.search_all(["ab", "b"], 3, [4, 2])
    for b, i in np.ndindex(2, 3):
        written = result["token_ids"][b, i].numpy().tolist()
        count = int(result["num_tokens"][b, i])
        assert written == expected[b][i].token_ids + [-1] * (4 - count)


def test_rows_of_unlike_widths_are_searched_as_alone(search):
    prompts, widths = ["ab", "b", "ba"], [1, 3, 2]
    together = search.search_all(prompts, widths, 5)
    assert [len(row) for row in together] == widths
    for prompt, width, row in zip(prompts, widths, together, strict=True):
        alone = search.search(prompt, width, 5)
        assert [b.token_ids for b in row] == [b.token_ids for b in alone]
        np.testing.assert_allclose(
            [b.score for b in row], [b.score for b in alone], rtol=1e-5
        )


def test_no_prompts_give_no_beams(search):
    assert search.search_all([], 2) == []


def golden_beams(name, **version):
    """Returns ids [B, W, N] and scores [B, W], ours and those of Transformers.

    Scores there are log p / length**0; `make_t5_golden.py` made them.
    """
    sizes = {
        "vocab_size": 37,
        "width": 20,
        "num_layers": 2,
        "num_decoder_layers": 3,
        "num_heads": 5,
        "head_size": 6,
        "feed_forward_width": 31,
        "relative_buckets": 10,
        "relative_max_distance": 13,
        "epsilon": 1e-5,
    }
    model = models.build(models.T5Config(**sizes, **version))
    models.load_weights(model, GOLDEN / f"{name}.safetensors")
    with np.load(GOLDEN / f"{name}.npz") as answers:
        source, lengths = answers["source_ids"], answers["source_lengths"]
        ids, scores = answers["beam_ids"], answers["beam_scores"]
    rows, width, room = ids.shape
    request = beams.Request(
        tf.fill([rows], width), tf.fill([rows], room), tf.zeros([rows]), 1, 37
    )
    found = beams.search(models.decoder(model), source, lengths, request, room, room)
    return found.done_ids.numpy(), found.done_scores.numpy(), ids, scores


def test_beams_are_those_of_transformers():
    ids, scores, their_ids, their_scores = golden_beams("t5")
    np.testing.assert_array_equal(ids, their_ids)
    np.testing.assert_allclose(scores, their_scores, rtol=1e-4)


def test_beams_are_better_where_transformers_leaves_out_ends():
    """It takes no end that ranks below W among the candidates of a step."""
    found = golden_beams("t5_tied", activation="relu", tied=True)
    ids, scores, their_ids, their_scores = found
    assert (scores >= their_scores - 1e-3).all()
    shared = 0
    for b, i, j in np.ndindex(*ids.shape[:2], ids.shape[1]):
        if (ids[b, i] == their_ids[b, j]).all():
            np.testing.assert_allclose(scores[b, i], their_scores[b, j], rtol=1e-4)
            shared += 1
    assert shared >= 6


def _greedy(search, prompt, length):
    """Returns the ids that are each the likeliest after all before, and their log p."""
    ids, log_prob = [], 0.0
    while len(ids) < length and search.text_model.end_id not in ids:
        written = np.array(ids, "int32")[None]
        logits = _logits(search, prompt, written)[0, -1]
        ids.append(int(logits.argmax()))
        log_prob += logits.max() - np.log(np.exp(logits).sum())
    return ids, log_prob


@pytest.mark.parametrize("can_end", [True, False])
def test_one_beam_is_greedy(search, can_end):
    if not can_end:  # No token is the one that ends a text.
        search = BeamSearch(search.text_model.model, search.text_model.tokenizer)
        search.text_model.end_id = -1
    for prompt in ("ab", "ba", "aab"):
        ids, log_prob = _greedy(search, prompt, 6)
        (beam,) = search.search(prompt, 1, 6, 0.0)
        # An end on the way is a finished text, which may be the likelier one.
        assert beam.log_prob > log_prob - 1e-4
        if not can_end:
            assert len(beam.token_ids) == 6 and beam.token_ids == ids
            assert beam.log_prob == pytest.approx(log_prob, abs=1e-4)


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
