"""Masked language modelling and replaced-token detection, from text to scores."""

import pathlib

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_llm import data, models, tokenizers, training
from keras_llm.training import (
    Experiment,
    MaskedLanguageModel,
    ReplacedTokens,
    TokenizerConfig,
    TrainConfig,
)
from keras_llm.training.replicas import Spreader, Workers
from tests.eager_functions import op_by_op
from tests.training.conftest import cut_back

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
PIECES = tokenizers.WordPieceTokenizer([*SPECIAL, *"abcdefgh"])
V, T, R = PIECES.vocab_size, 13, 4
POEMS = pathlib.Path(__file__).parents[2] / "testdata" / "tang_poems.txt"
TASKS = {
    "bert": MaskedLanguageModel(mask_rate=0.3),
    "electra": ReplacedTokens(mask_rate=0.3, discriminator_weight=3.0),
}
SIZES = {"num_layers": 1, "max_positions": 17, "num_heads": 2}
both = pytest.mark.parametrize("name", ["bert", "electra"])


def model_config(name, **changes):
    if name == "bert":
        return models.BertConfig(**{"width": 10, **SIZES, **changes})
    sizes = {"width": 12, "embedding_width": 6, "generator_fraction": 0.5}
    return models.ElectraConfig(**{**sizes, **SIZES, **changes})


def experiment(name, tokenizer="wordpiece", **changes):
    settings = {"learning_rate": 0.03, "schedule": "constant", "clip_norm": None}
    return Experiment(
        model=model_config(name, dropout=0.0),
        task=TASKS[name],
        tokenizer=TokenizerConfig(kind=tokenizer, vocab_size=60),
        data=data.DataConfig(context=T, batch_size=8, separate_documents=False),
        train=TrainConfig(
            **{
                **settings,
                "jit": "off",
                "log_every": 1,
                "eval_every": 0,
                "save_every": 0,
                **changes,
            }
        ),
    )


def built(name):
    """Returns a small model without dropout, whose generator always draws one id."""
    keras.utils.set_random_seed(5)
    model = models.build(model_config(name, vocab_size=V, dropout=0.0))
    rng = np.random.default_rng(3)
    for weight in model.weights:
        scale = 1.0 * weight.path.endswith("scale")
        weight.assign(rng.normal(scale, 0.3, weight.shape))
    if name == "electra":
        (bias,) = [w for w in model.weights if w.path.endswith("output_bias")]
        # No random number is as near 1 as to draw another id.
        bias.assign(40.0 * (np.arange(V) == 7))
    return model


def micro_batches(name, steps, number, rows=R):
    """Returns batches [S, K, R, ...] of rows of all lengths, and one of padding."""
    rng = np.random.default_rng(7)
    count = steps * number * rows
    ids = rng.integers(4, V, (count, T - 2)).astype("int32")
    ids[ids == 4] = 3  # Separators.
    lengths = rng.integers(2, T - 2, count)
    lengths[1] = 0
    weights = (np.arange(T - 2) < lengths[:, None]).astype("float32")
    share = 0.8 if name == "bert" else 1.0
    masking = data.TokenMasking(PIECES, 0.3, mask_share=share, random_share=0.0)
    batch = masking({"token_ids": ids, "weights": weights}, np.arange(count))
    assert batch["lengths"].min() == 0 < batch["lengths"].max()
    shape = (steps, number, rows)
    return {n: v.reshape(*shape, *v.shape[1:]) for n, v in batch.items()}


def run(name, batch, strategy=None, **options):
    """Trains on S steps; returns results and weights.

    Gradients that are 0 but for rounding, as a key's bias has, stay small beside
    this epsilon.
    """
    strategy = strategy or tf.distribute.get_strategy()
    _, number, rows, _ = batch["weights"].shape
    options = {"jit": "off", "epsilon": 1e-2, "learning_rate": 0.01, **options}
    config = TrainConfig(accumulation=number, **options)
    with strategy.scope():
        model = built(name)
    step = training.make_step(model, config, strategy, task=TASKS[name])
    spread = Spreader(strategy, rows)
    results = step.run(tf.constant(0, tf.int64), spread(batch, axis=2))
    weights = [keras.ops.convert_to_numpy(w) for w in model.trainable_variables]
    return [np.asarray(value) for value in results] + weights


def assert_same(one, other):
    for a, b in zip(one, other, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


@pytest.fixture(scope="module")
def plain():
    """Returns 3 steps on 8 rows at once, op by op, and their results, by model."""
    batches = {name: micro_batches(name, 3, 1, 8) for name in TASKS}
    with op_by_op():
        return {name: (batch, run(name, batch)) for name, batch in batches.items()}


@both
def test_two_replicas_equal_one(two_replicas, plain, name, eagerly):
    batch, wanted = plain[name]
    assert_same(run(name, batch, two_replicas), wanted)


@pytest.mark.parametrize("name, jit", [("bert", "off"), ("electra", "full")])
def test_accumulation_equals_one_large_batch(plain, name, jit):
    batch, wanted = plain[name]
    split = {n: v.reshape(3, 4, 2, *v.shape[3:]) for n, v in batch.items()}
    assert_same(run(name, split, jit=jit), wanted)


def log_softmax(logits):
    z = np.float64(logits)
    z = z - z.max(-1, keepdims=True)
    return z - np.log(np.exp(z).sum(-1, keepdims=True))


def one_batch(name):
    batch = {n: v[0, 0] for n, v in micro_batches(name, 1, 1, 7).items()}
    places = [
        (r, m, p)
        for r, row in enumerate(batch["masked_positions"].tolist())
        for m, p in enumerate(row)
        if p >= 0
    ]
    return batch, places


def read(model, batch, names):
    inputs = {name: batch[name] for name in names}
    inputs["segment_ids"] = 0 * batch["token_ids"]
    outputs = model({**inputs, "lengths": batch["lengths"]}, training=True)
    return tf.nest.map_structure(np.asarray, outputs)


def objective(name, model, **settings):
    summed = TASKS[name].objective(model, TrainConfig(**settings)).summed_loss

    def loss(batch):
        tensors = {n: tf.constant(v) for n, v in batch.items()}
        return float(summed(tensors, tf.constant(0, tf.int64)))

    return loss


def test_masked_loss_equals_a_loop_over_all_logits():
    model = built("bert")
    batch, places = one_batch("bert")
    logits = read(model, {**batch, "token_ids": batch["masked_ids"]}, ["token_ids"])
    smoothing, wanted = 0.1, 0.0
    for r, _, p in places:
        log_probs = log_softmax(logits[r, p])
        wanted -= 0.9 * log_probs[batch["token_ids"][r, p]]
        wanted -= smoothing * log_probs.mean()
    found = objective("bert", model, label_smoothing=smoothing)(batch)
    assert found == pytest.approx(wanted, rel=1e-5)
    assert batch["weights"].sum() == len(places)


ELECTRA_INPUTS = ["token_ids", "masked_ids", "masked_positions"]


def test_joint_loss_equals_a_loop_over_rows():
    model = built("electra")
    batch, places = one_batch("electra")
    outputs = read(model, batch, ELECTRA_INPUTS)
    wanted = 0.0
    for r, m, p in places:
        log_probs = log_softmax(outputs["generator_logits"][r, m])
        wanted -= log_probs[batch["token_ids"][r, p]]
    for r, length in enumerate(batch["lengths"].tolist()):
        losses = []
        for t in range(length):
            z = float(outputs["discriminator_logits"][r, t])
            corrupted = outputs["corrupted_ids"][r, t]
            # It draws id 7 alone.
            assert corrupted == (7 if (r, t) in masked(places) else corrupted)
            replaced = corrupted != batch["token_ids"][r, t]
            losses.append(np.logaddexp(0.0, -z if replaced else z))
        if length:
            wanted += 3.0 * batch["weights"][r].sum() * np.mean(losses)
    assert objective("electra", model)(batch) == pytest.approx(wanted, rel=1e-5)


def masked(places):
    return {(r, p) for r, _, p in places}


@pytest.fixture(scope="module")
def letters(tmp_path_factory):
    """Returns the path of a text of letters."""
    words = np.random.default_rng(11).choice(list("abcdefgh"), 300)
    path = tmp_path_factory.mktemp("letters") / "text.txt"
    path.write_text(" ".join(words))
    return path


def validation(name, letters, model, strategy):
    """Returns what the task's validator says of a text, and the text's batches."""
    task = TASKS[name]
    filled = task.fill_in(experiment(name), PIECES, letters)
    team = Workers(1, 0)
    _, batches = task.batches(filled, letters, letters, PIECES, team)
    return task.validator(strategy, model, batches)(), batches


@pytest.fixture(scope="module")
def judged(letters):
    """Returns by model: the model, its scores on one replica, and the batches."""
    found, alone = {}, tf.distribute.get_strategy()
    for name in TASKS:
        model = built(name)
        found[name] = model, *validation(name, letters, model, alone)
    return found


@both
def test_two_replicas_judge_as_one(two_replicas, letters, judged, name):
    _, one, _ = judged[name]
    with two_replicas.scope():
        model = built(name)
    two, _ = validation(name, letters, model, two_replicas)
    assert one.num_rows == two.num_rows == -(-300 // (T - 2))
    for figure, value in one.figures().items():
        assert two.figures()[figure] == pytest.approx(value, rel=1e-5)


def test_masked_scores_equal_a_loop(judged):
    model, scores, batches = judged["bert"]
    total = correct = count = 0
    for batch in batches:
        logits = read(model, {**batch, "token_ids": batch["masked_ids"]}, ["token_ids"])
        for r, row in enumerate(batch["masked_positions"].tolist()):
            for p in row:
                if p >= 0:
                    wanted = batch["token_ids"][r, p]
                    total -= log_softmax(logits[r, p])[wanted]
                    correct += logits[r, p].argmax() == wanted
                    count += 1
    assert count > 70
    assert scores.loss == pytest.approx(total / count, rel=1e-5)
    assert scores.metrics["accuracy"] == pytest.approx(correct / count)
    assert scores.metrics["perplexity"] == pytest.approx(np.exp(scores.loss))


def test_scores_of_finding_equal_a_loop(judged):
    model, scores, batches = judged["electra"]
    found = {(a, b): 0 for a in (False, True) for b in (False, True)}
    for batch in batches:
        outputs = read(model, batch, ELECTRA_INPUTS)
        for r, length in enumerate(batch["lengths"].tolist()):
            for t in range(length):
                replaced = outputs["corrupted_ids"][r, t] != batch["token_ids"][r, t]
                said = outputs["discriminator_logits"][r, t] > 0
                found[bool(replaced), bool(said)] += 1
    hits, missed, false = found[True, True], found[True, False], found[False, True]
    precision, recall = hits / (hits + false), hits / (hits + missed)
    metrics = scores.metrics
    assert 0 < metrics["precision"] == pytest.approx(precision)
    assert 0 < metrics["recall"] == pytest.approx(recall)
    assert metrics["f1"] == pytest.approx(2 * precision * recall / (precision + recall))
    assert scores.loss == pytest.approx(
        metrics["generator_loss"] + 3.0 * metrics["discriminator_loss"]
    )


def logged(run_dir, name="loss"):
    lines = training.read_metrics(run_dir / "metrics.jsonl")
    return [line[name] for line in lines if name in line]


@pytest.fixture(scope="module")
def runs_of_letters(tmp_path_factory):
    """Returns the path of a text in which a letter stands among its like."""
    path = tmp_path_factory.mktemp("runs") / "text.txt"
    path.write_text("".join(55 * f"{letter} " for letter in 6 * "abcde"))
    return path


WHOLE = {"steps": 60, "eval_every": 20, "save_every": 17}


@pytest.fixture(scope="module", params=["bert", "electra"])
def finished(request, tmp_path_factory, runs_of_letters):
    """Returns a model's name and a run of it that went to its end."""
    run_dir = tmp_path_factory.mktemp("masked") / request.param
    summary = training.train(
        experiment(request.param, **WHOLE),
        runs_of_letters,
        runs_of_letters,
        run_dir,
        progress=False,
    )
    return request.param, run_dir, summary


def test_the_loss_falls_below_what_the_frequencies_give(finished):
    """Five letters, equally frequent: whoever looks at no other token has log 5."""
    name, run_dir, summary = finished
    assert logged(run_dir)[0] > 1.2 * np.log(5)
    figure = "loss" if name == "bert" else "generator_loss"
    assert summary.validation.figures()[figure] < 0.85 * np.log(5)
    # Every row is full but the last.
    assert 59 * 8 * T < summary.tokens <= 60 * 8 * T


def test_resumed_midway_equals_a_run_in_one_go(finished, runs_of_letters, tmp_path):
    """Position and the generator's draws are those of the whole run."""
    name, whole, summary = finished
    cut_back(whole, tmp_path / "run", 51)
    keras.utils.set_random_seed(99)  # Nothing may hang on the global state.
    again = training.train(
        experiment(name, **WHOLE),
        runs_of_letters,
        runs_of_letters,
        tmp_path / "run",
        resume=True,
        progress=False,
    )
    assert logged(tmp_path / "run") == logged(whole)
    assert again.validation == summary.validation


def test_chinese_is_learnt_from_character_by_character(eagerly):
    config = TokenizerConfig(kind="wordpiece", vocab_size=6_000)
    tokenizer = training.train_tokenizer(config, POEMS, data.TextConfig())
    task = MaskedLanguageModel(whole_words=True)
    chinese = experiment("bert").replace(task=task, tokenizer=config)
    filled = task.fill_in(chinese, tokenizer, POEMS)
    batches, _ = task.batches(filled, POEMS, None, tokenizer, Workers(1, 0))
    batch = next(batches)
    assert (batch["weights"] == 1).all()  # Each character is a word that fits.
    text = tokenizer.decode(batch["token_ids"][:, 1:-1]).numpy()[0].decode()
    assert any("\u4e00" <= character <= "\u9fff" for character in text)
    model = models.build(filled.model)
    step = training.make_step(model, TrainConfig(jit="off"), task=task)
    stacked = {n: tf.constant(v[None, None]) for n, v in batch.items()}
    result = step.run(tf.constant(0, tf.int64), stacked)
    assert float(result.loss[0]) == pytest.approx(
        np.log(tokenizer.vocab_size), rel=0.02
    )


@both
def test_what_does_not_fit_is_refused(name):
    task, whole = TASKS[name], experiment(name)
    with pytest.raises(ValueError, match="kind 'byte'.*'wordpiece'"):
        task.fill_in(whole, tokenizers.ByteTokenizer(), None)
    for changes, said in (
        ({"separate_documents": True}, r"Set data\.separate_documents=False"),
        ({"context": 2}, r"at least 3.*data\.context=2"),
    ):
        changed = whole.replace(data=whole.data.replace(**changes))
        with pytest.raises(ValueError, match=said):
            task.fill_in(changed, PIECES, None)
    other = whole.replace(model=model_config("electra" if name == "bert" else "bert"))
    with pytest.raises(ValueError, match=f"trains the architectures {name}"):
        task.fill_in(other, PIECES, None)
    with pytest.raises(ValueError, match=r"Set train\.carry_state=False"):
        task.objective(built(name), TrainConfig(carry_state=True))


def test_a_bert_with_another_head_is_refused():
    whole = experiment("bert")
    embedder = whole.replace(model=whole.model.replace(head="embed"))
    with pytest.raises(ValueError, match=r"model\.head='embed'.*'masked_lm'"):
        TASKS["bert"].fill_in(embedder, PIECES, None)


@pytest.mark.parametrize("weight", [0.0, -1.0, float("nan")])
def test_a_weight_that_is_none_is_refused(weight):
    with pytest.raises(ValueError, match="discriminator_weight"):
        ReplacedTokens(discriminator_weight=weight)
