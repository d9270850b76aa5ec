"""Cached decoding: equal to the full forward pass, and each row on its own."""

import numpy as np
import pytest

from keras_llm import models
from tests.conformance.comparing import quick, quick_decoding

RNG = np.random.default_rng(29)
SHARED = {"vocab_size": 31, "max_positions": 23, "width": 24, "num_layers": 2}
GPT2 = models.GPT2Config(**SHARED, num_heads=4)
LLAMA = models.LlamaConfig(**SHARED, num_heads=6, key_value_heads=2)
CONFIGS = {
    "gpt2": GPT2,
    "gpt2 documents": GPT2.replace(separator_id=0),
    "llama": LLAMA.replace(tied=True),
    "llama documents": LLAMA.replace(separator_id=0),
    "llama window": LLAMA.replace(window=3),
    "llama of many options": LLAMA.replace(
        query_key_norm=True,
        query_key_value_bias=True,
        rotary_scaling={"original_positions": 11},
    ),
    "gemma documents": models.GemmaConfig(
        **SHARED,
        num_heads=6,
        key_value_heads=2,
        head_size=6,
        feed_forward_width=13,
        post_norm=True,
        score_soft_cap=2.0,
        logit_soft_cap=3.0,
        window=3,
        full_every=2,
        separator_id=0,
    ),
    "llama window documents": LLAMA.replace(window=3, separator_id=0),
}
LENGTHS = np.array([5, 1, 7], "int32")
NEW = 6
TIME, CAPACITY = 7, 13  # One size throughout: each one more is compiled on JAX.


@pytest.fixture(scope="module", params=CONFIGS)
def model(request):
    """A model with weights large enough for attention to matter."""
    model = models.build(CONFIGS[request.param])
    for weight in model.weights:
        weight.assign(
            RNG.normal(0.3 * weight.path.endswith("scale"), 0.3, weight.shape)
        )
    return model


@pytest.fixture(scope="module")
def ids():
    # A few distinct ids, so that separators are frequent.
    return RNG.integers(0, 5, (3, CAPACITY)).astype("int32")


@pytest.fixture(scope="module")
def decoder(model):
    return models.decoder(model)


def decode(decoder, ids, lengths, capacity=CAPACITY):
    """Yields the logits [B, V] of the prefill and of every step."""
    prefill, step = quick_decoding(decoder, capacity)
    logits, state = prefill(ids[:, :TIME], lengths)
    rows = np.arange(len(ids))
    for t in range(NEW):
        yield np.asarray(logits)
        logits, state = step(ids[rows, lengths + t], state)
    yield np.asarray(logits)


@pytest.fixture(scope="module")
def decoded(decoder, ids):
    """The logits [B, V] of the prefill and of every step of the whole batch."""
    return list(decode(decoder, ids, LENGTHS))


def test_cached_equals_full(model, decoded, ids):
    full = np.asarray(quick(model)(ids))
    rows = np.arange(len(ids))
    for t, logits in enumerate(decoded):
        expected = full[rows, LENGTHS + t - 1]
        np.testing.assert_allclose(logits, expected, atol=1e-5)


def test_a_compiled_callers_cache_gives_the_same(model, decoded, ids):
    compiled = decode(models.decoder(model, jit=True), ids, LENGTHS)
    for one, other in zip(decoded, compiled, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_a_compiled_callers_cache_in_low_precision(model, ids):
    rounded = models.build(model.config, "bfloat16")
    rounded.set_weights(model.get_weights())
    plain = decode(models.decoder(rounded), ids, LENGTHS)
    compiled = decode(models.decoder(rounded, jit=True), ids, LENGTHS)
    for one, other in zip(plain, compiled, strict=True):
        assert np.abs(one - other).max() < 0.05 * np.abs(one).max()


def test_a_row_alone_is_the_row_in_a_batch(decoder, decoded, ids):
    for b in range(3):
        alone = decode(decoder, ids[b : b + 1], LENGTHS[b : b + 1])
        for one, all_rows in zip(alone, decoded, strict=True):
            np.testing.assert_allclose(one[0], all_rows[b], atol=1e-5)


def test_padding_in_the_prompt_does_not_matter(decoder, ids):
    other = ids.copy()
    for b, n in enumerate(LENGTHS):
        other[b, n:TIME] = 0
    prefill, _ = quick_decoding(decoder, CAPACITY)
    logits, state = prefill(ids[:, :TIME], LENGTHS)
    same, its_state = prefill(other[:, :TIME], LENGTHS)
    np.testing.assert_allclose(logits, same, atol=1e-6)
    for name in state:
        np.testing.assert_allclose(state[name], its_state[name], atol=1e-6)


def test_a_full_cache_disturbs_no_other_row(decoder, decoded, ids):
    expected = [logits[1] for logits in decoded]
    # Row 2 runs out of slots after one step; row 1 has as many as it needs.
    for logits, row in zip(decode(decoder, ids, LENGTHS, 8), expected, strict=True):
        np.testing.assert_allclose(logits[1], row, atol=1e-5)


def test_a_state_can_be_stepped_from_twice(decoder, ids):
    prefill, step = quick_decoding(decoder, CAPACITY)
    _, state = prefill(ids[:, :TIME], LENGTHS)
    kept = {name: np.array(value) for name, value in state.items()}
    first = [np.asarray(step(ids[:, 1], state)[0]) for _ in range(2)]
    np.testing.assert_array_equal(*first)
    for name, value in kept.items():
        np.testing.assert_array_equal(state[name], value)


def test_state_is_batch_led(model, decoder, ids):
    prefill, _ = quick_decoding(decoder, CAPACITY)
    _, state = prefill(ids[:, :TIME], LENGTHS)
    assert {value.shape[0] for value in state.values()} == {3}
    assert state["keys_0"].shape[2] == CAPACITY
    assert ("segment_start" in state) == (model.config.separator_id is not None)


@pytest.mark.parametrize(
    ("length", "capacity", "message"),
    [(24, 24, "prompt length"), (5, 24, "capacity"), (5, 4, "capacity=4")],
)
def test_more_than_the_positions_is_refused(decoder, length, capacity, message):
    ids = np.ones((1, length), "int32")
    with pytest.raises(ValueError, match=message):
        decoder.prefill(ids, np.array([length]), capacity)
