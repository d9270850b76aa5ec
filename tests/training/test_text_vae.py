"""The task "text_vae": rows, the loss that is minimised, collapse."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_llm import data, models, tokenizers, training
from keras_llm.ops import elbo
from keras_llm.training import Experiment, TextVAE, TrainConfig
from keras_llm.training.replicas import Spreader, Workers
from tests.eager_functions import op_by_op
from tests.training.conftest import cut_back

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


def narrow_model(config):
    """Returns a model whose posterior is narrow: what is drawn is its mean, nearly, and
    the KL is large."""
    keras.utils.set_random_seed(4)
    model = models.build(config)
    for weight in model.trainable_weights:
        if "log_variance" in weight.path:
            weight.assign(np.full(weight.shape, -30.0 * weight.path.endswith("bias")))
    return model


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
    model = narrow_model(filled.model)
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


@pytest.mark.parametrize(
    ("posterior", "free_bits", "least"),
    # Batch norm: 3 * 0.6**2 / 2 nats, less what the running statistics lag behind.
    [("gaussian", 0.5, 0.8), ("batch_norm", 0.0, 0.3)],
)
def test_a_floor_and_batch_norm_keep_it_alive(
    files, tmp_path, posterior, free_bits, least
):
    task = TextVAE(beta=3.0, free_bits=free_bits)
    config = experiment(task, posterior)
    summary = training.train(config, *files, tmp_path / "run", progress=False)
    found = summary.validation.to_dict()
    assert found["kl"] > least
    assert found["active_units"] >= 1


def stepper(files, task, jit="off", micro_batches=1, strategy=None):
    """Returns the function that takes the step of a number.

    It returns loss and gradient norm, and the weights by name before and after.
    """
    strategy = strategy or tf.distribute.get_strategy()
    filled, batch = first_batch(experiment(task, jit=jit), files[0])
    train = filled.train.replace(accumulation=micro_batches)
    with strategy.scope():
        model = narrow_model(filled.model)
    step = training.make_step(model, train, strategy, task=task)
    rows = len(batch["weights"]) // micro_batches
    shaped = {
        name: array.reshape(1, micro_batches, rows, *array.shape[1:])
        for name, array in batch.items()
    }
    spread = Spreader(strategy, rows)

    def weights():
        return {w.path: np.array(w.numpy()) for w in model.trainable_variables}

    def take(number):
        before = weights()
        result = step.run(tf.constant(number, tf.int64), spread(shaped, axis=2))
        figures = [float(result.loss[0]), float(result.gradient_norm[0])]
        return figures, before, weights()

    return take


AHEAD = TextVAE(aggressive_steps=9, aggressive_ratio=2)


@pytest.fixture(scope="module")
def compiled(files):
    """Returns what steps of some numbers gave, taken in turn as one XLA program."""
    take = stepper(files, AHEAD, jit="full", micro_batches=2)
    return {number: take(number) for number in (0, 1, 2, 3, 5, 9, 10)}


def test_a_step_is_the_same_however_it_is_run(files, two_replicas, compiled):
    with op_by_op():
        expected, _, _ = stepper(files, AHEAD)(0)
        spread = stepper(files, AHEAD, strategy=two_replicas)(0)
    for way, (found, before, after) in {"full": compiled[0], "spread": spread}.items():
        # What noise is left differs.
        np.testing.assert_allclose(found, expected, rtol=1e-2, err_msg=way)
        for name in ("token_embedding/embeddings", "head/kernel"):
            np.testing.assert_array_equal(after[name], before[name])


def test_the_encoder_runs_ahead_of_the_decoder(compiled):
    for number, (_, before, after) in compiled.items():
        for name, value in after.items():
            rests = number in (0, 1, 3) and not name.startswith(
                ("encoder_", "posterior/")
            )
            moved = not np.array_equal(value, before[name])
            # A narrow posterior's raw log-variance has no slope to speak of.
            assert moved != rests or "log_variance" in name, (number, name)
    assert sum(name.startswith("encoder_") for name in after) > 2


def test_a_run_resumes_in_the_middle_of_its_schedule(files, tmp_path, eagerly):
    """Of which weights move, and of how much the KL counts."""
    task = TextVAE(
        aggressive_steps=5, aggressive_ratio=2, free_bits=0.3,
        beta_schedule="linear", beta_steps=6,
    )  # fmt: skip
    config = experiment(task, "batch_norm", steps=6, save_every=4)
    # Of twenty texts in turn, every batch would be the same.
    config = config.replace(data=config.data.replace(batch_size=12))
    whole = training.train(config, *files, tmp_path / "a", progress=False)
    cut_back(tmp_path / "a", tmp_path / "b", 4)
    again = training.train(config, *files, tmp_path / "b", resume=True, progress=False)
    assert again.validation.to_dict() == whole.validation.to_dict()
    assert again.train_loss == whole.train_loss


@pytest.mark.parametrize(
    "fields", [{"aggressive_steps": -1}, {"aggressive_ratio": 0}], ids=str
)
def test_aggressive_training_needs_whole_numbers(fields):
    ((name, value),) = fields.items()
    with pytest.raises(ValueError, match=f"`{name}` .*Received: {name}={value}"):
        TextVAE(**fields)
