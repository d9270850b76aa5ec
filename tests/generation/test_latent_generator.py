"""Texts from latents: reconstruction, sampling, interpolation."""

import keras
import numpy as np
import pytest

from keras_llm import models, tokenizers
from keras_llm.generation import Generator, LatentGenerator

Z, END, TEXTS = 5, 256, ["abc", "", "文 z"]


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(1)
    model = models.build(
        models.TextVAEConfig(vocab_size=257, latent_dim=Z, width=7, start_id=END)
    )
    for weight in model.trainable_weights:
        weight.assign(weight + 0.4 * keras.random.normal(weight.shape, seed=3))
    return model


@pytest.fixture(scope="module")
def generator(model):
    return LatentGenerator(model, tokenizers.ByteTokenizer())


def likeliest(model, z, count):
    """Writes by the full forward pass over all that stands already."""
    ids = [END]
    for _ in range(count):
        logits = models.decoder(model).logits(np.array([ids]), z[None])
        ids.append(int(np.argmax(logits[0, -1])))
        if ids[-1] == END:
            break
    return bytes(i for i in ids[1:] if i != END).decode(errors="replace")


def test_a_text_is_written_anew_from_its_mean(model, generator):
    found = generator.reconstruct(TEXTS, max_new_tokens=6)
    for text, rebuilt in zip(TEXTS, found, strict=True):
        ids = np.array([[*text.encode(), END]], "int32")
        lengths = np.array([ids.shape[1]], "int32")
        mean, log_variance = models.decoder(model).encode(ids, lengths)
        assert rebuilt == likeliest(model, np.asarray(mean)[0], 6)
        alone = generator.encode([text])
        np.testing.assert_allclose(alone[0], mean, atol=1e-6)
        np.testing.assert_allclose(alone[1], log_variance, atol=1e-6)
    # To the command that generates a text VAE is an encoder-decoder.
    prompts = Generator(model, tokenizers.ByteTokenizer())
    assert [x.text for x in prompts.generate(TEXTS, max_new_tokens=6)] == found


def test_a_sample_depends_on_its_seed_alone(generator):
    knobs = {"max_new_tokens": 8, "temperature": 1.3}
    together = generator.sample(4, seed=5, **knobs)
    assert together == [generator.sample(1, seed=5 + i, **knobs)[0] for i in range(4)]
    assert len(set(together)) == 4


def test_xla_writes_the_same(model, generator):
    compiled = LatentGenerator(model, tokenizers.ByteTokenizer(), jit=True)
    knobs = {"max_new_tokens": 5, "stop": ["e"]}
    assert compiled.sample(2, **knobs) == generator.sample(2, **knobs)


def test_a_way_leads_from_one_reconstruction_to_the_other(generator):
    (start, end), _ = generator.encode(TEXTS[::2])
    knobs = {"max_new_tokens": 6}
    ends = generator.reconstruct(TEXTS[::2], **knobs)
    for path in ("linear", "spherical"):
        way = generator.interpolate(*TEXTS[::2], steps=5, path=path, **knobs)
        assert (way[0], way[-1]) == tuple(ends) and len(way) == 5
    straight = generator.interpolate(*TEXTS[::2], steps=5, **knobs)
    assert straight[1:4] == generator.write(
        [0.75 * start + 0.25 * end, (start + end) / 2, 0.25 * start + 0.75 * end],
        **knobs,
    )


@pytest.mark.parametrize(
    ("ask", "said"),
    [
        (lambda g: g.interpolate("a", "b", steps=1), "`steps` must be at least 2"),
        (lambda g: g.interpolate("a", "b", path="bent"), "`path`.*'bent'"),
        (lambda g: g.write(np.zeros((2, Z + 1))), r"\[B, 5\].*shape \(2, 6\)"),
        (lambda g: g.write(np.full((1, Z), np.nan)), "`z` must be finite"),
        (lambda g: g.write(np.zeros((1, Z)), top_p=0.0), "`top_p` must lie above 0"),
        (lambda g: g.sample(0), "`count` must be positive"),
        (lambda g: g.sample(1, seed=-1), "`seed` must lie"),
        (lambda g: g.reconstruct("abc"), "`texts` must be a list"),
        (lambda g: g.encode(["a" * 2**24]), "at most"),
    ],
)
def test_what_cannot_be_written_is_refused(generator, ask, said):
    with pytest.raises(ValueError, match=said):
        ask(generator)
