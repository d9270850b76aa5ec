"""The LSTM classifier: plain NumPy, where its weights come from, what it refuses."""

import numpy as np
import pytest

from keras_llm import models
from keras_llm.models import LSTMClassifierConfig, LSTMLMConfig
from tests.conformance.comparing import quick

B, T, V, D, U = 3, 7, 19, 5, 4
LABELS = ("no", "maybe", "yes")
SIZES = {"vocab_size": V, "embedding_width": D, "units": U, "labels": LABELS}
LENGTHS = np.array([4, 7, 1], "int32")
INPUTS = {
    "token_ids": np.random.default_rng(0).integers(0, V, (B, T)).astype("int32"),
    "lengths": LENGTHS,
}


def make(config, seed=1):
    model = models.build(config)
    rng = np.random.default_rng(seed)
    for weight in model.weights:
        weight.assign(rng.normal(0, 0.7, weight.shape))
    return model


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def lstm(w, name, xs):
    kernel, recurrent, bias = (
        w[f"{name}/{part}"] for part in ("kernel", "recurrent_kernel", "bias")
    )
    h = c = np.zeros(U)
    states = []
    for x in xs:
        i, f, g, o = np.split(x @ kernel + h @ recurrent + bias, 4)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        states.append(h)
    return states


def read(w, i, bidirectional, xs):
    """Returns a layer's outputs at every token, and where it ends."""
    if not bidirectional:
        states = lstm(w, f"block_{i}/lstm", xs)
        return states, states[-1]
    ahead = lstm(w, f"block_{i}/forward", xs)
    back = lstm(w, f"block_{i}/backward", xs[::-1])
    both = [np.concatenate(pair) for pair in zip(ahead, back[::-1], strict=True)]
    return both, np.concatenate([ahead[-1], back[-1]])


@pytest.mark.parametrize("pooling", ["last", "mean"])
@pytest.mark.parametrize("bidirectional", [True, False])
def test_it_is_the_plain_computation(pooling, bidirectional):
    config = LSTMClassifierConfig(
        **SIZES, num_layers=2, bidirectional=bidirectional, pooling=pooling
    )
    model = make(config)
    w = {weight.path: np.float64(np.asarray(weight)) for weight in model.weights}
    logits = np.asarray(quick(model)(INPUTS))
    for b, length in enumerate(LENGTHS):
        xs = [w["token_embedding/embeddings"][i] for i in INPUTS["token_ids"][b]]
        xs = xs[:length]
        for i in range(2):
            xs, end = read(w, i, bidirectional, xs)
        vector = end if pooling == "last" else np.mean(xs, axis=0)
        expected = vector @ w["head/kernel"] + w["head/bias"]
        np.testing.assert_allclose(logits[b], expected, atol=1e-5)


def test_a_language_model_s_weights_go_into_it():
    source = make(LSTMLMConfig(vocab_size=V, embedding_width=D, units=U), seed=2)
    target = models.build(
        LSTMClassifierConfig(**SIZES, num_layers=2, bidirectional=False)
    )
    assert models.transfer_weights(source, target) == ["head/kernel", "head/bias"]
    same = {weight.path: np.asarray(weight) for weight in source.weights}
    for weight in target.weights[:-2]:
        np.testing.assert_array_equal(weight, same[weight.path])


def test_weight_names_are_stable():
    paths = [w.path for w in models.build(LSTMClassifierConfig(**SIZES)).weights]
    cells = [
        f"block_0/{direction}/{part}"
        for direction in ("forward", "backward")
        for part in ("kernel", "recurrent_kernel", "bias")
    ]
    ends = ["head/kernel", "head/bias"]
    assert paths == ["token_embedding/embeddings", *cells, *ends]


@pytest.mark.parametrize("bidirectional", [True, False])
def test_flops_are_six_per_matrix_weight(bidirectional):
    config = LSTMClassifierConfig(**SIZES, num_layers=2, bidirectional=bidirectional)
    matrices = sum(
        int(np.prod(weight.shape))
        for weight in models.build(config).trainable_weights
        if weight.path.endswith("kernel") and not weight.path.startswith("head")
    )
    assert models.flops_per_token(config) == 6 * matrices


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"units": 0}, "`units`"),
        ({"embedding_width": -1}, "`embedding_width`"),
        ({"num_layers": 0}, "`num_layers`"),
        ({"pooling": "median"}, "`pooling` must be one of 'last', 'first'"),
        ({"dropout": float("nan")}, "`dropout`"),
        ({"labels": ("a", "b", "a")}, "`labels` must differ"),
    ],
    ids=str,
)
def test_bad_configs_are_named(changes, said):
    with pytest.raises(ValueError, match=said):
        LSTMClassifierConfig(**{**SIZES, **changes})


@pytest.mark.parametrize("labels", [(), ("spam",)])
def test_without_two_labels_it_cannot_be_built(labels):
    with pytest.raises(ValueError, match="two labels or more"):
        models.build(LSTMClassifierConfig(**{**SIZES, "labels": labels}))


def test_an_open_vocabulary_is_refused():
    with pytest.raises(ValueError, match="tokenizer"):
        models.build(LSTMClassifierConfig(**{**SIZES, "vocab_size": 0}))
