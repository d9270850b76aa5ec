"""Classifiers, taggers and finders of answers, measured on labelled examples."""

import json
import sys

import numpy as np
import pytest
import tensorflow as tf

from keras_llm import commands, data, evaluation, models, tokenizers
from keras_llm.evaluation.span_scores import are_spans
from tests import forked
from tests.json_lines import write

WORDS = "a fine dull film the cast was warm cold and of sea whale . ?".split()
SIZES = {
    "vocab_size": 5 + len(WORDS), "width": 6, "num_layers": 1, "num_heads": 2,
    "max_positions": 23,
}  # fmt: skip
LABELS = ("cold", "dull", "warm")
TAGS = ("B-sea", "I-sea", "O")


@pytest.fixture(scope="module")
def tokenizer():
    return tokenizers.WordPieceTokenizer(
        ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    )


@pytest.fixture(scope="module")
def build():
    """Returns the function from a config to a model whose outputs differ by row."""

    def build(config):
        model, rng = models.build(config), np.random.default_rng(3)
        # Fresh heads are near zero: every row would be taken for the same class.
        model.set_weights([rng.normal(size=w.shape) for w in model.get_weights()])
        return model

    return build


def some_words(rng, most):
    return [WORDS[i] for i in rng.integers(0, len(WORDS), rng.integers(1, most))]


@pytest.fixture(scope="module")
def labelled(tmp_path_factory):
    """Returns a file of texts with labels."""
    rng = np.random.default_rng(2)
    examples = [
        {"text": " ".join(some_words(rng, 31)), "label": LABELS[rng.integers(0, 3)]}
        for _ in range(97)
    ]
    return write(tmp_path_factory.mktemp("examples") / "labelled.jsonl", examples)


@pytest.fixture(scope="module")
def tagged(tmp_path_factory):
    """Returns a file of words with tags."""
    rng, examples = np.random.default_rng(3), []
    for _ in range(41):
        words = some_words(rng, 19)
        tags = [TAGS[i] for i in rng.integers(0, 3, len(words))]
        examples.append({"tokens": words, "tags": tags})
    return write(tmp_path_factory.mktemp("examples") / "tagged.jsonl", examples)


def read(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def rows_alone(model, tokenizer, texts, limit):
    """Yields each text's logits, computed in a batch of its own without padding."""
    model = tf.function(model, reduce_retracing=True)
    for text in texts:
        ids = tokenizer.encode([text]).numpy()[0].tolist()
        ids = [2, *ids[: limit - 2], 3]
        row = np.array([ids], "int32")
        inputs = {
            "token_ids": row,
            "segment_ids": np.zeros_like(row),
            "lengths": np.array([len(ids)], "int32"),
        }
        yield np.float64(model(inputs)[0])


@pytest.mark.parametrize("context", [None, 11])
def test_labels_by_a_loop_over_texts(build, tokenizer, labelled, context):
    model = build(models.BertConfig(head="classify", labels=LABELS, **SIZES))
    examples = read(labelled)
    limit = context or SIZES["max_positions"]
    texts = [e["text"] for e in examples]
    logits = np.stack(list(rows_alone(model, tokenizer, texts, limit)))
    there = np.array([LABELS.index(e["label"]) for e in examples])
    taken = logits.argmax(-1)
    assert len(set(taken)) > 1
    log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    found = evaluation.evaluate_labels(model, tokenizer, labelled, context=context)
    assert list(found)[:4] == ["loss", "accuracy", "macro_f1", "num_rows"]
    assert found["loss"] == pytest.approx(-log_p[range(97), there].mean(), rel=1e-5)
    assert found["accuracy"] == pytest.approx((there == taken).mean())
    for i, label in enumerate(LABELS):
        hits = sum((there == i) & (taken == i))
        scores = found["labels"][label]
        assert scores["support"] == sum(there == i)
        assert scores["recall"] == pytest.approx(hits / sum(there == i))
        assert scores["precision"] == pytest.approx(hits / max(1, sum(taken == i)))
        both = scores["precision"] + scores["recall"]
        harmonic = 2 * scores["precision"] * scores["recall"] / both if both else 0.0
        assert scores["f1"] == pytest.approx(harmonic)
        for j, other in enumerate(LABELS):
            assert found["confusion"][label][other] == sum((there == i) & (taken == j))


def test_tags_by_a_loop_over_rows(build, tokenizer, tagged):
    model = build(models.BertConfig(head="tag", labels=TAGS, **SIZES))
    examples = read(tagged)
    # Every word is one piece, so column i + 1 is word i's.
    texts = [" ".join(e["tokens"]) for e in examples]
    logits = rows_alone(model, tokenizer, texts, SIZES["max_positions"])
    taken = [[TAGS[i] for i in row[1:-1].argmax(-1)] for row in logits]
    there = [e["tags"] for e in examples]
    found = evaluation.evaluate_tags(model, tokenizer, tagged)
    right = np.concatenate([np.equal(*pair) for pair in zip(there, taken, strict=True)])
    assert found["accuracy"] == pytest.approx(np.mean(right))
    assert found["labels"]["O"]["support"] == sum(row.count("O") for row in there)
    mine, theirs = ({(i, *s) for i, r in enumerate(x) for s in spans(r)}
                    for x in (there, taken))  # fmt: skip
    assert mine & theirs and mine != theirs
    precision, recall = (len(mine & theirs) / len(x) for x in (theirs, mine))
    assert found["span_precision"] == pytest.approx(precision)
    assert found["span_recall"] == pytest.approx(recall)
    harmonic = 2 * precision * recall / (precision + recall)
    assert found["span_f1"] == pytest.approx(harmonic)


def spans(tags):
    """Returns (first, last) of each span of one type, by hand."""
    found, first = [], None
    for i, tag in enumerate([*tags, "O"]):
        if first is not None and tag != "I-sea":
            found.append((first, i - 1))
            first = None
        if tag == "B-sea" or (tag == "I-sea" and first is None):
            first = i
    return found


def test_tags_that_mark_no_spans_need_no_seqeval(
    build, tokenizer, tagged, tmp_path, monkeypatch
):
    monkeypatch.setitem(sys.modules, "seqeval", None)
    config = models.BertConfig(head="tag", labels=TAGS, **SIZES)
    with pytest.raises(ImportError, match=r"pip install keras_llm\[metrics\]"):
        evaluation.evaluate_tags(build(config), tokenizer, tagged)
    plain = [{"tokens": ["sea", "?"], "tags": ["noun", "mark"]}]
    file = write(tmp_path / "plain.jsonl", plain)
    found = evaluation.evaluate_tags(
        build(config.replace(labels=("mark", "noun"))), tokenizer, file
    )
    assert "span_f1" not in found and found["labels"]["noun"]["support"] == 1
    assert not are_spans(["I-name", "O"])


def test_answers_of_a_context_longer_than_a_row(build, tokenizer, tmp_path):
    """A context that is all answer: any stretch that is found is part of it."""
    words = "whale " * 31 + "whale"
    example = {
        "question": "the whale ?", "context": words,
        "answers": [{"text": words, "start": 0}],
    }  # fmt: skip
    file = write(tmp_path / "asked.jsonl", [example, example])
    model = build(models.BertConfig(head="answer", **SIZES))
    found = evaluation.evaluate_answers(model, tokenizer, file)
    assert list(found) == ["loss", "exact_match", "f1", "num_rows"]
    # n of 32 words, all right: precision 1, recall n / 32.
    sizes = {round(2 * n / (n + 32), 9) for n in range(1, SIZES["max_positions"])}
    assert found["exact_match"] == 0 and found["num_rows"] == 2
    assert round(found["f1"], 9) in sizes


def test_masks_are_the_same_every_time(build, tokenizer, tmp_path):
    rng = np.random.default_rng(7)
    words = [WORDS[i] for i in rng.integers(0, len(WORDS), 800)]
    (tmp_path / "text.txt").write_text(" ".join(words))
    model = build(models.BertConfig(**SIZES))
    found = [
        evaluation.evaluate_masked(model, tokenizer, tmp_path / "text.txt")
        for _ in range(2)
    ]
    assert found[0] == found[1] and found[0]["num_rows"] == 800 // 21 + 1
    assert found[0]["perplexity"] == pytest.approx(np.exp(found[0]["loss"]))
    electra = build(models.ElectraConfig(**SIZES, embedding_width=4))
    both = evaluation.evaluate_masked(electra, tokenizer, tmp_path / "text.txt")
    assert both["loss"] == pytest.approx(
        both["generator_loss"] + 50 * both["discriminator_loss"]
    )


def test_examples_that_a_model_cannot_be_measured_by(build, tokenizer, tmp_path):
    model = build(models.BertConfig(head="classify", labels=LABELS, **SIZES))
    for examples, message in (
        ([{"text": "warm"}], "must hold 'label', a str.*e.jsonl:1.*'text'"),
        (
            [{"text": "a", "label": "odd"}],
            r"`model.labels`.*'odd' \(once, first at .*:1\)",
        ),
        ([], "Examples are needed. Received: none"),
    ):
        file = write(tmp_path / "e.jsonl", examples)
        with pytest.raises(data.DataError, match=message):
            evaluation.evaluate_labels(model, tokenizer, file)
    write(tmp_path / "e.jsonl", [{"text": "a", "label": "warm"}])
    with pytest.raises(ValueError, match="23 positions. Received: context=24"):
        evaluation.evaluate_labels(model, tokenizer, tmp_path / "e.jsonl", context=24)
    with pytest.raises(ValueError, match="with the head 'tag'"):
        evaluation.evaluate_tags(model, tokenizer, tmp_path / "e.jsonl")


@pytest.fixture(scope="module")
def folder(build, tokenizer, tmp_path_factory):
    """Returns the folder of a classifier."""
    folder = tmp_path_factory.mktemp("model") / "model"
    config = models.LSTMClassifierConfig(
        vocab_size=SIZES["vocab_size"], embedding_width=4, units=3, labels=LABELS
    )
    models.save(build(config), folder, tokenizer)
    return folder


def test_the_command_prints_the_same_figures(folder, tokenizer, labelled):
    run = forked.run(
        "scripts/evaluate.py", f"--model={folder}", f"--examples={labelled}", "--json"
    )
    assert run.returncode == 0, run.stderr
    found = evaluation.evaluate_labels(models.load(folder), tokenizer, labelled)
    printed = json.loads(run.stdout)
    assert printed["confusion"] == found["confusion"]
    assert printed["loss"] == pytest.approx(found["loss"], rel=1e-6)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--text=a.txt"], "--text must be left out: a model that learnt from ex"),
        (["--text=a.txt", "--text=b"], "Received: --text=a.txt --text=b, for "),
        ([], "Examples are needed to measure"),
        (["--examples=e.jsonl", "--json_field=a"], "--json_field must be left out"),
        (["--examples=e.jsonl", "--add_separators"], "--add_separators must be left"),
        (["--examples=e.jsonl", "--num_beams=4"], "--num_beams must be left out"),
    ],
)
def test_flags_that_would_say_nothing_are_refused(folder, flags, message):
    run = forked.run("scripts/evaluate.py", f"--model={folder}", *flags)
    assert run.returncode == 1 and message in run.stderr, run.stderr


def test_a_missing_library_is_told_in_one_line(monkeypatch, capsys):
    def call(argv):
        monkeypatch.setitem(sys.modules, "seqeval", None)
        evaluation.span_scores([["B-a"]], [["B-a"]])

    with pytest.raises(SystemExit):
        commands._call(call, [])
    assert "pip install seqeval.\n" in capsys.readouterr().err
