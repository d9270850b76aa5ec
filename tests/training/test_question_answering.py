"""The task "question_answering": windows, spans, SQuAD's scores, whole runs."""

import numpy as np
import pytest
import tensorflow as tf

from keras_llm import data, models, tokenizers, training
from keras_llm.ops import spans
from keras_llm.training import Experiment, QuestionAnswering, TrainConfig
from keras_llm.training.answer_scores import answer_f1, exact_match
from keras_llm.training.replicas import Workers
from keras_llm.training.tasks.question_answering import _answers
from tests.json_lines import write
from tests.training.conftest import on_one_and_on_two

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
LETTERS = "abcdefghijklmnopqrstuvwxyz"
WORDS = ["the", "whale", "ship", "is", "what", "colour", "white", "red", "green", "."]
WORDPIECE = tokenizers.WordPieceTokenizer(
    [*SPECIAL, *LETTERS, *(f"##{x}" for x in LETTERS), *WORDS]
)


def experiment(context=20, stride=5, **changes):
    defaults = {"steps": 4, "learning_rate": 1e-2, "jit": "off", "log_every": 1}
    return Experiment(
        model=models.BertConfig(
            head="answer", width=16, num_layers=1, num_heads=2, max_positions=32,
            dropout=0.0,
        ),
        task=QuestionAnswering(stride=stride, max_question_tokens=6),
        data=data.DataConfig(context=context, batch_size=6, shuffle=False),
        train=TrainConfig(**{**defaults, **changes}),
    )  # fmt: skip


def asked(question, context, *answers):
    found = [{"text": a, "start": context.index(a)} for a in answers]
    return {"question": question, "context": context, "answers": found}


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    examples = [
        asked(
            f"What colour is the {thing}?", f"{before}The {thing} is {colour}.", colour
        )
        for thing in ("whale", "ship")
        for colour in ("white", "red", "green")
        for before in ("", "What is the ship? ", "The é is the whale. ")
    ]
    return write(tmp_path_factory.mktemp("asked") / "asked.jsonl", examples)


def batches(config, train_file, valid_file):
    filled = config.task.fill_in(config, WORDPIECE, train_file)
    return filled, *config.task.batches(
        filled, train_file, valid_file, WORDPIECE, Workers(1, 0)
    )


LONG = "a b é c d e f Green whale g h i j k l m n o p"


def test_windows_cover_a_long_context_and_point_at_the_answer(tmp_path):
    examples = [
        asked("what is it", LONG, "Green whale", "a"),
        asked("what", "", ""),
        asked("the " * 9, "a b"),
    ]
    examples[1]["answers"] = []
    file = write(tmp_path / "q.jsonl", examples)
    _, _, rows = batches(experiment(context=15), file, file)
    arrays, cut = rows.examples.arrays, rows.windows
    question = cut.questions[0]
    ids = WORDPIECE.encode(LONG).numpy()
    seen = set()
    for i, window in enumerate(cut.windows):
        row, first = arrays["token_ids"][i], arrays["first"][i]
        here = row[first : first + arrays["size"][i]]
        owner = cut.questions[window.question]
        np.testing.assert_array_equal(
            here, owner.ids[window.first : window.first + window.size]
        )
        assert row[first - 1] == row[first + window.size] == 3 and row[0] == 2
        assert arrays["lengths"][i] == first + window.size + 1 <= 15
        assert (arrays["segment_ids"][i, first : first + window.size] == 1).all()
        start, end = arrays["start_targets"][i], arrays["end_targets"][i]
        if window.question == 0:
            seen |= set(range(window.first, window.first + window.size))
        if start:
            inside = start - first + window.first, end - first + window.first
            assert question.text(*inside) == "Green whale"
        else:
            assert end == 0
    assert seen == set(range(len(ids)))
    pointing = arrays["start_targets"][[w.question == 0 for w in cut.windows]] > 0
    assert pointing.any() and not pointing.all()
    assert len(cut.questions[2].asked) == 6
    assert [w.size for w in cut.windows if w.question == 1] == [0]
    # The best window's stretch is the question's answer; without a window, "".
    found = np.array([(i, 0.0, w.size - 1) for i, w in enumerate(cut.windows)])
    assert _answers(cut, found)[1] == ""
    last = [w for w in cut.windows if w.question == 0][-1]
    assert _answers(cut, found)[0] == question.text(last.first, len(ids) - 1)


def test_the_best_span_is_that_of_a_loop():
    rng = np.random.default_rng(7)
    start, end = rng.normal(size=(2, 5, 13))
    allowed = rng.random((5, 13)) < 0.7
    allowed[4] = False
    first, last, score = (
        np.asarray(x) for x in spans.best_span(start, end, allowed, 3)
    )
    for b in range(4):
        best = max(
            (start[b, s] + end[b, e], s, e)
            for s in range(13)
            for e in range(s, min(13, s + 3))
            if allowed[b, s] and allowed[b, e]
        )
        assert (first[b], last[b]) == best[1:]
        assert score[b] == pytest.approx(best[0], rel=1e-5)
    assert (first[4], last[4], score[4]) == (0, 0, -1e9)


def test_answers_are_scored_as_squad_does():
    assert exact_match("The White Whale.", ["a white whale"]) == 1.0
    assert exact_match("white whales", ["white whale", "Whales"]) == 0.0
    assert exact_match("", []) == 1.0 and exact_match("x", []) == 0.0
    # 2 words of 3 are right, and 2 of 4 are found.
    assert answer_f1("big white whale", ["white whale of Nantucket"]) == pytest.approx(
        2 * (2 / 3) * (2 / 4) / (2 / 3 + 2 / 4)
    )
    assert answer_f1("the", ["an"]) == 1.0 and answer_f1("", ["x"]) == 0.0
    assert answer_f1("b b", ["b"]) == pytest.approx(2 / 3)


def test_it_learns_to_answer_and_two_replicas_learn_as_one(
    file, tmp_path, two_replicas
):
    config = experiment(context=24, steps=30)
    one = training.train(
        config, file, file, tmp_path / "one", tokenizer=WORDPIECE, progress=False
    )
    assert one.validation.num_rows == 18
    assert one.validation.metrics["exact_match"] > 0.7
    assert one.validation.metrics["f1"] >= one.validation.metrics["exact_match"]
    config = experiment(context=24, steps=3)
    runs = on_one_and_on_two(two_replicas, config, file, tmp_path, WORDPIECE)
    assert runs[0].validation.metrics == pytest.approx(runs[1].validation.metrics)
    assert runs[0].validation.loss == pytest.approx(runs[1].validation.loss, rel=1e-4)


def test_the_loss_is_that_of_float64(file):
    filled, rows, _ = batches(experiment(), file, file)
    model = models.build(filled.model)
    batch = next(rows)
    inputs = {n: batch[n] for n in ("token_ids", "segment_ids", "lengths")}
    logits = np.float64(model(inputs))
    total = 0.0
    for z, length, start, end in zip(
        logits, batch["lengths"], batch["start_targets"], batch["end_targets"],
        strict=True,
    ):  # fmt: skip
        z = z[:length]
        log_p = z - np.log(np.exp(z).sum(0))
        total -= (log_p[start, 0] + log_p[end, 1]) / 2
    objective = filled.task.objective(model, filled.train)
    assert float(objective.summed_loss(batch, tf.constant(0, tf.int64))) == (
        pytest.approx(total, rel=1e-5)
    )


@pytest.mark.parametrize(
    "answer, message",
    [
        ({"text": "whale", "start": 3}, "must stand in its context"),
        ({"text": "whale", "start": 40}, "must stand in its context"),
        ({"text": "whale", "start": -1}, "An answer is"),
        ({"text": "", "start": 0}, "An answer is"),
        ({"text": "whale"}, "An answer is"),
        ("whale", "An answer is"),
    ],
)
def test_an_answer_outside_its_context_is_named(file, tmp_path, answer, message):
    example = {"question": "what", "context": "é whale", "answers": [answer]}
    good = asked("what", "é whale", "whale")
    bad = write(tmp_path / "bad.jsonl", [good, example])
    with pytest.raises(data.DataError, match=rf"{message}.*bad\.jsonl:2"):
        batches(experiment(), file, bad)


def test_what_cannot_be_learnt_is_refused(file):
    config = experiment()
    with pytest.raises(ValueError, match="`task.stride`.*which leave 11"):
        batches(experiment(stride=12), file, file)
    with pytest.raises(ValueError, match="where each token is.*'byte'"):
        config.task.fill_in(config, tokenizers.ByteTokenizer(), file)
    smooth = config.train.replace(label_smoothing=0.1)
    with pytest.raises(ValueError, match="label_smoothing=0.1. Set it to 0"):
        config.task.objective(None, smooth)
