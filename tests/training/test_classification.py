"""The task "classification": examples, weights, metrics, whole runs."""

import itertools
import json
import logging
import signal

import numpy as np
import pytest
import tensorflow as tf

from keras_llm import data, evaluation, models, tokenizers, training
from keras_llm.training import Classification, Experiment, TrainConfig
from keras_llm.training.class_scores import class_scores
from keras_llm.training.replicas import Workers
from tests.json_lines import write
from tests.training.conftest import cut_back

GOOD = ("a fine warm film", "I loved the cast", "sweet and well made", "great fun")
BAD = ("a dull cold film", "I hated the cast", "sour and badly made", "no fun")
FRAMES = ("{}", "well, {}", "{} to me", "we thought: {}!", "{} on the whole", "oh {}")


def reviews():
    """Returns small reviews: three negative ones to two positive ones."""
    whole = [
        {"text": frame.format(words), "label": label}
        for label, texts in (("pos", GOOD), ("neg", BAD))
        for frame, words in itertools.product(FRAMES, texts)
    ]
    return whole + [e for e in whole if e["label"] == "neg"][::2]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Returns training and validation examples; no frame is seen in both."""
    folder, examples = tmp_path_factory.mktemp("reviews"), reviews()
    valid = [e for e in examples if e["text"].startswith("oh ")]
    train = [e for e in examples if e not in valid]
    return write(folder / "train.jsonl", train), write(folder / "valid.jsonl", valid)


LSTM = models.LSTMClassifierConfig(embedding_width=12, units=10, pooling="max")
BERT = models.BertConfig(
    head="classify", width=12, num_layers=1, num_heads=2, max_positions=32
)


def experiment(model=LSTM, task=None, context=32, **changes):
    defaults = {
        "steps": 6, "learning_rate": 1e-2, "jit": "off", "log_every": 1,
        "eval_every": 3, "save_every": 2,
    }  # fmt: skip
    return Experiment(
        model=model,
        task=task or Classification(),
        tokenizer=training.TokenizerConfig(kind="byte_bpe", vocab_size=330),
        data=data.DataConfig(context=context, batch_size=6),
        train=TrainConfig(**{**defaults, **changes}),
    )


def train(config, files, run_dir, **options):
    return training.train(config, *files, run_dir, progress=False, **options)


def batches(config, train_file, valid_file=None, tokenizer=None):
    tokenizer = tokenizer or tokenizers.ByteTokenizer()
    filled = config.task.fill_in(config, tokenizer, train_file)
    made = config.task.batches(filled, train_file, valid_file, tokenizer, Workers(1, 0))
    return filled, *made


def test_it_learns_what_the_majority_class_does_not_say(files, tmp_path):
    config = experiment(steps=60, eval_every=0, save_every=0)
    summary = train(config, files, tmp_path / "run")
    metrics = summary.validation.to_dict()
    labels = [json.loads(line)["label"] for line in files[1].read_text().splitlines()]
    majority = max(labels.count(label) for label in labels) / len(labels)
    assert metrics["num_rows"] == len(labels)
    assert metrics["accuracy"] > majority + 0.2
    assert metrics["macro_f1"] > 0.8
    lines = training.read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert {"valid_accuracy", "valid_macro_f1", "valid_loss"} <= set(lines[-1])
    assert models.load_config(tmp_path / "run" / "best").labels == ("neg", "pos")


@pytest.mark.parametrize("model", [LSTM, BERT], ids=["lstm", "bert"])
def test_rows_are_the_ids_of_the_texts(files, model):
    config = experiment(model)
    config = config.replace(data=config.data.replace(shuffle=False))
    filled, rows, _ = batches(config, *files)
    assert filled.model.vocab_size == 257
    batch = next(rows)
    first = json.loads(files[0].read_text().splitlines()[0])
    ids = list(first["text"].encode())
    ids = [256, *ids, 256] if model is BERT else ids
    assert batch["token_ids"][0, : batch["lengths"][0]].tolist() == ids
    assert batch["targets"][0] == filled.model.labels.index(first["label"])
    assert batch["token_ids"].shape[1] == rows.examples.arrays["lengths"].max()
    assert config.task.count_tokens(batch) == batch["lengths"].sum()
    assert set(config.task.texts(files[1], config.data)) == {
        json.loads(line)["text"].encode() for line in files[1].read_text().splitlines()
    }


def test_long_rows_are_cut_and_counted_once(tmp_path, caplog):
    lines = [
        {"text": "abcdefg", "text_pair": "hi", "label": "x"},
        {"text": "", "text_pair": "abc", "label": "y"},
    ]
    file = write(tmp_path / "e.jsonl", lines)
    with caplog.at_level(logging.WARNING):
        _, rows, _ = batches(experiment(BERT, context=9), file, file)
    said = [r.message for r in caplog.records if "were cut" in r.message]
    assert said[0].startswith("1 of 2 training examples were cut to data.context=9")
    assert len(said) == 2 and "validation" in said[1]
    batch = rows.examples.arrays
    assert batch["lengths"].tolist() == [9, 6]
    assert bytes(batch["token_ids"][0, 1:5].tolist()) == b"abcd"
    first, second = batch["segment_ids"].tolist()
    assert first == [0] * 6 + [1] * 3
    assert second == [0, 0] + [1] * 4 + [0] * 3


def test_balanced_weights_make_labels_count_alike(files):
    config = experiment(task=Classification(class_weights="balanced"))
    _, rows, valid = batches(config, *files)
    arrays = rows.examples.arrays
    sums = [arrays["weights"][arrays["targets"] == i].sum() for i in (0, 1)]
    np.testing.assert_allclose(sums, arrays["weights"].size / 2, rtol=1e-6)
    assert (valid.examples.arrays["weights"] == 1).all()


def test_the_losses_are_those_of_float64(files):
    config = experiment(
        task=Classification(class_weights="balanced"), label_smoothing=0.1
    )
    filled, rows, valid = batches(config, *files)
    model = models.build(filled.model)
    objective = config.task.objective(model, filled.train)
    batch = next(rows)
    inputs = {name: batch[name] for name in ("token_ids", "lengths")}
    z = np.float64(model(inputs))
    log_p = z - np.log(np.exp(z).sum(-1, keepdims=True))
    picked = log_p[np.arange(len(z)), batch["targets"]]
    each = -0.9 * picked - 0.1 * log_p.mean(-1)
    found = float(objective.summed_loss(batch, np.int64(0)))
    assert found == pytest.approx((batch["weights"] * each).sum(), rel=1e-5)
    # Judged without smoothing and without weights of classes.
    judged = config.task.validator(tf.distribute.get_strategy(), model, valid)()
    whole = valid.examples.arrays
    z = np.float64(model({name: whole[name] for name in ("token_ids", "lengths")}))
    log_p = z - np.log(np.exp(z).sum(-1, keepdims=True))
    right = z.argmax(-1) == whole["targets"]
    assert judged.loss == pytest.approx(
        -log_p[np.arange(len(z)), whole["targets"]].mean(), rel=1e-5
    )
    assert judged.metrics["accuracy"] == pytest.approx(right.mean())
    assert judged.num_rows == len(right)


def test_macro_f1_is_the_mean_of_the_classes_own():
    rng = np.random.default_rng(3)
    there, taken = rng.integers(0, 5, 97), rng.integers(0, 4, 97)
    confusion = np.zeros((7, 7))
    np.add.at(confusion, (there, taken), 1)
    f1 = []
    for label in range(5):
        hit = ((there == label) & (taken == label)).sum()
        precision = hit / max(1, (taken == label).sum())
        recall = hit / (there == label).sum()
        f1.append(2 * precision * recall / max(1e-9, precision + recall))
    scores = class_scores(confusion)
    assert scores["macro_f1"] == pytest.approx(np.mean(f1))
    assert scores["accuracy"] == pytest.approx((there == taken).mean())


@pytest.mark.parametrize(
    "lines, message",
    [
        ([{"text": "a", "label": "x"}, {"text": "b", "label": 3}], "e.jsonl:2"),
        ([{"text": "a"}], "e.jsonl:1"),
        ([{"text": "a", "label": "x", "text_pair": "b"}, {"text": "c", "label": "x"}],
         "Received: 2 with a string, first at .*e.jsonl:1, 2 with none, first at "
         ".*e.jsonl:2"),
        ([{"text": "a", "label": "x", "text_pair": 7}],
         "2 with another type, first at .*e.jsonl:1"),
    ],
)  # fmt: skip
def test_bad_examples_are_named(tmp_path, lines, message):
    file = write(tmp_path / "e.jsonl", lines)
    with pytest.raises(data.DataError, match=message):
        batches(experiment(), file, file)


def test_labels_must_be_known(files, tmp_path):
    odd = [{"text": "a", "label": "odd"}] * 2 + [{"text": "b", "label": "neg"}]
    file = write(tmp_path / "valid.jsonl", odd)
    with pytest.raises(
        data.DataError, match=r"'odd' \(2 times, first at .*valid.jsonl:1\); "
    ):
        batches(experiment(), files[0], file)
    file = write(tmp_path / "once.jsonl", odd[1:])
    with pytest.raises(data.DataError, match=r"'odd' \(once, first at .*jsonl:1\); "):
        batches(experiment(), files[0], file)
    narrow = experiment(LSTM.replace(labels=("neg", "odd")))
    with pytest.raises(data.DataError, match="must be in `model.labels`.*'pos'"):
        batches(narrow, *files)
    filled, *_ = batches(experiment(LSTM.replace(labels=("pos", "neg"))), *files)
    assert filled.model.labels == ("pos", "neg")


def test_other_models_and_heads_are_refused(files):
    for model, message in (
        (models.LSTMLMConfig(), "trains the architectures bert, lstm_classifier"),
        (BERT.replace(head="embed"), "with the head 'classify'"),
    ):
        with pytest.raises(ValueError, match=message):
            batches(experiment(model), *files)


def assert_same_models(one, other, folder="last"):
    pairs = zip(
        models.load(one / folder).get_weights(),
        models.load(other / folder).get_weights(),
        strict=True,
    )
    assert all(a.tobytes() == b.tobytes() for a, b in pairs)


def test_two_replicas_learn_as_one_does(files, tmp_path, two_replicas, eagerly):
    config = experiment(
        BERT.replace(dropout=0.0),
        Classification(class_weights="balanced"),
        steps=3,
        accumulation=2,
    )
    one = train(config, files, tmp_path / "one")
    two = train(config, files, tmp_path / "two", strategy=two_replicas)
    for a, b in zip(
        models.load(tmp_path / "one" / "last").get_weights(),
        models.load(tmp_path / "two" / "last").get_weights(),
        strict=True,
    ):
        np.testing.assert_allclose(a, b, atol=2e-5)
    assert one.validation.loss == pytest.approx(two.validation.loss, rel=1e-4)
    assert one.validation.num_rows == two.validation.num_rows


def test_fine_tuning_starts_from_a_models_weights(
    files, tmp_path, monkeypatch, eagerly
):
    """Ended before its first save, and resumed, it is the run that never ended."""
    tokenizer = tokenizers.ByteTokenizer()
    source = models.build(BERT.replace(head="masked_lm", vocab_size=257, dropout=0.0))
    models.save(source, tmp_path / "source", tokenizer)
    config = experiment(BERT, steps=4, eval_every=0, save_every=3)
    begun = {}
    step = training.TrainStep.run

    def watch(self, first, arrays):
        begun.setdefault(int(first), [w.numpy() for w in self.weights])
        if ending and int(first) == 1:
            signal.raise_signal(signal.SIGTERM)
        return step(self, first, arrays)

    monkeypatch.setattr(training.TrainStep, "run", watch)
    ending = False
    whole = train(config, files, tmp_path / "whole", init=tmp_path / "source")
    assert (
        "Fresh: pooler/kernel, pooler/bias, head/kernel, head/bias." in whole.notes[0]
    )
    assert tokenizers.load(tmp_path / "whole" / "tokenizer").kind == "byte"
    table = source.get_layer("token_embedding").weights[0].numpy()
    assert any(w.shape == table.shape and (w == table).all() for w in begun[0])
    ending = True
    with pytest.raises(training.Preempted):
        train(config, files, tmp_path / "ended", init=tmp_path / "source")
    ending = False
    again = train(config, files, tmp_path / "ended", resume=True)
    assert not [note for note in again.notes if note.startswith("Started")]
    assert_same_models(tmp_path / "whole", tmp_path / "ended")


def test_a_start_that_does_not_fit_leaves_nothing(files, tmp_path):
    source = models.build(BERT.replace(head="masked_lm", vocab_size=257, width=8))
    models.save(source, tmp_path / "source", tokenizers.ByteTokenizer())
    with pytest.raises(ValueError, match="source must hold every weight"):
        train(experiment(BERT), files, tmp_path / "run", init=tmp_path / "source")
    with pytest.raises(ValueError, match="another tokenizer"):
        train(
            experiment(BERT),
            files,
            tmp_path / "run",
            init=tmp_path / "source",
            tokenizer=tokenizers.CharacterTokenizer.train([b"ab"]),
        )
    assert not (tmp_path / "run").exists()


def test_of_an_electra_the_discriminator_is_tuned(files, tmp_path, eagerly):
    sizes = {"vocab_size": 257, "width": 12, "num_layers": 1, "num_heads": 2}
    electra = models.build(
        models.ElectraConfig(**sizes, max_positions=32, embedding_width=6)
    )
    models.save(electra, tmp_path / "electra", tokenizers.ByteTokenizer())
    # A rate of next to nothing leaves the weights where they started.
    config = experiment(BERT.replace(embedding_width=6), steps=1, learning_rate=1e-12)
    summary = train(config, files, tmp_path / "run", init=tmp_path / "electra")
    assert "Fresh: pooler/kernel, pooler/bias, head" in summary.notes[0]
    tuned = {w.path: w for w in models.load(tmp_path / "run" / "last").weights}
    source = {w.path: w for w in electra.weights}
    kept = [path for path in tuned if not path.startswith(("pooler", "head"))]
    assert any(path.startswith("block_0/") for path in kept)
    for path in kept:
        np.testing.assert_allclose(tuned[path], source[path], atol=1e-6)


def test_an_adapter_is_learnt_beside_a_fresh_head(files, tmp_path):
    """The head belongs to it: in checkpoints, in its folder, and when it is loaded."""
    source = models.build(BERT.replace(head="masked_lm", vocab_size=257, dropout=0.0))
    models.save(source, tmp_path / "source", tokenizers.ByteTokenizer())
    config = experiment(BERT, steps=8, eval_every=4, save_every=4).replace(
        adapter=models.AdapterConfig(rank=2)
    )
    whole = train(config, files, tmp_path / "whole", init=tmp_path / "source")
    head = "pooler/kernel, pooler/bias, head/kernel, head/bias"
    assert f"Fresh, and learnt whole: {head}." in whole.notes[0]
    best = tmp_path / "whole" / "best"
    assert models.load_config(best).labels == ("neg", "pos")
    tuned = {w.path: w.numpy() for w in models.load(best).weights}
    base = {w.path: w.numpy() for w in source.weights}
    learnt = {p for p in tuned if p not in base or (tuned[p] != base[p]).any()}
    kernels = {"attention/query_key_value", "attention/output"}
    kernels |= {"feed_forward/inner", "feed_forward/output"}
    assert learnt == {f"block_0/{k}/kernel" for k in kernels} | set(head.split(", "))
    found = evaluation.evaluate_labels(
        models.load(best), models.load_tokenizer(best), files[1], context=32
    )
    assert found["accuracy"] == whole.validation.to_dict()["accuracy"]
    # Cut back and resumed it ends with the same bytes.
    cut_back(tmp_path / "whole", tmp_path / "again", 4)
    train(config, files, tmp_path / "again", resume=True)
    one, other = (
        tmp_path / run / "last" / "adapter.safetensors" for run in ("whole", "again")
    )
    assert one.read_bytes() == other.read_bytes()


def test_an_adapter_with_a_head_goes_on_in_memory(files, tmp_path):
    """On a model that has that head; another is refused with what to do."""
    source = models.build(BERT.replace(head="masked_lm", vocab_size=257))
    base = tmp_path / "source"
    models.save(source, base, tokenizers.ByteTokenizer())
    config = experiment(BERT, steps=2, save_every=0, eval_every=0).replace(
        adapter=models.AdapterConfig(rank=2)
    )
    train(config, files, tmp_path / "run", init=base)
    last = tmp_path / "run" / "last"
    with pytest.raises(ValueError, match="learnt weights whole"):
        models.load_adapter(models.load(base), last, base)
    with pytest.raises(ValueError, match="share its head"):
        models.add_adapters(models.load(base), {"a": last}, base)
    model = models.build(models.load_config(last))
    models.transfer_weights(models.load(base), model)
    models.load_adapter(model, last, base)
    assert {w.path for w in model.trainable_weights} >= {"head/kernel", "pooler/bias"}
    expected = {w.path: w.numpy() for w in models.load(last).weights}
    for weight in models.merged(model).weights:
        np.testing.assert_allclose(weight, expected[weight.path], atol=1e-6)
    models.save_adapter(model, tmp_path / "copy", base)
    files = (f / "adapter.safetensors" for f in (last, tmp_path / "copy"))
    assert next(files).read_bytes() == next(files).read_bytes()


@pytest.mark.parametrize("pooling", ["first", "mean"])
def test_what_it_takes_is_planned(files, pooling):
    """Sums over broadcast axes have no shape that is known beforehand, and no size."""
    config = experiment(BERT.replace(pooling=pooling))
    config = config.replace(tokenizer=training.TokenizerConfig(kind="byte"))
    made, batch = training.prepare_plan(config, files[0])
    found = training.plan(made, batch)
    assert found.parameters == models.count_parameters(models.build(made.model))
    assert found.activation_bytes > batch["token_ids"].size * 4 * BERT.width
