"""Text VAEs exported: texts, latents and texts again, as in memory."""

import os

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_llm import export, models, tokenizers
from keras_llm.core import check_manifest
from keras_llm.core.allowed_ops import check_graph
from keras_llm.generation import LatentGenerator
from keras_llm.ops import random

Z, TEXTS = 5, ["Call me", "", "文字"]
LSTM = models.TextVAEConfig(
    vocab_size=257, latent_dim=Z, width=7, start_id=256, posterior="batch_norm"
)
CONFIGS = {
    "lstm": LSTM,
    "transformer": LSTM.replace(
        width=6, num_heads=3, encoder="transformer", decoder="transformer",
        max_positions=23, posterior="gaussian",
    ),
}  # fmt: skip


@pytest.fixture(scope="module", params=CONFIGS)
def exported(request, tmp_path_factory):
    """Returns a generator in memory and the export, from where it was moved to."""
    keras.utils.set_random_seed(6)
    model = models.build(CONFIGS[request.param])
    for weight in model.trainable_weights:
        weight.assign(weight + 0.4 * keras.random.normal(weight.shape, seed=2))
    tokenizer = tokenizers.ByteTokenizer()
    folder = tmp_path_factory.mktemp("served")
    verify = request.param == "transformer"  # It takes a process of its own.
    out = export.export(model, tokenizer, folder / "1", verify=verify)
    assert (check_manifest(out)["verified_answers"] > 10) == verify
    check_graph(out)
    os.rename(out, folder / "elsewhere")
    loaded = tf.saved_model.load(folder / "elsewhere")
    return LatentGenerator(model, tokenizer), loaded.signatures


def ask(signatures, name, **inputs):
    given = {
        key: tf.constant(value, tf.float32 if key == "z" else None)
        for key, value in inputs.items()
    }
    return {key: value.numpy() for key, value in signatures[name](**given).items()}


def strings(answer):
    return [text.decode() for text in answer["text"]]


def test_every_text_is_that_of_the_model_in_memory(exported):
    memory, signatures = exported
    mean, log_variance = memory.encode(TEXTS)
    found = ask(signatures, "vae_encode", text=TEXTS)
    np.testing.assert_allclose(found["mean"], mean, atol=1e-5)
    np.testing.assert_allclose(found["log_variance"], log_variance, atol=1e-5)
    assert strings(ask(signatures, "serving_default", text=TEXTS)) == (
        memory.reconstruct(TEXTS)
    )
    drawn = ask(signatures, "vae_sample", seed=[7, 8, 9])
    assert strings(drawn) == memory.sample(3, seed=7)
    expected = random.normal(np.array([7, 8, 9], "int32"), Z)
    np.testing.assert_allclose(drawn["z"], expected, atol=1e-5)
    way = ask(
        signatures, "vae_interpolate",
        text_a=["Call me"] * 3, text_b=["文字"] * 3, fraction=[0.0, 0.25, 1.0],
    )  # fmt: skip
    steps = memory.interpolate("Call me", "文字", steps=5)
    assert strings(way) == [steps[0], steps[1], steps[4]]
    np.testing.assert_allclose(way["z"][1], 0.75 * mean[0] + 0.25 * mean[2], atol=1e-5)
    assert len({*strings(drawn), *steps}) > 4  # The latent tells.


def knobs(**changes):
    values = {
        "max_new_tokens": 6, "temperature": 0.0, "top_k": 0, "top_p": 1.0,
        "min_p": 0.0, "repetition_penalty": 1.0, "seed": 0, "stop": [""], **changes,
    }  # fmt: skip
    return {name: [value] for name, value in values.items()}


def test_knobs_count_for_each_row_alone(exported):
    memory, signatures = exported
    z = np.random.default_rng(3).normal(size=(2, Z)).astype("float32")
    rows = [knobs(), knobs(temperature=1.5, seed=4, max_new_tokens=9)]
    both = {key: rows[0][key] + rows[1][key] for key in rows[0]}
    together = ask(signatures, "vae_decode", z=z, **both)
    for i, row in enumerate(rows):
        alone = ask(signatures, "vae_decode", z=z[i : i + 1], **row)
        given = {key: value[0] for key, value in row.items() if key != "stop"}
        assert strings(alone)[0] == strings(together)[i]
        assert memory.write(z[i : i + 1], **given) == strings(alone)
        count = alone["num_tokens"][0]
        assert together["num_tokens"][i] == count <= given["max_new_tokens"]
        assert (together["token_ids"][i, count:] == -1).all()
    assert strings(together)[0] != strings(together)[1]


def test_of_no_rows_there_is_nothing(exported):
    _, signatures = exported
    none = tf.zeros([0], tf.string)
    assert signatures["serving_default"](text=none)["text"].shape == [0]
    found = signatures["vae_interpolate"](
        text_a=none, text_b=none, fraction=tf.zeros([0])
    )
    assert found["z"].shape == [0, Z]
    assert signatures["vae_sample"](seed=tf.zeros([0], tf.int32))["z"].shape == [0, Z]


def refused(match):
    return pytest.raises(tf.errors.InvalidArgumentError, match=match)


def test_what_is_out_of_range_is_refused(exported):
    memory, signatures = exported
    pair = {"text_a": ["a"], "text_b": ["b"]}
    for fraction in (-0.1, 1.1, np.nan):
        with refused("`fraction` must lie from 0 to 1"):
            ask(signatures, "vae_interpolate", **pair, fraction=[fraction])
    with refused("`text_b` must have one value"):
        ask(
            signatures, "vae_interpolate",
            text_a=["a"], text_b=["b", "c"], fraction=[0.5],
        )  # fmt: skip
    with refused("`z` must be finite"):
        ask(signatures, "vae_decode", z=[[np.nan] * Z], **knobs())
    with refused("`max_new_tokens` must lie from 0"):
        too_many = memory.text_model.limit + 1
        ask(signatures, "vae_decode", z=[[0.0] * Z], **knobs(max_new_tokens=too_many))
    if memory.text_model.limit == 23:
        ask(signatures, "vae_encode", text=["a" * 22])  # And its end token.
        with refused("at most 23 tokens"):
            ask(signatures, "vae_encode", text=["a" * 23])
