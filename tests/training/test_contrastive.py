"""The task "contrastive": its loss written out in NumPy, replicas, whole runs."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_llm import data, models, tokenizers, training
from keras_llm.training import Contrastive, Experiment, TrainConfig
from tests.json_lines import write

WORDS = "whale sea ship captain harpoon storm island mast sail crew".split()
ASKED = "what is a the {} tell me about".split()
BERT = models.BertConfig(
    head="embed",
    pooling="mean",
    width=12,
    num_layers=1,
    num_heads=2,
    max_positions=16,
    dropout=0.0,
)


@functools.cache
def tokenizer():
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    # "answer3" stands for what is said of the fourth word and of nothing else.
    answers = [f"answer{i}" for i in range(len(WORDS))]
    return tokenizers.WordPieceTokenizer([*special, *WORDS, *ASKED, *answers])


def pairs():
    frames = ("what is a {}", "tell me about the {}", "the {}", "{}", "about {} tell")
    return [
        {"text": frame.format(word), "text_pair": f"the answer{i} {frame[:4]}"}
        for frame in frames
        for i, word in enumerate(WORDS)
    ]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder, examples = tmp_path_factory.mktemp("pairs"), pairs()
    valid = write(folder / "valid.jsonl", examples[-11:])
    return write(folder / "train.jsonl", examples[:-10]), valid


def experiment(model=BERT, task=None, rows=6, **changes):
    train = {"steps": 3, "learning_rate": 0.02, "jit": "off", "eval_every": 0}
    return Experiment(
        model=model,
        task=task or Contrastive(),
        data=data.DataConfig(context=16, batch_size=rows),
        train=TrainConfig(**{**train, **changes}),
    )


def filled_batches(subject, *files):
    subject = subject.task.fill_in(subject, tokenizer(), files[0])
    team = training.workers(tf.distribute.get_strategy())
    return subject, subject.task.batches(subject, *files, tokenizer(), team)


def built(config, seed=5):
    """Returns a model with weights large enough that vectors differ."""
    model, rng = models.build(config), np.random.default_rng(seed)
    for weight in model.weights:
        if len(weight.shape) == 2:
            weight.assign(rng.normal(0, 0.5, weight.shape))
    return model


def loss_by_hand(asking, partners, pairs, group, temperature):
    """Returns each pair's loss and whether its partner is nearest, one by one."""
    losses, nearest = [], []
    for i, vector in enumerate(asking):
        first = i // group * group
        mine = partners[i] @ vector / temperature
        scores = [mine]
        for j in range(first, min(first + group, len(asking))):
            if all(pairs[j][side] != pairs[i][side] for side in ("text", "text_pair")):
                scores.append(partners[j] @ vector / temperature)
        losses.append(np.log(np.sum(np.exp(np.array(scores) - mine))))
        nearest.append(all(mine > other for other in scores[1:]))
    return np.array(losses), np.array(nearest, float)


def unit(vectors):
    vectors = np.asarray(vectors, np.float64)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def vectors_of(model, texts):
    """Returns the unit vectors of texts, one text at a time, nothing padded."""
    found = []
    for text in texts:
        rows = tokenizers.EncoderRows(tokenizer())([text.encode()], None, limit=16)
        inputs = {name: getattr(rows, name) for name in ("token_ids", "segment_ids")}
        found.append(np.asarray(model({**inputs, "lengths": rows.lengths}))[0])
    return unit(found)


@pytest.mark.parametrize(("group", "temperature"), [(None, 0.3), (3, 0.07)])
def test_the_loss_is_the_formulas(tmp_path, group, temperature):
    examples = pairs()[3:9]
    # Of one text, which then is no wrong answer for the other; and of one question.
    examples[1]["text_pair"] = examples[2]["text_pair"]
    examples[3]["text"] = examples[5]["text"]
    path = write(tmp_path / "pairs.jsonl", examples)
    task = Contrastive(group=group, temperature=temperature)
    subject = experiment(task=task)
    subject = subject.replace(data=subject.data.replace(shuffle=False))
    subject, (batches, _) = filled_batches(subject, path, path)
    model = built(subject.model)
    batch = {name: tf.constant(x) for name, x in batches.batch(0).items()}
    summed_loss = task.objective(model, subject.train, rows=6).summed_loss
    found = summed_loss(batch, 0)
    compiled = tf.function(summed_loss, jit_compile=True, autograph=False)
    np.testing.assert_allclose(compiled(batch, 0), found, rtol=1e-5)
    asking = vectors_of(model, [e["text"] for e in examples])
    partners = vectors_of(model, [e["text_pair"] for e in examples])
    each, _ = loss_by_hand(asking, partners, examples, group or 6, temperature)
    assert each.min() > 1e-3 and each.std() > 0.05
    np.testing.assert_allclose(found, each.sum(), rtol=1e-5)


def test_judged_by_real_pairs_alone(files):
    """Eleven pairs in batches of six: a filled-up row is nobody's partner."""
    subject, (_, batches) = filled_batches(experiment(), *files)
    model = built(subject.model)
    strategy = tf.distribute.get_strategy()
    scores = subject.task.validator(strategy, model, batches)()
    examples = pairs()[-11:]
    asking, partners = (
        vectors_of(model, [e[side] for e in examples]) for side in ("text", "text_pair")
    )
    each, nearest = loss_by_hand(asking, partners, examples, 6, 0.05)
    assert scores.num_rows == 11
    np.testing.assert_allclose(scores.loss, each.mean(), rtol=1e-4)
    np.testing.assert_allclose(scores.metrics["accuracy"], nearest.mean(), rtol=1e-6)


def test_vectors_that_are_all_alike_find_nothing(files):
    subject, (_, batches) = filled_batches(experiment(), *files)
    model = models.build(subject.model)
    for weight in model.weights:
        weight.assign(tf.zeros_like(weight))
    scores = subject.task.validator(tf.distribute.get_strategy(), model, batches)()
    assert scores.metrics["accuracy"] == 0
    np.testing.assert_allclose(scores.loss, (6 * np.log(6) + 5 * np.log(5)) / 11, 1e-5)


def test_partners_are_found_after_training(files, tmp_path):
    keras.utils.set_random_seed(1)
    subject = experiment(rows=10, steps=60)
    result = training.train(
        subject, *files, tmp_path / "run", tokenizer=tokenizer(), progress=False
    )
    assert result.validation.metrics["accuracy"] > 0.9  # By chance: 0.1.
    assert result.validation.loss < 0.5


def test_two_replicas_learn_as_one_does(files, tmp_path, two_replicas, eagerly):
    subject = experiment(task=Contrastive(group=3), steps=3, accumulation=2)
    given = {"tokenizer": tokenizer(), "progress": False}
    one = training.train(subject, *files, tmp_path / "one", **given)
    two = training.train(
        subject, *files, tmp_path / "two", strategy=two_replicas, **given
    )
    for a, b in zip(
        models.load(tmp_path / "one" / "last").get_weights(),
        models.load(tmp_path / "two" / "last").get_weights(),
        strict=True,
    ):
        np.testing.assert_allclose(a, b, atol=2e-5)
    assert one.validation.loss == pytest.approx(two.validation.loss, rel=1e-4)


@pytest.mark.parametrize(
    ("subject", "message"),
    [
        (
            experiment(BERT.replace(head="masked_lm", pooling="first")),
            "the head 'embed'",
        ),
        (experiment(models.GPT2Config(width=8, num_heads=2)), "architectures bert"),
        (experiment(task=Contrastive(group=4)), "without a rest"),
        (experiment(rows=1), "two rows or more"),
    ],
)
def test_what_does_not_fit_is_refused(files, subject, message):
    with pytest.raises(ValueError, match=message):
        filled_batches(subject, *files)


def test_smoothing_and_groups_across_replicas_are_refused(two_replicas):
    model = built(BERT.replace(vocab_size=40))
    with pytest.raises(ValueError, match="no classes to smooth"):
        Contrastive().objective(model, TrainConfig(label_smoothing=0.1))
    with two_replicas.scope(), pytest.raises(ValueError, match="2 replicas"):
        Contrastive().objective(model, TrainConfig())
    with two_replicas.scope(), pytest.raises(ValueError, match="without a rest"):
        Contrastive(group=4).objective(model, TrainConfig(), rows=12)


def test_a_pair_without_its_partner_is_named_by_its_line(files, tmp_path):
    path = write(tmp_path / "pairs.jsonl", [pairs()[0], {"text": "the whale"}])
    with pytest.raises(data.DataError, match=r"'text_pair'.*pairs.jsonl:2"):
        filled_batches(experiment(), path, path)


def test_a_start_at_random_is_said(files, tmp_path, caplog):
    subject = experiment(steps=1)
    run = functools.partial(training.train, subject, *files, progress=False)
    run(tmp_path / "random", tokenizer=tokenizer())
    assert "starts from weights at random" in caplog.text
    caplog.clear()
    run(tmp_path / "random", resume=True)
    run(tmp_path / "tuned", init=tmp_path / "random" / "last")
    assert "at random" not in caplog.text
