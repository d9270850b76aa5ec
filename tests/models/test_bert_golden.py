"""BERT and ELECTRA against Transformers on torch: stored answers.

`tests/golden/make_bert_golden.py` made them; the tests need neither library.
"""

import pathlib

import keras
import numpy as np
import pytest

from keras_llm import models
from keras_llm.ops import masked_tokens
from tests.conformance.comparing import quick

FOLDER = pathlib.Path(__file__).parents[2] / "testdata" / "golden"
SHARED = {"vocab_size": 37, "max_positions": 29, "num_layers": 3, "num_segments": 3}
BERT = models.BertConfig(**SHARED, width=20, num_heads=5, feed_forward_width=31)
ELECTRA = models.ElectraConfig(
    **SHARED,
    width=28,
    num_heads=4,
    feed_forward_width=36,
    embedding_width=11,
    generator_fraction=0.5,
)
SEVEN = tuple("abcdefg")


def built(config):
    """Returns a model with the reference's weights, and the answers."""
    model = models.build(config)
    models.load_weights(model, FOLDER / f"{config.architecture}.safetensors")
    with np.load(FOLDER / f"{config.architecture}.npz") as answers:
        return model, dict(answers)


@pytest.fixture(scope="module")
def bert():
    return built(BERT)


@pytest.fixture(scope="module")
def electra():
    return built(ELECTRA)


def rows_of(answers, ids="token_ids"):
    return {
        "token_ids": answers[ids],
        "segment_ids": answers["segment_ids"],
        "lengths": answers["lengths"],
    }


def electra_rows(answers):
    names = ("masked_ids", "masked_positions")
    return {**rows_of(answers), **{name: answers[name] for name in names}}


def real(answers):
    length = answers["token_ids"].shape[1]
    return np.arange(length)[None] < answers["lengths"][:, None]


def assert_same_at(where, found, expected):
    np.testing.assert_allclose(np.asarray(found)[where], expected[where], atol=1e-4)


def test_masked_lm_logits(bert):
    model, answers = bert
    logits = quick(model)(rows_of(answers, "masked_ids"))
    assert_same_at(real(answers), logits, answers["masked_lm"])


@pytest.mark.parametrize("name", ["bert", "electra"])
def test_hidden_states_of_every_layer(name, request):
    model, answers = request.getfixturevalue(name)
    first = "embedding_dropout" if name == "bert" else "embedding_projection"
    layers = [first, *(f"block_{i}" for i in range(3))]
    outputs = [model.get_layer(layer).output for layer in layers]
    rows = rows_of(answers, "masked_ids") if name == "bert" else electra_rows(answers)
    found = quick(keras.Model(model.input, outputs))(rows)
    assert len(found) == len(answers["hidden"]) == 4
    for ours, theirs in zip(found, answers["hidden"], strict=True):
        assert_same_at(real(answers), ours, theirs)


@pytest.mark.parametrize(
    ("head", "labels"), [("classify", SEVEN), ("tag", SEVEN), ("answer", ())]
)
def test_heads(bert, head, labels):
    source, answers = bert
    model = models.build(BERT.replace(head=head, labels=labels))
    fresh = models.transfer_weights(source, model)
    weights = {weight.path: weight for weight in model.weights}
    stored = {key: value for key, value in answers.items() if f"{head}:" in key}
    assert {f"{head}:{path}" for path in fresh} == set(stored)
    for key, value in stored.items():
        weights[key.partition(":")[2]].assign(value)
    logits = quick(model)(rows_of(answers))
    where = slice(None) if head == "classify" else real(answers)
    assert_same_at(where, logits, answers[head])


def test_masked_lm_loss_of_the_masked_tokens_alone(bert):
    model, answers = bert
    trunk, project = models.split_head(model)
    hidden = masked_tokens.take(
        quick(trunk)(rows_of(answers, "masked_ids")), answers["masked_positions"]
    )
    total, count = masked_tokens.masked_token_loss(
        project(hidden), answers["token_ids"], answers["masked_positions"]
    )
    assert float(count) == 8
    assert float(total / count) == pytest.approx(float(answers["loss"]), abs=1e-5)


def test_electra_outputs(electra):
    model, answers = electra
    out = quick(model)(electra_rows(answers))
    places = answers["masked_positions"]
    expected = np.take_along_axis(
        answers["generator_logits"], np.maximum(places, 0)[..., None], axis=1
    )
    assert_same_at(places >= 0, out["generator_logits"], expected)
    np.testing.assert_array_equal(out["corrupted_ids"], answers["corrupted_ids"])
    assert (answers["corrupted_ids"] != answers["token_ids"]).any()
    assert_same_at(
        real(answers), out["discriminator_logits"], answers["discriminator_logits"]
    )


def test_electra_losses(electra):
    model, answers = electra
    out = quick(model)(electra_rows(answers))
    total, count = masked_tokens.masked_token_loss(
        out["generator_logits"], answers["token_ids"], answers["masked_positions"]
    )
    assert float(total / count) == pytest.approx(
        float(answers["generator_loss"]), abs=1e-5
    )
    total, count = masked_tokens.replaced_token_loss(
        out["discriminator_logits"],
        answers["token_ids"],
        out["corrupted_ids"],
        answers["lengths"],
    )
    assert float(total / count) == pytest.approx(
        float(answers["discriminator_loss"]), abs=1e-5
    )


def test_discriminator_alone_has_the_references_hidden_states(electra):
    model, answers = electra
    alone = models.discriminator(model, pooling="max")
    vectors = quick(alone)(rows_of(answers, "corrupted_ids"))
    where = real(answers)[..., None]
    expected = np.where(where, answers["hidden"][-1], -np.inf).max(1)
    np.testing.assert_allclose(vectors, expected, atol=1e-4)
