"""T5 and the LSTM encoder-decoder: what they promise beyond conformance, bad sizes."""

import numpy as np
import pytest

from keras_llm import models
from keras_llm.models import lstm_seq2seq, t5
from tests.conformance.comparing import quick, quick_decoding, quick_training

RNG = np.random.default_rng(59)
V, B, S, T = 31, 3, 11, 7
T5 = models.T5Config(
    vocab_size=V,
    width=20,
    num_layers=1,
    num_decoder_layers=2,
    num_heads=5,
    head_size=6,
    feed_forward_width=13,
    relative_buckets=8,
    relative_max_distance=7,
    max_positions=29,
    start_id=2,
)
LSTM = models.LSTMSeq2SeqConfig(
    vocab_size=V, embedding_width=7, units=10, num_layers=2, start_id=2
)
CONFIGS = {
    "t5": T5,
    "t5 1.0": T5.replace(activation="relu", tied=True, num_decoder_layers=None),
    "lstm": LSTM,
    "lstm additive": LSTM.replace(
        attention="additive", attention_units=3, bidirectional=False, tied=True
    ),
}
LENGTHS = np.array([5, 1, 11], "int32")
REAL = np.arange(S)[None] < LENGTHS[:, None]
SOURCE = RNG.integers(3, V, (B, S)).astype("int32")
TARGET = RNG.integers(3, V, (B, T)).astype("int32")
TARGET[:, 0] = 2
INPUTS = {"source_ids": SOURCE, "source_lengths": LENGTHS, "token_ids": TARGET}
CLOSE = {"rtol": 1e-4, "atol": 1e-5}


@pytest.fixture(scope="module", params=CONFIGS)
def model(request):
    """A model with weights large enough for attention to matter."""
    model = models.build(CONFIGS[request.param])
    for weight in model.weights:
        scale = 0.7 * weight.path.endswith("scale")
        weight.assign(RNG.normal(scale, 0.4, weight.shape))
    return model


@pytest.fixture(scope="module")
def decoder(model):
    return models.decoder(model)


@pytest.fixture(scope="module")
def run(model):
    """Returns the function from a batch to logits."""
    call = quick(model)
    return lambda inputs: np.asarray(call(inputs))


@pytest.fixture(scope="module")
def whole(run):
    return run(INPUTS)


def decode(decoder, rows=slice(None), source=SOURCE, capacity=T):
    """Returns the logits [B, T, V] of the prefill and of every step."""
    prefill, step = quick_decoding(decoder, capacity)
    logits, state = prefill(source[rows], LENGTHS[rows])
    found = [np.asarray(logits)]
    for t in range(1, T):
        logits, state = step(TARGET[rows, t], state)
        found.append(np.asarray(logits))
    return np.stack(found, axis=1)


def test_the_sources_padding_changes_nothing(run, whole):
    other = np.where(REAL, SOURCE, V - SOURCE)
    wider = np.pad(other, ((0, 0), (0, 2)))
    np.testing.assert_allclose(run({**INPUTS, "source_ids": other}), whole, **CLOSE)
    np.testing.assert_allclose(run({**INPUTS, "source_ids": wider}), whole, **CLOSE)


def test_the_source_changes_something(run, whole):
    other = run({**INPUTS, "source_ids": V - SOURCE})
    assert (np.abs(other - whole).max(axis=(1, 2)) > 1e-2).all()


def test_later_tokens_change_nothing_before_them(run, whole):
    other = TARGET.copy()
    other[:, 4:] = V - other[:, 4:]
    found = run({**INPUTS, "token_ids": other})
    np.testing.assert_allclose(found[:, :4], whole[:, :4], **CLOSE)
    assert np.abs(found[:, 4:] - whole[:, 4:]).max() > 1e-2


def test_an_empty_source_counts_its_first_place_in_any_batch(run):
    inputs = {**INPUTS, "source_lengths": np.array([5, 0, 11], "int32")}
    together = run(inputs)[1]
    alone = run({name: x[1:2] for name, x in inputs.items()})[0]
    np.testing.assert_allclose(together, alone, **CLOSE)
    one_token = run({**INPUTS, "source_lengths": np.array([5, 1, 11], "int32")})[1]
    np.testing.assert_allclose(together, one_token, **CLOSE)


def test_cached_decoding_is_the_full_forward_pass(decoder, whole):
    np.testing.assert_allclose(decode(decoder), whole, **CLOSE)


def test_a_decoded_row_alone_is_the_row_in_a_batch(decoder, whole):
    alone = decode(decoder, slice(1, 2))
    np.testing.assert_allclose(alone[0], whole[1], **CLOSE)


def test_a_compiled_callers_decoder_gives_the_same(model, whole):
    compiled = models.decoder(model, jit=True)
    np.testing.assert_allclose(decode(compiled), whole, **CLOSE)


def test_low_precision_decoding_stays_near_its_own_forward_pass(model):
    rounded = models.build(model.config, "bfloat16")
    rounded.set_weights(model.get_weights())
    expected = np.asarray(quick(rounded)(INPUTS))
    # (An LSTM's step is the same for callers that XLA compiles.)
    for jit in {False, model.config.architecture == "t5"}:
        found = decode(models.decoder(rounded, jit))
        assert np.abs(found - expected).max() < 0.1 * np.abs(expected).max()


# (A recurrent state is never full.)
@pytest.mark.parametrize("model", ["t5", "t5 1.0"], indirect=True)
def test_a_full_cache_disturbs_no_other_row(decoder):
    prefill, step = quick_decoding(decoder, T)
    _, state = prefill(SOURCE, LENGTHS)
    expected, _ = step(TARGET[:, 1], state)
    full = {**state, "position": np.array([T, 1, 1], "int32")}
    found, _ = step(TARGET[:, 1], full)
    np.testing.assert_allclose(found[1:], expected[1:], **CLOSE)


def test_state_is_batch_led_and_the_sources_part_stays(decoder):
    prefill, _ = quick_decoding(decoder, T)
    _, state = prefill(SOURCE, LENGTHS)
    assert {value.shape[0] for value in state.values()} == {B}
    _, later = decoder.step(TARGET[:, 1], state)
    assert set(later) == set(state)
    of_source = [name for name in state if name.startswith("memory")]
    assert len(of_source) >= 3
    assert all(later[name] is state[name] for name in of_source)
    assert not decoder.prompt_in_cache


def test_split_head(model, whole):
    trunk, project = models.split_head(model)
    assert set(trunk.input) == set(INPUTS)
    found = quick(lambda inputs: project(trunk(inputs)))(INPUTS)
    np.testing.assert_allclose(found, whole, **CLOSE)


def test_the_last_dropout_is_part_of_what_the_head_reads():
    config = T5.replace(dropout=0.3, num_decoder_layers=1)
    trunk, _ = models.split_head(models.build(config))
    share = (np.asarray(quick_training(trunk)(INPUTS)) == 0).mean()
    assert 0.1 < share < 0.5 and (np.asarray(quick(trunk)(INPUTS)) == 0).mean() < 0.05


def test_flops_are_six_per_matrix_weight_plus_attention(model):
    kernels = {
        weight.path: int(np.prod(weight.shape))
        for weight in model.trainable_weights
        if weight.path.endswith("kernel")
    }
    count = sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)
    assert models.count_parameters(model) == count
    # The encoder, and the memory's keys and values, run once a token of the source.
    of_source = ("encoder_block_", "attention/key/")
    read = sum(
        size
        for path, size in kernels.items()
        if path.startswith(of_source) or "key_value" in path.split("/")
    )
    written = sum(kernels.values()) - read
    if model.config.tied:
        written += V * (model.config.head_width if "lstm" in model.name else 20)
    if "lstm" in model.name:
        attention = T * (10 + (3 if "additive" in model.config.attention else 10)) * S
    else:  # A score and its value for each of 5 heads of 6.
        blocks = model.config.num_decoder_layers or 1
        attention = 60 * (S * S + blocks * T * (S + T))
    row = S * read + T * written + attention
    found = models.flops_per_token(model.config, S, T)
    assert found == pytest.approx(6 * row / (S + T), rel=1e-12)


def test_the_encoder_alone(model):
    module = t5 if model.config.architecture == "t5" else lstm_seq2seq
    source = {name: INPUTS[name] for name in ("source_ids", "source_lengths")}
    memory = quick(module.encoder(model))(source)
    memory = memory if module is t5 else memory["memory"]
    assert memory.shape[:2] == (B, S)


@pytest.mark.parametrize(
    ("length", "capacity", "message"),
    [(30, 4, "prompt length.*30"), (5, 30, "capacity.*30"), (5, 0, "capacity.*0")],
)
def test_more_than_the_positions_is_refused(length, capacity, message):
    decoder = models.decoder(models.build(T5))
    with pytest.raises(ValueError, match=message):
        decoder.prefill(np.ones((1, length), "int32"), np.array([length]), capacity)


@pytest.mark.parametrize(
    ("config", "fields", "message"),
    [
        (T5, {"head_size": 0}, "head_size=0"),
        (T5, {"head_size": None, "num_heads": 3}, "multiple of `num_heads`"),
        (T5, {"num_decoder_layers": 0}, "num_decoder_layers=0"),
        (T5, {"activation": "gelu"}, "'geglu_tanh', 'geglu', 'relu'"),
        (T5, {"relative_buckets": 7}, "num_buckets=7"),
        (T5, {"relative_max_distance": 2}, "max_distance=2"),
        (T5, {"relative_max_distance": 4}, "max_distance=4.*bidirectional|gives 4"),
        (T5, {"start_id": V}, f"start_id={V}"),
        (T5, {"start_id": -1}, "start_id"),
        (T5, {"dropout": float("nan")}, "dropout=nan"),
        (T5, {"max_positions": 0}, "max_positions=0"),
        (LSTM, {"units": 0}, "units=0"),
        (LSTM, {"units": 7}, "units=7"),
        (LSTM, {"attention": "none"}, "'multiplicative', 'additive'"),
        (LSTM, {"attention_units": 0}, "attention_units=0"),
        (LSTM, {"dropout": 1.0}, "dropout=1.0"),
        (LSTM, {"recurrent_dropout": -0.1}, "recurrent_dropout=-0.1"),
        (LSTM, {"start_id": V}, f"start_id={V}"),
    ],
)
def test_bad_sizes_are_named(config, fields, message):
    with pytest.raises(ValueError, match=message):
        config.replace(**fields)


@pytest.mark.parametrize("config", [T5, LSTM], ids=["t5", "lstm"])
def test_an_open_vocabulary_cannot_be_built(config):
    with pytest.raises(ValueError, match="vocab_size"):
        models.build(config.replace(vocab_size=0))
