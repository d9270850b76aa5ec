"""The task "text_vae": rows, the loss that is minimised, collapse."""

import json

import numpy as np
import pytest
import tensorflow as tf

from keras_llm import data, models, tokenizers, training
from keras_llm.ops import elbo
from keras_llm.training import Experiment, TextVAE, TrainConfig
from keras_llm.training.replicas import Workers

FIRST, SECOND = ("ab", "cd", "ef", "gh"), ("op", "qr", "st", "uv", "wx")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Returns the same texts as lines of a plain file and as JSON lines."""
    folder = tmp_path_factory.mktemp("texts")
    texts = [a + b for a in FIRST for b in SECOND] * 3
    plain, lines = folder / "texts.txt", folder / "texts.jsonl"
    plain.write_text("\n".join(texts) + "\n")
    lines.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return plain, lines


def experiment(task=None, posterior="gaussian", **changes):
    defaults = {
        "steps": 120, "learning_rate": 1e-2, "jit": "off", "log_every": 60,
        "eval_every": 0, "save_every": 0,
    }  # fmt: skip
    return Experiment(
        model=models.TextVAEConfig(
            latent_dim=3, width=16, posterior=posterior, start_id=256
        ),
        task=task or TextVAE(),
        tokenizer=training.TokenizerConfig(kind="byte"),
        data=data.DataConfig(context=7, batch_size=20, shuffle=False),
        train=TrainConfig(**{**defaults, **changes}),
    )


def first_batch(config, file):
    tokenizer = tokenizers.ByteTokenizer()
    filled = config.task.fill_in(config, tokenizer, file)
    rows, _ = config.task.batches(filled, file, file, tokenizer, Workers(1, 0))
    return filled, next(rows)


def test_a_line_is_a_row_in_either_form(files):
    made = [first_batch(experiment(), file)[1] for file in files]
    for name, array in made[0].items():
        np.testing.assert_array_equal(array, made[1][name], err_msg=name)
    batch = made[0]
    assert batch["source_ids"][0].tolist() == [*b"abop", 256, 0, 0]
    assert batch["token_ids"][0, :5].tolist() == [256, *b"abop"]
    assert batch["weights"].sum(axis=1).tolist() == [5.0] * 20


def test_the_loss_counts_real_rows_alone(files):
    task = TextVAE(beta_schedule="linear", beta_steps=8, beta=2.0)
    filled, batch = first_batch(experiment(task), files[0])
    for name in ("weights", "source_lengths"):
        batch[name] = np.where(np.arange(20) < 13, batch[name].T, 0).T
    model = models.build(filled.model)
    # A narrow posterior: what is drawn is its mean, and the KL is large.
    for weight in model.trainable_weights:
        if "log_variance" in weight.path:
            weight.assign(np.full(weight.shape, -30.0 * weight.path.endswith("bias")))
    tensors = {name: tf.convert_to_tensor(array) for name, array in batch.items()}
    summed = task.objective(model, filled.train).summed_loss
    outputs = model({name: tensors[name] for name in model.input}, training=False)
    kl = outputs["kl"].numpy()[:13].astype("float64").sum()
    logits = outputs["logits"].numpy().astype("float64")
    chosen = np.take_along_axis(logits, batch["targets"][..., None], 2)[..., 0]
    nll = (np.log(np.exp(logits).sum(axis=2)) - chosen) * batch["weights"]
    assert kl > 0.4 * nll.sum()
    for step, beta in ((0, 0.0), (3, 0.75), (99, 2.0)):
        value = float(summed(tensors, tf.constant(step, tf.int64)))
        np.testing.assert_allclose(value, nll.sum() + beta * kl, rtol=3e-3)


def test_a_floor_under_the_kl_counts_it_once_it_is_above():
    low, high = TextVAE(free_bits=2.0), TextVAE(free_bits=0.0)
    kl = tf.constant([[0.5, 3.0], [1.5, 5.0]])  # Means by dimension: 1 and 4.
    nll, real = tf.constant([7.0, 11.0]), tf.ones(2)

    def loss(task):
        parts = (task.free_bits, task.free_bits_per, real)
        return float(elbo.batch_loss(nll, kl, task.beta_at(0), *parts))

    assert loss(high) == pytest.approx(18 + 10)
    assert loss(low) == pytest.approx(18 + 2 * (2 + 4))


def test_a_heavy_kl_makes_the_posterior_collapse(files, tmp_path):
    config = experiment(TextVAE(beta=3.0))
    summary = training.train(config, *files, tmp_path / "run", progress=False)
    found = summary.validation.to_dict()
    assert found["kl"] < 0.1
    assert found["active_units"] == 0
