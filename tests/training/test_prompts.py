"""Prompt tuning: what is read, what moves, whole runs and their resumption."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_llm import data, generation, models, tokenizers, training
from keras_llm.core import override
from tests.chat_tokenizer import chat_tokenizer
from tests.training.conftest import cut_back

V, P = 261, 5  # Two ids more than the tokenizer has.
MODEL = models.LlamaConfig(
    vocab_size=V, max_positions=96, width=16, num_layers=1, num_heads=2
)
PROMPT = models.PromptConfig(tokens=P)
VIRTUAL = list(range(V, V + P))
TALKS = [("say a", "a!"), ("say b", "bb!"), ("一", "one"), ("", "nothing")]
VECTORS = "token_embedding/prompt/vectors"


def messages(*said):
    roles = ["user", "assistant"] * len(said)
    return [
        {"role": role, "content": text} for role, text in zip(roles, said, strict=False)
    ]


@pytest.fixture(scope="module")
def talks(tmp_path_factory):
    path = tmp_path_factory.mktemp("talks") / "talks.jsonl"
    lines = [json.dumps({"messages": messages(*talk)}) for talk in TALKS * 6]
    path.write_text("\n".join(lines))
    return path


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    keras.utils.set_random_seed(3)
    folder = tmp_path_factory.mktemp("base") / "model"
    model = models.build(MODEL)
    for weight in model.weights:  # Or no prompt could move the logits far.
        if len(weight.shape) == 2:
            weight.assign(weight * 15)
    models.save(model, folder, chat_tokenizer())
    return folder


def experiment(adapter=PROMPT, separate=True, context=64, **train):
    train = {
        "steps": 6,
        "learning_rate": 0.1,
        "jit": "off",
        "weight_decay": 0.0,
    } | train
    return training.Experiment(
        model=MODEL,
        task=training.Chat(),
        data=data.DataConfig(
            context=context, batch_size=4, separate_documents=separate
        ),
        train=training.TrainConfig(**train),
        adapter=adapter,
    )


def batches(subject, talks):
    """Returns the training batches that a run of it reads."""
    return training.prepare_plan(subject, talks, chat_tokenizer())[1]


@pytest.mark.parametrize("separate", [True, False])
def test_every_conversation_begins_with_it(separate, talks):
    batch = batches(experiment(separate=separate, context=96), talks)
    plain = batches(experiment(None, separate, context=96), talks)
    rows = batch["token_ids"].tolist()
    if not separate:
        assert all(row[:P] == VIRTUAL for row in rows)
        # Behind it they are what they were.
        assert [row[P:] for row in rows] == [
            row[:-P] for row in plain["token_ids"].tolist()
        ]
        return
    found = [[i for i, token in enumerate(row) if token == 258] for row in rows]
    assert max(map(len, found)) > 1
    for row, starts in zip(rows, found, strict=True):
        for start in starts:
            assert row[start + 1 : start + 1 + P] == VIRTUAL
        assert sum(token >= V for token in row) == P * len(starts)


def test_it_is_never_a_target(talks):
    batch = batches(experiment(), talks)
    assert batch["targets"].max() < V
    ids = batch["token_ids"]
    assert not batch["weights"][:, :-1][ids[:, 1:] >= V].any()
    counted = batch["weights"][:, :-1] > 0
    np.testing.assert_array_equal(
        batch["targets"][:, :-1][counted], ids[:, 1:][counted]
    )


def test_no_text_becomes_one_of_its_ids(base, talks, tmp_path):
    training.train(experiment(steps=1), talks, None, tmp_path / "run", init=base)
    tokenizer = models.load_tokenizer(tmp_path / "run" / "best")
    spelt = "".join(map(chr, [*range(32, 300), *VIRTUAL])) + "<prompt> <|close|> 261"
    every_byte = bytes(range(256))
    ids = tokenizer.encode([spelt.encode(), every_byte]).values.numpy()
    assert ids.max() < 256
    encoder = tokenizers.ChatEncoder(tokenizer)
    rows = encoder.prompts([["user"]], [[spelt.encode()]])
    assert rows.values.numpy()[:P].tolist() == VIRTUAL
    assert rows.values.numpy()[P:].max() < V


def test_gradients_are_those_of_a_longer_table(base, talks):
    """By the loss as the step takes it, and by a plain model of V + P ids."""
    subject = experiment()
    batch = batches(subject, talks)
    given = {name: tf.constant(value) for name, value in batch.items()}
    model = models.load(base)
    models.add_adapter(model, PROMPT, seed=1)
    vectors = model.get_layer("token_embedding").prompt.vectors
    rng = np.random.default_rng(0)
    vectors.assign(rng.normal(0, 0.5, vectors.shape))
    long = models.build(MODEL.replace(vocab_size=V + P))
    own = {w.path: keras.ops.convert_to_numpy(w) for w in model.weights}
    for weight in long.weights:
        value = own[weight.path]
        if weight.path == "token_embedding/embeddings":
            value = np.concatenate([value, own[VECTORS]])
        elif weight.path == "head/kernel":
            value = np.pad(value, [(0, 0), (0, P)])
        weight.assign(value)
    table = long.get_layer("token_embedding").embeddings
    objective = subject.task.objective(model, subject.train)
    with tf.GradientTape() as tape:
        loss = objective.summed_loss(given, tf.constant(0, tf.int64))
    found = tf.convert_to_tensor(tape.gradient(loss, vectors.value))
    with tf.GradientTape() as tape:
        logits = long(given["token_ids"])[..., :V]
        each = tf.nn.sparse_softmax_cross_entropy_with_logits(given["targets"], logits)
        wanted_loss = tf.reduce_sum(each * given["weights"])
    wanted = tf.convert_to_tensor(tape.gradient(wanted_loss, table.value))[V:]
    np.testing.assert_allclose(loss, wanted_loss, rtol=1e-5)
    scale = float(tf.reduce_max(tf.abs(wanted)))
    assert scale > 1e-2
    np.testing.assert_allclose(found, wanted, atol=1e-4 * scale)


@pytest.mark.parametrize("separate", [True, False])
def test_it_learns_and_its_base_stays(separate, talks, base, tmp_path):
    before = (base / "model.safetensors").read_bytes()
    run = tmp_path / "run"
    subject = experiment(separate=separate, steps=60, eval_every=20, save_every=20)
    summary = training.train(subject, talks, None, run, progress=False, init=base)
    first = training.read_metrics(run / "metrics.jsonl")[0]["loss"]
    assert summary.best_loss < first - 0.3
    assert summary.parameters == P * 16
    assert (base / "model.safetensors").read_bytes() == before
    assert (run / "tokenizer" / "tokenizer.json").read_text() == (
        base / "tokenizer" / "tokenizer.json"
    ).read_text()
    # What is loaded is the base, bit by bit, and the vectors.
    model, plain = models.load(run / "best"), models.load(base)
    for weight in plain.weights:
        found = next(w for w in model.weights if w.path == weight.path)
        np.testing.assert_array_equal(found, weight)
    # And it replies as its ids say.
    generator = generation.Generator(model, models.load_tokenizer(run / "best"))
    talk = messages("say a")
    reply = generator.chat([talk], max_new_tokens=6)[0]
    bare = generation.Generator(plain, chat_tokenizer()).chat([talk], max_new_tokens=6)[
        0
    ]
    assert reply.prompt_tokens == bare.prompt_tokens + P
    assert reply.token_ids != bare.token_ids


def test_the_validation_loss_is_that_of_the_saved_model(talks, base, tmp_path):
    run = tmp_path / "run"
    subject = experiment(separate=False, steps=4)
    summary = training.train(subject, talks, talks, run, progress=False, init=base)
    model = models.load(run / "last")
    encoder = tokenizers.ChatEncoder(models.load_tokenizer(run / "last"))
    total = count = 0.0
    for said, reply in TALKS:
        made = encoder.conversations(
            tf.ragged.constant([["user", "assistant"]]),
            tf.ragged.constant([[said.encode(), reply.encode()]]),
        )
        ids, marks = made.ids.numpy(), made.is_reply.numpy()[:, 1:]
        log_probs = tf.nn.log_softmax(model(ids[:, :-1]))
        targets = np.minimum(ids[:, 1:], V - 1)
        total -= (tf.gather(log_probs, targets, batch_dims=2) * marks).numpy().sum()
        count += marks.sum()
    assert summary.validation.loss == pytest.approx(total / count, rel=1e-5)


def test_a_run_goes_on_exactly(talks, base, tmp_path):
    subject = experiment(steps=6, save_every=2, eval_every=2, log_every=1)
    straight, broken = tmp_path / "straight", tmp_path / "broken"
    training.train(subject, talks, None, straight, progress=False, init=base)
    newest = max((straight / "checkpoints").iterdir())
    size = (newest / "arrays.safetensors").stat().st_size
    assert size < (base / "model.safetensors").stat().st_size
    cut_back(straight, broken, 2)
    training.train(subject, talks, None, broken, resume=True, progress=False)
    for name in ("last", "best"):
        one, other = (run / name / "adapter.safetensors" for run in (straight, broken))
        assert one.read_bytes() == other.read_bytes()
    longer = experiment(PROMPT.replace(tokens=P + 1))
    with pytest.raises(ValueError, match=r"adapter\.tokens=6, begun with 5"):
        training.train(longer, talks, None, broken, resume=True, progress=False)


def test_two_replicas_learn_what_one_does(talks, base, tmp_path, two_replicas):
    subject = experiment(steps=3)
    found = []
    for name, strategy in (("one", None), ("two", two_replicas)):
        run = tmp_path / name
        training.train(
            subject, talks, None, run, progress=False, init=base, strategy=strategy
        )
        table = models.load(run / "last").get_layer("token_embedding")
        found.append(keras.ops.convert_to_numpy(table.prompt.vectors))
    np.testing.assert_allclose(found[1], found[0], rtol=1e-4, atol=1e-5)


def test_a_plan_counts_it(talks):
    planned = [
        training.plan(*training.prepare_plan(each, talks, chat_tokenizer()))
        for each in (experiment(separate=False), experiment(None, separate=False))
    ]
    assert planned[0].parameters == P * 16
    assert planned[0].slot_bytes < planned[1].slot_bytes / 2
    assert planned[0].tokens_per_step == planned[1].tokens_per_step + 4 * P
    assert planned[0].flops_per_token == pytest.approx(
        planned[1].flops_per_token * 2 / 3
    )
    subject, batch = training.prepare_plan(experiment(), talks, chat_tokenizer())
    assert training.measure_step(subject, batch, 1) > 0


def test_its_config_travels(talks):
    subject = experiment()
    plain = subject.to_dict()
    assert json.loads(json.dumps(plain))["adapter"]["kind"] == "prompt"
    assert training.Experiment.from_dict(plain) == subject
    assert override(subject, {"adapter.tokens": "9"}).adapter.tokens == 9
    low_rank = experiment(models.AdapterConfig(rank=3))
    assert training.Experiment.from_dict(low_rank.to_dict()) == low_rank


def test_a_prompt_and_its_tokenizer_belong_together(talks, base, tmp_path):
    training.train(experiment(steps=1), talks, None, tmp_path / "run", init=base)
    own = tmp_path / "run" / "best"
    for model, tokenizer in ((own, base), (base, own)):
        generator = generation.Generator(
            models.load(model), models.load_tokenizer(tokenizer)
        )
        with pytest.raises(ValueError, match="Take both from one folder"):
            generator.chat([messages("hi")])
    # What it is not for, it leaves alone.
    texts = [
        generation.Generator(models.load(each), models.load_tokenizer(each))
        .generate(["a"], max_new_tokens=5)[0]
        .token_ids
        for each in (own, base)
    ]
    assert texts[0] == texts[1]


def test_what_is_refused(talks, base, tmp_path):
    subject = experiment()
    for task in (
        training.LanguageModel(),
        training.Preferences(reference=str(base)),
    ):
        with pytest.raises(ValueError, match="by the task 'chat'"):
            subject.replace(task=task)
    with pytest.raises(ValueError, match=r"adapter\.tokens=64, data\.context=64"):
        experiment(PROMPT.replace(tokens=64))
    with pytest.raises(ValueError, match="they would be the base's"):
        experiment(sample_prompts=("a",))
    with pytest.raises(ValueError, match="no model to start from"):
        training.train(subject, talks, None, tmp_path / "none")
    assert not (tmp_path / "none").exists()
    training.train(experiment(steps=1), talks, None, tmp_path / "run", init=base)
    own = str(tmp_path / "run" / "best")
    with pytest.raises(ValueError, match="is an adapter of"):
        training.train(
            experiment(None), talks, None, tmp_path / "again", progress=False, init=own
        )
    pairs = tmp_path / "pairs.jsonl"
    pair = {"messages": messages("a"), "chosen": "b", "rejected": "c"}
    pairs.write_text("\n".join([json.dumps(pair)] * 9))
    preferences = experiment(None).replace(task=training.Preferences(reference=own))
    with pytest.raises(ValueError, match="is an adapter of"):
        training.train(preferences, pairs, None, tmp_path / "preferred", init=base)
