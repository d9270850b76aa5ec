"""A text VAE judged: its likelihood and its latent, against NumPy in float64."""

import json

import keras
import numpy as np
import pytest

from keras_llm import data, evaluation, models, tokenizers
from tests import forked

Z, END, SAMPLES = 2, 256, 5
TEXTS = ["ab", "whale", "zz", "文字", "the sea", "a"]


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(2)
    model = models.build(
        models.TextVAEConfig(vocab_size=257, latent_dim=Z, width=6, start_id=END)
    )
    for weight in model.trainable_weights:
        weight.assign(weight + 0.6 * keras.random.normal(weight.shape, seed=3))
    return model


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    path = tmp_path_factory.mktemp("texts") / "texts.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    return str(path)


def density(z, mean, log_variance):
    deviation = (z - mean) / np.exp(log_variance / 2)
    return np.sum(-(deviation**2) / 2 - (np.log(2 * np.pi) + log_variance) / 2, axis=-1)


def log_mean(x):
    return np.log(np.mean(np.exp(x - x.max()))) + x.max()


@pytest.fixture(scope="module")
def by_hand(model):
    """What each text comes to, one sample at a time."""
    decoder, rows = models.decoder(model), []
    for place, text in enumerate(TEXTS):
        ids = [*text.encode(), END]
        mean, log_variance = decoder.encode(
            np.array([ids], "int32"), np.array([len(ids)], "int32")
        )
        mean, log_variance = np.float64(mean)[0], np.float64(log_variance)[0]
        noise = np.random.default_rng([7, place]).standard_normal(
            (SAMPLES, Z), np.float32
        )
        z = mean + np.exp(log_variance / 2) * noise
        logits = np.float64(
            decoder.logits(np.array([[END, *ids[:-1]]] * SAMPLES, "int32"), z)
        )
        chosen = logits[:, np.arange(len(ids)), ids]
        likelihood = np.sum(chosen - np.log(np.exp(logits).sum(-1)), axis=1)
        kl = density(z, mean, log_variance) - density(z, 0.0, np.zeros(Z))
        variance = np.exp(log_variance)
        exact_kl = np.sum(mean**2 + variance - np.log(variance) - 1) / 2
        rows.append((-likelihood.mean(), exact_kl, -log_mean(likelihood - kl), z[0]))
        rows[-1] += (mean, log_variance)
    return [np.array(column) for column in zip(*rows, strict=True)]


def information(z, mean, log_variance):
    """What each sample tells of its row among all rows."""
    return np.mean(
        [
            density(z[i], mean[i], log_variance[i])
            - log_mean(density(z[i], mean, log_variance))
            for i in range(len(z))
        ]
    )


def test_figures_are_those_of_plain_computation(model, text, by_hand):
    found = evaluation.evaluate_latent(
        model, tokenizers.ByteTokenizer(), text, samples=SAMPLES, seed=7
    )
    reconstruction, kl, nll, z, mean, log_variance = by_hand
    tokens = sum(len(text.encode()) + 1 for text in TEXTS)
    expected = {
        "nll": nll.mean(),
        "elbo": -(reconstruction.mean() + kl.mean()),
        "reconstruction": reconstruction.mean(),
        "kl": kl.mean(),
        "mutual_information": information(z, mean, log_variance),
        "active_units": np.sum(mean.var(axis=0) > 0.01),
        "nats_per_token": nll.sum() / tokens,
        "perplexity": np.exp(nll.sum() / tokens),
    }
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=1e-4), name
    assert abs(found["mutual_information"]) > 0.01
    counts = {name: found[name] for name in ("num_texts", "num_tokens", "left_out")}
    assert counts == {"num_texts": 6, "num_tokens": tokens, "left_out": 0}


def test_small_memory_changes_nothing(model, text, by_hand, monkeypatch):
    def judged():
        return evaluation.evaluate_latent(
            model, tokenizers.ByteTokenizer(), text, samples=SAMPLES, seed=7
        )

    whole = judged()
    monkeypatch.setattr("keras_llm.evaluation.latent_model._LOGITS", 2 * 257 * 16)
    assert judged() == pytest.approx(whole, rel=1e-5)
    # But for the estimate whose pairs are many: it is made among half of the texts.
    monkeypatch.setattr("keras_llm.evaluation.latent_model._PAIRS", 3 * 3 * Z)
    halves = [information(*(x[i : i + 3] for x in by_hand[3:])) for i in (0, 3)]
    expected = {**whole, "mutual_information": np.mean(halves)}
    assert judged() == pytest.approx(expected, rel=1e-4)


def test_what_is_too_long_is_cut_and_counted(model, text):
    found = evaluation.evaluate_latent(
        model, tokenizers.ByteTokenizer(), text, samples=1, context=4
    )
    assert found["num_tokens"] == 3 + 4 + 3 + 4 + 4 + 2
    assert found["left_out"] == 2 + 3 + 4


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"samples": 0}, "`samples` must be positive"),
        ({"seed": -1}, "`seed` must be at least 0"),
        ({"context": 0}, "`context` must lie from 1"),
        ({"active_variance": float("nan")}, "`active_variance`"),
    ],
)
def test_bad_arguments_are_refused(model, text, fields, said):
    with pytest.raises(ValueError, match=said):
        evaluation.evaluate_latent(model, tokenizers.ByteTokenizer(), text, **fields)


def test_no_text_is_refused(model, tmp_path):
    (tmp_path / "none.txt").write_text("")
    with pytest.raises(data.DataError):
        evaluation.evaluate_latent(
            model, tokenizers.ByteTokenizer(), str(tmp_path / "none.txt")
        )


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory):
    """Returns the model's folder."""
    folder = tmp_path_factory.mktemp("models") / "vae"
    models.save(model, folder, tokenizers.ByteTokenizer())
    return folder


def test_the_command_prints_the_same_figures(folder, model, text):
    run = forked.run(
        "scripts/evaluate.py", f"--model={folder}", f"--text={text}", "--samples=3",
        "--seed=5", "--json",
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    expected = evaluation.evaluate_latent(
        model, tokenizers.ByteTokenizer(), text, samples=3, seed=5
    )
    assert json.loads(run.stdout) == pytest.approx(expected, rel=1e-5)


def test_other_models_draw_no_latents(folder, text, tmp_path):
    lstm = models.LSTMLMConfig(vocab_size=257, embedding_width=4, units=5, num_layers=1)
    models.save(models.build(lstm), tmp_path / "lm", tokenizers.ByteTokenizer())
    for place, flags, message in (
        (tmp_path / "lm", ["--samples=3"], "--samples must be left out"),
        (folder, ["--add_separators"], "--add_separators must be left out"),
    ):
        run = forked.run(
            "scripts/evaluate.py", f"--model={place}", f"--text={text}", *flags
        )
        assert run.returncode == 1 and message in run.stderr, run.stderr
