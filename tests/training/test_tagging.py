"""The task "tagging": words, their first pieces, whole runs."""

import logging

import numpy as np
import pytest

from keras_llm import data, models, tokenizers, training
from keras_llm.training import Experiment, Tagging, TrainConfig
from keras_llm.training.replicas import Workers
from tests.json_lines import write
from tests.training.conftest import on_one_and_on_two

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
LETTERS = "abcdefghijklmnopqrstuvwxyz"
WORDPIECE = tokenizers.WordPieceTokenizer(
    [*SPECIAL, *LETTERS, *(f"##{x}" for x in LETTERS), "sea", "ship", "sails", "."]
)
NAMES = ("ahab", "bildad", "pip", "queequeg", "tashtego")


def experiment(context=24, **changes):
    defaults = {"steps": 5, "learning_rate": 1e-2, "jit": "off", "log_every": 1}
    return Experiment(
        model=models.BertConfig(
            head="tag", width=16, num_layers=1, num_heads=2, max_positions=24,
            dropout=0.0,
        ),
        task=Tagging(),
        data=data.DataConfig(context=context, batch_size=6, shuffle=False),
        train=TrainConfig(**{**defaults, **changes}),
    )  # fmt: skip


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """Returns sentences in which capitals do not give the names away."""
    examples = [
        {"tokens": [a, "sails", "ship", "sea", b, "."],
         "tags": ["NAME", "O", "O", "O", "NAME", "END"]}
        for a in NAMES for b in NAMES
    ]  # fmt: skip
    return write(tmp_path_factory.mktemp("tags") / "tags.jsonl", examples)


def batches(config, train_file, valid_file):
    filled = config.task.fill_in(config, WORDPIECE, train_file)
    return filled, *config.task.batches(
        filled, train_file, valid_file, WORDPIECE, Workers(1, 0)
    )


def test_the_first_piece_of_each_word_carries_its_tag(file, tmp_path, caplog):
    examples = [
        {"tokens": ["pip", "sea", "u.", "\x00", "ship"],
         "tags": ["NAME", "O", "O", "END", "O"]},
        {"tokens": [], "tags": []},
        {"tokens": ["queequeg"] * 3, "tags": ["NAME", "O", "NAME"]},
    ]  # fmt: skip
    valid = write(tmp_path / "valid.jsonl", examples)
    with caplog.at_level(logging.WARNING):
        filled, _, rows = batches(experiment(context=12), file, valid)
    labels = filled.model.labels
    assert labels == ("END", "NAME", "O")
    arrays = rows.examples.arrays
    # pip = p ##i ##p; "u." is two pieces; the control character is none.
    assert arrays["weights"][0].tolist() == [0, 1, 0, 0, 1, 1, 0, 1, 0, 0, 0, 0]
    found = [labels[i] for i in arrays["targets"][0][arrays["weights"][0] > 0]]
    assert found == ["NAME", "O", "O", "O"]
    assert arrays["lengths"].tolist() == [9, 2, 12]
    assert arrays["weights"].sum(1).tolist() == [4, 0, 2]
    assert "1 of 3 validation examples were cut" in caplog.text
    assert list(Tagging().texts(valid, filled.data))[2] == b"queequeg queequeg queequeg"


def test_it_learns_tags_and_two_replicas_learn_as_one(file, tmp_path, two_replicas):
    config = experiment(steps=25)
    one = training.train(
        config, file, file, tmp_path / "one", tokenizer=WORDPIECE, progress=False
    )
    assert one.validation.metrics["accuracy"] > 0.9
    assert one.validation.metrics["macro_f1"] > 0.85
    assert one.validation.num_rows == 25
    config = experiment(steps=3)
    runs = on_one_and_on_two(two_replicas, config, file, tmp_path, WORDPIECE)
    assert runs[0].validation.loss == pytest.approx(runs[1].validation.loss, rel=1e-4)
    pairs = zip(
        *(models.load(tmp_path / n / "last").get_weights() for n in "ab"), strict=True
    )
    assert all(np.allclose(a, b, atol=2e-5) for a, b in pairs)


@pytest.mark.parametrize(
    "example",
    [
        {"tokens": ["a", "b"], "tags": ["O"]},
        {"tokens": ["a", 3], "tags": ["O", "O"]},
        {"tokens": "ab", "tags": ["O"]},
    ],
)
def test_bad_examples_are_named(file, tmp_path, example):
    good = {"tokens": ["a"], "tags": ["O"]}
    bad = write(tmp_path / "bad.jsonl", [good, example])
    with pytest.raises(data.DataError, match=r"bad.jsonl:2"):
        batches(experiment(), file, bad)
