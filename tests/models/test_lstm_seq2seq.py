"""The LSTM encoder-decoder against a float64 loop over rows and steps."""

import numpy as np
import pytest

from keras_llm import models

RNG = np.random.default_rng(61)
V, B, S, T = 13, 3, 7, 5
SIZES = {"vocab_size": V, "embedding_width": 5, "units": 6, "num_layers": 2}
CONFIGS = {
    "multiplicative": models.LSTMSeq2SeqConfig(**SIZES),
    "additive": models.LSTMSeq2SeqConfig(
        **SIZES, attention="additive", attention_units=11
    ),
    "one direction": models.LSTMSeq2SeqConfig(**SIZES, bidirectional=False),
    "tied": models.LSTMSeq2SeqConfig(**SIZES, tied=True),
}
LENGTHS = [4, 7, 1]


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def lstm(weights, name, xs, h, c):
    """Returns the states after each step of `xs`, and the last c."""
    states = []
    for x in xs:
        z = x @ weights[f"{name}/kernel"] + h @ weights[f"{name}/recurrent_kernel"]
        i, f, g, o = np.split(z + weights[f"{name}/bias"], 4)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        states.append(h)
    return states, c


def encode(config, weights, xs):
    """Returns the memory of one row, and each layer's last (h, c)."""
    found = []
    for n in range(config.num_layers):
        name = f"encoder_block_{n}"
        if config.bidirectional:
            zero = np.zeros(config.units // 2)
            ahead, c = lstm(weights, f"{name}/forward", xs, zero, zero)
            back, back_c = lstm(weights, f"{name}/backward", xs[::-1], zero, zero)
            found.append((np.append(ahead[-1], back[-1]), np.append(c, back_c)))
            xs = [np.append(a, b) for a, b in zip(ahead, back[::-1], strict=True)]
        else:
            zero = np.zeros(config.units)
            xs, c = lstm(weights, f"{name}/lstm", xs, zero, zero)
            found.append((xs[-1], c))
    return np.array(xs), found


def expected_logits(config, weights, source, target):
    """Returns the logits [T, V] of one row, without padding."""
    table = weights["token_embedding/embeddings"]
    memory, states = encode(config, weights, table[source])
    xs = table[target]
    for n, (h, c) in enumerate(states):
        xs, _ = lstm(weights, f"block_{n}/lstm", xs, h, c)
    logits = []
    for x in xs:
        key = memory @ weights["attention/key/kernel"]
        if config.attention == "additive":
            inner = np.tanh(x @ weights["attention/query/kernel"] + key)
            score = inner @ weights["attention/score"]
        else:
            score = key @ x
        odds = np.exp(score)
        context = odds @ memory / odds.sum()
        y = np.tanh(np.append(context, x) @ weights["combination/kernel"])
        logits.append(y @ (table.T if config.tied else weights["head/kernel"]))
    return np.array(logits)


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_logits(config):
    model = models.build(config)
    for weight in model.weights:
        weight.assign(RNG.normal(0, 0.7, weight.shape))
    weights = {w.path: np.asarray(w, "float64") for w in model.weights}
    source = RNG.integers(0, V, (B, S)).astype("int32")
    target = RNG.integers(0, V, (B, T)).astype("int32")
    inputs = {
        "source_ids": source,
        "source_lengths": np.array(LENGTHS, "int32"),
        "token_ids": target,
    }
    logits = np.asarray(model(inputs))
    for b, length in enumerate(LENGTHS):
        expected = expected_logits(config, weights, source[b, :length], target[b])
        np.testing.assert_allclose(logits[b], expected, atol=1e-4)
