"""The decoding loop against full forward passes, strings and single rows."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_llm import models, tokenizers
from keras_llm.generation import Generator, parameters

PROMPTS = ["Hello, ", "", "文字", "a much longer prompt than the others"]


def small_model(architecture):
    keras.utils.set_random_seed(5)
    if architecture == "gpt2":
        config = models.GPT2Config(
            vocab_size=257, width=20, num_layers=1, num_heads=5, max_positions=96
        )
    elif architecture == "llama":
        config = models.LlamaConfig(
            vocab_size=257,
            width=24,
            num_layers=2,
            num_heads=6,
            key_value_heads=2,
            max_positions=96,
        )
    else:
        config = models.LSTMLMConfig(
            vocab_size=257, embedding_width=12, units=20, num_layers=2
        )
    model = models.build(config)
    # Wider than a fresh model's weights, so that the next token is not a coin toss.
    for weight in model.trainable_weights:
        weight.assign(weight + 0.2 * keras.random.normal(weight.shape, seed=3))
    return model


@functools.cache
def plain_generator(architecture):
    """Returns a generator and its model, traced once for all tests."""
    model = small_model(architecture)
    return Generator(model, tokenizers.ByteTokenizer()), model


@pytest.fixture(params=["gpt2", "llama", "lstm_lm"])
def architecture(request):
    return request.param


@pytest.fixture
def generator(architecture):
    return plain_generator(architecture)[0]


@pytest.fixture
def model(architecture):
    return plain_generator(architecture)[1]


def test_greedy_is_the_argmax_of_the_full_forward_pass(model, generator):
    results = generator.generate(PROMPTS, max_new_tokens=7)
    for prompt, result in zip(PROMPTS, results, strict=True):
        ids = list(prompt.encode()) or [256]
        for token, log_prob in zip(result.token_ids, result.log_probs, strict=True):
            logits = np.asarray(model(np.array([ids], "int32")))[0, -1].astype(float)
            assert token == logits.argmax()
            expected = logits[token] - np.log(np.exp(logits).sum())
            np.testing.assert_allclose(log_prob, expected, rtol=1e-4, atol=1e-4)
            ids.append(token)


def test_a_row_does_not_feel_its_batch(generator):
    knobs = {
        "max_new_tokens": [9, 4, 12, 7],
        "temperature": [0.0, 1.0, 0.7, 1.3],
        "top_k": [0, 50, 0, 7],
        "top_p": [1.0, 1.0, 0.8, 0.9],
        "min_p": [0.0, 0.1, 0.0, 0.0],
        "repetition_penalty": [1.0, 1.3, 1.0, 0.7],
        "seed": [1, 2, 3, 4],
    }
    together = generator.generate(PROMPTS, **knobs)
    for i, prompt in enumerate(PROMPTS):
        own = {name: values[i] for name, values in knobs.items()}
        alone = generator.generate([prompt], **own)[0]
        assert alone.token_ids == together[i].token_ids
        assert alone.text == together[i].text
        assert alone.finish_reason == together[i].finish_reason
        np.testing.assert_allclose(
            alone.log_probs, together[i].log_probs, rtol=1e-4, atol=1e-4
        )


def test_a_stop_string_ends_the_text_before_it(generator):
    knobs = {"max_new_tokens": 24, "temperature": 1.0, "seed": 11}
    whole = generator.generate(["x"], **knobs)[0]
    raw = bytes(token for token in whole.token_ids if token < 256)
    for start, size in ((0, 1), (5, 1), (6, 3), (13, 5)):
        stop = raw[start : start + size]
        expected = raw[: raw.find(stop)]
        cut = generator.generate(["x"], stop=[b"never appears", stop], **knobs)[0]
        assert cut.text == expected.decode(errors="replace")
        assert cut.finish_reason == "stop"
        assert len(cut.token_ids) == len(expected) + size


def test_a_finished_row_is_not_cut_by_what_its_batch_mates_wait_for(generator):
    long = generator.generate(["x"], max_new_tokens=30)[0]
    # A byte that the row would write after its end; its text must not feel it.
    raw = bytes(token for token in long.token_ids if token < 256)
    for count in range(1, 25):
        stop = [raw[count : count + 2], raw[:count][-1:] + raw[count : count + 1]]
        alone = generator.generate(["x"], stop=stop, max_new_tokens=count)[0]
        mixed = generator.generate(["x", "y"], stop=stop, max_new_tokens=[count, 30])
        assert mixed[0].text == alone.text
        assert mixed[0].finish_reason == alone.finish_reason


def test_streaming_gives_the_same_text(generator):
    for stop in ([], ["e", "ab"]):
        for prompt in PROMPTS:
            knobs = {"max_new_tokens": 20, "temperature": 1.0, "seed": 6}
            whole = generator.generate([prompt], stop=stop, **knobs)[0].text
            assert "".join(generator.stream(prompt, stop, **knobs)) == whole


def test_streaming_refuses_at_once_what_generate_refuses(generator):
    for parameters_, stop, message in [
        ({"max_new_tokens": -1}, [], "max_new_tokens.*-1"),
        ({}, ["x" * 257], "256 bytes.*257"),
        ({}, ["x"] * 65, "64 strings.*65"),
        ({}, "word", "`stop` must be a list"),
    ]:
        with pytest.raises(ValueError, match=message):
            generator.stream("ab", stop, **parameters_)


def test_streaming_traces_once_for_prompts_of_any_length(generator):
    for prompt in PROMPTS:
        list(generator.stream(prompt, max_new_tokens=3))
    assert generator._begin.experimental_get_tracing_count() == 1
    assert generator._advance.experimental_get_tracing_count() == 1


def test_score_sums_the_full_forward_pass(model, generator):
    prompts, completions = ["ab", "", "xyz", "q"], ["cde", "hi", "", "文"]
    scores = generator.score(prompts, completions)
    for i, (prompt, completion) in enumerate(zip(prompts, completions, strict=True)):
        before = list(prompt.encode()) or [256]
        after = list(completion.encode())
        logits = np.asarray(model(np.array([before + after], "int32")))[0].astype(float)
        logits -= np.log(np.exp(logits).sum(-1, keepdims=True))
        expected = sum(
            logits[len(before) - 1 + j, token] for j, token in enumerate(after)
        )
        np.testing.assert_allclose(scores["log_prob"][i], expected, rtol=1e-4)
        assert scores["num_tokens"][i] == len(after)
        bits = -expected / np.log(2) / max(1, len(after))
        np.testing.assert_allclose(scores["bits_per_byte"][i], bits, rtol=1e-4)


def test_generated_text_scores_what_generating_it_said(generator):
    knobs = {"max_new_tokens": 9, "temperature": 1.0, "top_k": 3, "seed": 2}
    result = generator.generate(["Hello"], **knobs)[0]
    # Bytes above 127 may not survive as text: score the ids' own bytes.
    raw = bytes(token for token in result.token_ids if token < 256)
    score = generator.score(["Hello"], [raw])["log_prob"][0]
    expected = sum(result.log_probs[: len(raw)])
    np.testing.assert_allclose(score, expected, rtol=1e-4)


def test_no_tokens_and_no_rows_are_results(generator):
    nothing = generator.generate(["ab"], max_new_tokens=0)[0]
    assert (nothing.text, nothing.token_ids) == ("", [])
    assert nothing.finish_reason == "length"
    mixed = generator.generate(["ab", "cd"], max_new_tokens=[0, 2])
    assert [len(row.token_ids) for row in mixed] == [0, 2]
    assert generator.generate([]) == []
    assert [len(values) for values in generator.score([], []).values()] == [0, 0, 0]
    assert generator.score([""], [""])["log_prob"].tolist() == [0.0]


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"max_new_tokens": -1}, "max_new_tokens.*-1"),
        ({"max_new_tokens": 10**9}, "max_new_tokens.*1000000000"),
        ({"max_new_tokens": 2.5}, "max_new_tokens.*int32.*2.5"),
        ({"temperature": float("nan")}, "temperature.*nan"),
        ({"temperature": -0.1}, "temperature.*-0.1"),
        ({"temperature": "hot"}, "temperature.*hot"),
        ({"top_k": -1}, "top_k.*-1"),
        ({"top_p": 0.0}, "top_p.*0"),
        ({"top_p": float("nan")}, "top_p.*nan"),
        ({"min_p": 1.5}, "min_p.*1.5"),
        ({"repetition_penalty": 0.0}, "repetition_penalty.*0.01 to 100.*0"),
        ({"seed": 2**31}, "seed.*2147483648"),
        ({"seed": [1, 2]}, "seed.*one value per prompt"),
        ({"warmth": 1.0}, "No decoding parameter.*warmth"),
        ({"stop": "word"}, "`stop` must be a list"),
        ({"stop": ["x" * 257]}, "256 bytes.*257"),
        ({"stop": ["x"] * 65}, "64 strings.*65"),
    ],
)
def test_bad_parameters_are_refused(generator, parameters, message):
    with pytest.raises(ValueError, match=message):
        generator.generate(["ab"], **parameters)


def test_a_prompt_beyond_the_positions_is_refused():
    generator, _ = plain_generator("gpt2")
    assert len(generator.generate(["x" * 95])[0].token_ids) == 1
    assert generator.generate(["x" * 96])[0].finish_reason == "length"
    with pytest.raises(ValueError, match="at most 96 tokens.*97"):
        generator.generate(["x" * 97])
    with pytest.raises(ValueError, match="at most 96 tokens.*100"):
        generator.score(["x" * 50], ["x" * 50])
    with pytest.raises(ValueError, match="max_new_tokens.*of 96"):
        generator.generate(["x" * 90], max_new_tokens=7)
    # Padding beyond them takes memory too, however short the prompt is.
    with pytest.raises(tf.errors.InvalidArgumentError, match="at most 96 columns"):
        generator.text_model.generate_ids(
            tf.zeros([1, 97], tf.int32), tf.constant([3]), parameters.make(1, seed=0)
        )


@pytest.fixture
def changeable():
    """A generator and its model, whose weights are afterwards as they were."""
    generator, model = plain_generator("gpt2")
    weights = model.get_weights()
    yield generator, model
    model.set_weights(weights)


def test_the_end_token_ends_a_row(changeable):
    generator, model = changeable
    embedding = model.get_layer("token_embedding").embeddings
    final_norm = model.get_layer("final_norm")
    # Every hidden state is the same vector, and the end token lies along it.
    final_norm.scale.assign(0 * final_norm.scale)
    final_norm.bias.assign(0 * final_norm.bias + 1)
    table = np.asarray(embedding).copy()
    table[256] = 3.0
    embedding.assign(table)
    result = generator.generate(["ab"], max_new_tokens=5)[0]
    assert result.token_ids == [256]
    assert (result.text, result.finish_reason) == ("", "end")
    assert "".join(generator.stream("ab", max_new_tokens=5)) == ""


def test_compiled_decoding_draws_the_same_text():
    generator, model = plain_generator("gpt2")
    knobs = {"max_new_tokens": 11, "temperature": 0.9, "top_p": 0.9, "seed": 8}
    plain = generator.generate(PROMPTS, stop=["e"], **knobs)
    compiled = Generator(model, tokenizers.ByteTokenizer(), jit=True)
    for one, other in zip(
        plain, compiled.generate(PROMPTS, stop=["e"], **knobs), strict=True
    ):
        assert one.token_ids == other.token_ids
        assert one.text == other.text


def test_a_tokenizer_of_another_model_is_refused():
    model = models.build(
        models.GPT2Config(vocab_size=100, width=8, num_layers=1, num_heads=1)
    )
    with pytest.raises(ValueError, match="vocab_size=257.*vocab_size=100"):
        Generator(model, tokenizers.ByteTokenizer())


def test_the_loop_needs_no_python_between_tokens(generator):
    graph = generator._generate.get_concrete_function().graph.as_graph_def()
    ops = {node.op for node in graph.node}
    ops |= {
        node.op for function in graph.library.function for node in function.node_def
    }
    assert {"StatelessWhile", "While"} & ops
    assert not {"PyFunc", "EagerPyFunc"} & ops
