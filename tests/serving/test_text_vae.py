"""A text VAE over HTTP: each signature answers as the model in memory does."""

import keras
import numpy as np
import pytest

from keras_llm import export, models, tokenizers
from keras_llm.generation import LatentGenerator

Z, TEXTS = 3, ["the sea", "", "文"]


@pytest.fixture(scope="module")
def generator():
    keras.utils.set_random_seed(4)
    config = models.TextVAEConfig(vocab_size=257, latent_dim=Z, width=5, start_id=256)
    model = models.build(config)
    for weight in model.trainable_weights:
        weight.assign(weight + 0.4 * keras.random.normal(weight.shape, seed=5))
    return LatentGenerator(model, tokenizers.ByteTokenizer())


@pytest.fixture(scope="module")
def ask(generator, tmp_path_factory, start_server):
    """Returns the function from a signature and its rows to the served answers."""
    base = tmp_path_factory.mktemp("served") / "vae"
    text_model = generator.text_model
    export.export(text_model.model, text_model.tokenizer, base / "1", verify=False)
    with start_server(base) as server:

        def ask(signature, rows):
            body = {"signature_name": signature, "instances": rows}
            status, reply = server.predict(body)
            assert status == 200, reply
            return reply["predictions"]

        yield ask


def test_every_signature_answers_as_in_memory(ask, generator):
    assert ask("serving_default", TEXTS) == generator.reconstruct(TEXTS)
    mean, log_variance = generator.encode(TEXTS)
    encoded = ask("vae_encode", TEXTS)
    for i, row in enumerate(encoded):
        np.testing.assert_allclose(row["mean"], mean[i], atol=1e-5)
        np.testing.assert_allclose(row["log_variance"], log_variance[i], atol=1e-5)
    drawn = ask("vae_sample", [4, 5])
    assert [row["text"] for row in drawn] == generator.sample(2, seed=4)
    fractions = [0.0, 0.5, 1.0]
    way = ask(
        "vae_interpolate",
        [{"text_a": TEXTS[0], "text_b": TEXTS[2], "fraction": f} for f in fractions],
    )
    expected = generator.interpolate(TEXTS[0], TEXTS[2], steps=3)
    assert [row["text"] for row in way] == expected
    knobs = {
        "max_new_tokens": 7, "temperature": 0.9, "top_k": 0, "top_p": 0.9, "min_p": 0.0,
        "repetition_penalty": 1.1,
    }  # fmt: skip
    decoded = ask(
        "vae_decode",
        [
            {"z": row["z"], "stop": ["e"], "seed": i, **knobs}
            for i, row in enumerate(way)
        ],
    )
    z = [row["z"] for row in way]
    written = generator.write(z, stop=["e"], seed=[0, 1, 2], **knobs)
    assert [row["text"] for row in decoded] == written
    assert {row["finish_reason"] for row in decoded} <= {"stop", "length", "end"}
    (tokens,) = ask("tokenize", ["ab"])
    assert tokens == {"token_ids": [*b"ab"], "num_tokens": 2}
