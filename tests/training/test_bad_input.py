"""Input that no task can learn from, where the tests of the tasks do not have it."""

import json

import pytest

from keras_llm import data, models, tokenizers, training
from keras_llm.training import Experiment
from keras_llm.training.replicas import Workers

ALONE = Workers(1, 0)


def write(path, *examples):
    path.write_text("".join(json.dumps(example) + "\n" for example in examples))
    return path


def test_sentinels_beyond_the_vocabulary(tmp_path):
    (tmp_path / "text.txt").write_text("call me ishmael some years ago\n" * 9)
    tokenizer = tokenizers.train_sentencepiece(
        data.read_documents(tmp_path / "text.txt"), 30, "unigram", extra_ids=7
    )
    experiment = Experiment(
        model=models.T5Config(
            vocab_size=tokenizer.vocab_size - 1, width=8, num_heads=2
        ),
        task=training.SpanCorruption(),
        data=data.DataConfig(context=64, separate_documents=False),
    )
    with pytest.raises(ValueError, match="must hold every id of the tokenizer.*Set 0"):
        experiment.task.fill_in(experiment, tokenizer, tmp_path / "text.txt")


def test_a_tag_that_training_lacks(tmp_path):
    known = write(tmp_path / "a.jsonl", {"tokens": ["sea"], "tags": ["B-sea"]})
    other = write(tmp_path / "b.jsonl", {"tokens": ["a", "b"], "tags": ["I-sea", "O"]})
    experiment = Experiment(
        model=models.BertConfig(head="tag", width=8, num_layers=1, num_heads=2),
        task=training.Tagging(),
    )
    tokenizer = tokenizers.ByteTokenizer()
    filled = experiment.task.fill_in(experiment, tokenizer, known)
    assert filled.model.labels == ("B-sea",)
    with pytest.raises(data.DataError, match=r"'I-sea' \(once, .*'O' \(once, .*:1\)"):
        filled.task.batches(filled, known, other, tokenizer, ALONE)


@pytest.mark.parametrize("task", [training.Classification(), training.Tagging()])
def test_a_file_without_examples(tmp_path, task):
    file = write(tmp_path / "none.jsonl")
    head = {"classification": "classify", "tagging": "tag"}[task.kind]
    model = models.BertConfig(head=head, vocab_size=257, labels=("x",))
    experiment = Experiment(model=model, task=task)
    with pytest.raises(data.DataError, match="Examples are needed. Received: none"):
        task.validation_batches(experiment, file, tokenizers.ByteTokenizer(), ALONE)
