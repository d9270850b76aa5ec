"""Encoder-decoders in the one loop: against full forward passes, row by row."""

import keras
import numpy as np
import pytest

from keras_llm import models, tokenizers
from keras_llm.generation import (
    Generator,
    SequenceToSequence,
    TextModel,
    make_prompt_model,
    parameters,
)

SOURCES = ["Hello, ", "", "文字", "a much longer source than others"]
END, START = 256, 1
CONFIGS = {
    "t5": models.T5Config(
        vocab_size=259,
        width=20,
        num_layers=1,
        num_heads=5,
        head_size=6,
        feed_forward_width=13,
        relative_buckets=8,
        relative_max_distance=7,
        max_positions=33,
        start_id=START,
    ),
    "lstm_seq2seq": models.LSTMSeq2SeqConfig(
        vocab_size=257, embedding_width=7, units=10, start_id=START
    ),
}


@pytest.fixture(scope="module", params=CONFIGS)
def model(request):
    keras.utils.set_random_seed(5)
    model = models.build(CONFIGS[request.param])
    for weight in model.trainable_weights:
        weight.assign(weight + 0.4 * keras.random.normal(weight.shape, seed=3))
    return model


@pytest.fixture(scope="module")
def generator(model):
    return Generator(model, tokenizers.ByteTokenizer())


def log_probs(model, source, target):
    """Returns log p [T, V] of the tokens that the tokenizer has, after `target`."""
    ids = [*source.encode(), END]
    inputs = {
        "source_ids": np.array([ids], "int32"),
        "source_lengths": np.array([len(ids)], "int32"),
        "token_ids": np.array([[START, *target]], "int32"),
    }
    logits = np.asarray(model(inputs))[0, :, :257].astype(float)
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def test_the_kind_of_model_is_told_by_its_decoder(generator):
    assert isinstance(generator.text_model, SequenceToSequence)
    config = models.GPT2Config(vocab_size=257, width=4, num_layers=1, num_heads=1)
    continuing = make_prompt_model(models.build(config), tokenizers.ByteTokenizer())
    assert isinstance(continuing, TextModel)


def test_greedy_is_the_argmax_of_the_full_forward_pass(model, generator):
    results = generator.generate(SOURCES, max_new_tokens=6)
    for source, result in zip(SOURCES, results, strict=True):
        assert result.prompt_tokens == len(source.encode()) + 1
        written = result.token_ids
        expected = log_probs(model, source, written[:-1])
        assert written == expected.argmax(-1).tolist()
        np.testing.assert_allclose(result.log_probs, expected.max(-1), atol=1e-4)
        assert written[-1] == END or len(written) == 6


def test_a_row_alone_is_the_row_in_a_batch(generator):
    knobs = {"temperature": 0.9, "top_p": 0.9, "seed": 11, "max_new_tokens": 7}
    together = generator.generate(SOURCES, **knobs)
    for source, row in zip(SOURCES, together, strict=True):
        assert generator.generate([source], **knobs)[0].token_ids == row.token_ids


def test_score_is_the_sum_of_log_probabilities(model, generator):
    completions = ["ab", "", "a longer completion", "é"]
    scores = generator.score(SOURCES, completions)
    for b, (source, text) in enumerate(zip(SOURCES, completions, strict=True)):
        ids = list(text.encode())
        expected = log_probs(model, source, ids)[np.arange(len(ids)), ids].sum()
        np.testing.assert_allclose(scores["log_prob"][b], expected, rtol=1e-4)
        assert scores["num_tokens"][b] == len(ids)
        bits = -expected / np.log(2) / len(ids) if ids else 0
        np.testing.assert_allclose(scores["bits_per_byte"][b], bits, rtol=1e-4)


def test_generated_log_probs_are_the_score(generator):
    result = generator.generate(SOURCES[:1], max_new_tokens=5)[0]
    kept = [token for token in result.token_ids if token < 256]
    score = generator.score(SOURCES[:1], [bytes(kept)])["log_prob"][0]
    np.testing.assert_allclose(sum(result.log_probs[: len(kept)]), score, rtol=1e-4)


def test_a_stream_is_the_text(generator):
    for source in SOURCES[:2]:
        text = generator.generate([source], max_new_tokens=5, seed=3)[0].text
        assert "".join(generator.stream(source, max_new_tokens=5, seed=3)) == text


def test_source_and_target_have_the_limit_each(model, generator):
    limit = model.config.max_positions
    if limit is None:
        assert generator.text_model.limit == 2**15
        return
    longest = "x" * (limit - 1)  # An end token follows.
    result = generator.generate([longest], max_new_tokens=limit)[0]
    assert len(result.token_ids) == limit or result.finish_reason == "end"
    assert len(generator.generate([longest])[0].token_ids) <= limit
    with pytest.raises(ValueError, match=f"at most {limit} tokens.*{limit + 1}"):
        generator.generate([longest + "x"], max_new_tokens=1)
    with pytest.raises(ValueError, match=f"0 to the {limit} positions that the target"):
        generator.generate(["x"], max_new_tokens=limit + 1)
    generator.score([longest], ["y" * limit])
    for prompt, completion in ((longest + "x", "y"), ("x", "y" * (limit + 1))):
        with pytest.raises(ValueError, match=f"at most {limit} tokens each"):
            generator.score([prompt], [completion])


def test_the_repetition_penalty_knows_the_target_alone(model, generator):
    source = "abcabc"
    plain = generator.generate([source], max_new_tokens=6)[0]
    first = generator.generate([source], max_new_tokens=6, repetition_penalty=100.0)[0]
    # Nothing is written yet when the first token is chosen, whatever the source.
    assert first.token_ids[0] == plain.token_ids[0]
    seen, expected = set(), log_probs(model, source, first.token_ids[:-1])
    for token, log_prob in zip(first.token_ids, expected, strict=True):
        unseen = [n for n in range(257) if n not in seen]
        assert token in seen or token == max(unseen, key=lambda n: log_prob[n])
        seen.add(token)


def test_stop_strings_end_the_target(generator):
    plain = generator.generate(["Hello"], max_new_tokens=6)[0]
    text = bytes(token for token in plain.token_ids if token < 256)
    stopped = generator.generate(["Hello"], max_new_tokens=6, stop=[text[1:2]])[0]
    cut = text.index(text[1:2])
    assert stopped.finish_reason == "stop"
    assert stopped.text == text[:cut].decode(errors="replace")


def test_no_new_tokens_and_no_rows(generator):
    assert generator.generate(["a"], max_new_tokens=0)[0].finish_reason == "length"
    assert generator.generate([]) == []
    assert generator.score([], [])["log_prob"].shape == (0,)


def test_ids_are_read_as_they_are(generator):
    model = generator.text_model
    token_ids = np.array([[72, 105, 256, 9], [104, 256, 9, 9]], "int32")
    knobs = parameters.make(2, max_new_tokens=4)
    result = model.generate_ids(token_ids, np.array([3, 2], "int32"), knobs)
    expected = generator.generate(["Hi", "h"], max_new_tokens=4)
    for row, generation in zip(result["token_ids"].numpy(), expected, strict=True):
        assert [int(token) for token in row if token >= 0] == generation.token_ids


def test_compiled_decoding_gives_the_same(model, generator):
    compiled = Generator(model, tokenizers.ByteTokenizer(), jit=True)
    for knobs in ({}, {"temperature": 0.8, "seed": 4}):
        one, two = (
            g.generate(SOURCES, max_new_tokens=6, **knobs)
            for g in (generator, compiled)
        )
        assert [r.token_ids for r in one] == [r.token_ids for r in two]
