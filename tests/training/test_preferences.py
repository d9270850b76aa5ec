"""Preferences beside their formula, written out over whole log probabilities."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_llm import data, models, training
from tests.chat_tokenizer import chat_tokenizer

MODEL = models.LlamaConfig(
    vocab_size=259, max_positions=96, width=16, num_layers=1, num_heads=2
)
CONTEXT = 64
# The preferred reply says back what was asked for.
WORDS = ["ab", "cd", "efg", "hi", "jk", "lmn", "o", "pqr"]


def lines():
    return [
        {
            "messages": [{"role": "user", "content": f"say {word}"}],
            "chosen": f"{word}!",
            "rejected": f"{other}?",
        }
        for word in WORDS
        for other in WORDS
        if word != other
    ]


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    path = tmp_path_factory.mktemp("pairs") / "pairs.jsonl"
    path.write_text("\n".join(map(json.dumps, lines())))
    return path


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    keras.utils.set_random_seed(3)
    folder = tmp_path_factory.mktemp("base") / "model"
    model = models.build(MODEL)
    for weight in model.weights:
        if len(weight.shape) == 2:
            weight.assign(weight * 8)
    models.save(model, folder, chat_tokenizer())
    return folder


def experiment(base, adapter=None, beta=0.3, **train):
    train = {"steps": 30, "learning_rate": 0.01, "jit": "off"} | train
    return training.Experiment(
        model=MODEL,
        task=training.Preferences(reference=str(base), beta=beta),
        data=data.DataConfig(context=CONTEXT, batch_size=4),
        train=training.TrainConfig(**train),
        adapter=adapter,
    )


def filled_batches(subject, pairs):
    subject = subject.task.fill_in(subject, chat_tokenizer(), pairs)
    team = training.workers(tf.distribute.get_strategy())
    return subject, subject.task.batches(subject, pairs, None, chat_tokenizer(), team)


def log_probs_by_hand(model, batch):
    """Returns log p [R, 2] of the marked targets, differentiable, in one piece."""
    rows, _, time = batch["token_ids"].shape
    logits = model(tf.reshape(batch["token_ids"], (-1, time)))
    each = tf.gather(
        tf.nn.log_softmax(logits), batch["targets"].reshape(-1, time), batch_dims=2
    )
    return tf.reduce_sum(tf.reshape(each, (rows, 2, time)) * batch["marks"], axis=-1)


def test_the_reference_is_the_log_probability_of_the_reply(base, pairs):
    subject, (batches, _) = filled_batches(experiment(base), pairs)
    batch = batches.batch(0)
    wanted = log_probs_by_hand(models.load(base), batch)
    np.testing.assert_allclose(batch["reference"], wanted, rtol=1e-5)
    ids, marks = batch["targets"][0], batch["marks"][0]
    replies = [
        bytes(i for i in row[m > 0] if i < 256)
        for row, m in zip(ids, marks, strict=True)
    ]
    assert replies[0].endswith(b"!") and replies[1].endswith(b"?")
    # The same prompt, and the reply's end counts.
    begin = int(np.argmax(marks[0] > 0))
    np.testing.assert_array_equal(ids[0, :begin], ids[1, :begin])
    assert marks[0].sum() == len(replies[0]) + 1


def test_loss_and_gradient_are_those_of_the_formula(base, pairs):
    subject, (batches, _) = filled_batches(experiment(base), pairs)
    batch = batches.batch(0)
    model = models.load(base)
    rng = np.random.default_rng(0)
    for weight in model.trainable_weights:  # Away from the reference, where z is 0.
        weight.assign(weight + rng.normal(0, 0.05, weight.shape))
    objective = subject.task.objective(model, subject.train)
    weights = [weight.value for weight in model.trainable_weights]
    given = {name: tf.constant(value) for name, value in batch.items()}
    with tf.GradientTape(persistent=True) as tape:
        loss = objective.summed_loss(given, tf.constant(0))
        gain = log_probs_by_hand(model, batch) - batch["reference"]
        z = 0.3 * (gain[:, 0] - gain[:, 1])
        wanted = -tf.reduce_sum(tf.math.log(tf.sigmoid(z)))
    assert np.abs(z).max() > 0.05
    np.testing.assert_allclose(loss, wanted, rtol=1e-5)
    pairs_of = zip(
        tape.gradient(loss, weights), tape.gradient(wanted, weights), strict=True
    )
    for ours, theirs in pairs_of:
        scale = float(tf.reduce_max(tf.abs(theirs))) or 1.0
        difference = tf.convert_to_tensor(ours) - tf.convert_to_tensor(theirs)
        assert float(tf.reduce_max(tf.abs(difference))) < 1e-4 * scale


@pytest.mark.parametrize(
    "adapter", [None, models.AdapterConfig(rank=4, targets=r"block_\d+/")]
)
def test_what_is_preferred_is_learnt(base, pairs, adapter, tmp_path):
    run = tmp_path / "run"
    subject = experiment(base, adapter, learning_rate=0.02)
    result = training.train(subject, pairs, None, run, init=str(base), progress=False)
    figures = result.validation.figures()
    assert set(figures) == {"loss", "accuracy", "margin"}
    assert figures["loss"] < 0.6 * np.log(2)  # log 2 says nothing is preferred.
    assert figures["accuracy"] > 0.8 and figures["margin"] > 0.5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rejected": "ab!"}, "must differ"),
        ({"messages": [{"role": "assistant", "content": "x"}]}, "user and assistant"),
        ({"chosen": 3}, "chosen"),
    ],
)
def test_bad_pairs_are_named_by_their_line(base, tmp_path, change, message):
    path = tmp_path / "pairs.jsonl"
    path.write_text("\n".join(map(json.dumps, [lines()[0], lines()[0] | change])))
    with pytest.raises(data.DataError, match=f"(?s)2.*{message}|{message}.*2"):
        filled_batches(experiment(base), path)


def test_what_does_not_fit_is_refused(base, pairs):
    with pytest.raises(ValueError, match="beside a reference model"):
        filled_batches(experiment(""), pairs)
    subject = experiment(base, label_smoothing=0.1)
    with pytest.raises(ValueError, match="no classes to smooth"):
        subject.task.objective(models.load(base), subject.train)
