"""Which label a text has, or a pair of texts."""

import dataclasses
from collections import Counter

import numpy as np
import tensorflow as tf

from keras_llm import data
from keras_llm.core import checks
from keras_llm.ops import losses
from keras_llm.tokenizers import EncoderRows
from keras_llm.training.class_scores import class_scores
from keras_llm.training.objective import inputs_of, logits_loss
from keras_llm.training.task import (
    Objective,
    Task,
    check_architecture,
    fill_in_vocabulary,
)
from keras_llm.training.tasks import examples as examples_lib
from keras_llm.training.validation import Scores, Validator

CLASS_WEIGHTS = ("none", "balanced")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Classification(Task):
    """Tells which label a text has, from JSON lines {"text": ..., "label": ...}.

    loss = -sum_i w[i] log p(label[i] | text[i]) / sum_i w[i]. All examples, or none,
    have a member `text_pair`, a second text that the label is about too. The labels
    of the training examples, sorted, become the model's.

    >>> Classification(class_weights="inverse")
    Traceback (most recent call last):
    ...
    ValueError: `class_weights` must be one of 'none', 'balanced'. Received: \
class_weights='inverse'.
    """

    kind = "classification"

    # Of the loss: "balanced" weighs each of N examples by N / (L * examples of its
    # label), L labels, so that rare labels count as much as frequent ones.
    class_weights: str = "none"

    def __post_init__(self):
        checks.check_choice("class_weights", self.class_weights, CLASS_WEIGHTS)

    def texts(self, source, config):
        """Yields every text, and every text of a pair."""
        for example in _read(source, config):
            yield examples_lib.utf8(example["text"])
            if example.get("text_pair") is not None:
                yield examples_lib.utf8(example["text_pair"])

    def fill_in(self, experiment, tokenizer, train_text):
        """Returns the experiment with the vocabulary's size and the labels."""
        check_architecture(self, experiment.model, "bert", "lstm_classifier")
        examples_lib.check_head(self, experiment.model, "classify")
        model = fill_in_vocabulary(experiment.model, tokenizer)
        examples = _read(train_text, experiment.data)
        labels = ((e["label"], data.place_of(e)) for e in examples)
        return experiment.replace(model=examples_lib.fill_in_labels(model, labels))

    def batches(self, experiment, train_text, valid_text, tokenizer, team):
        """Returns batches of token_ids, segment_ids, lengths, targets and weights."""
        config = experiment.data
        splits = examples_lib.read_splits(
            lambda source: _read(source, config), train_text, valid_text, config
        )
        with_pairs = _have_pairs([*splits[0], *splits[1]])
        train, valid = (
            _encode(experiment, tokenizer, examples, with_pairs, split)
            for examples, split in zip(splits, ("training", "validation"), strict=True)
        )
        if self.class_weights == "balanced":
            num_labels = len(experiment.model.labels)
            train["weights"] = balanced(train["targets"], num_labels)
        return examples_lib.example_batches(train, valid, config, team)

    def validation_batches(self, experiment, text, tokenizer, team):
        """Returns batches of examples that a model is judged by."""
        examples = list(_read(text, experiment.data))
        pairs = _have_pairs(examples)
        arrays = _encode(experiment, tokenizer, examples, pairs, "validation")
        return examples_lib.validation_examples(arrays, experiment.data, team)

    def objective(self, model, config, fuse=None, rows=None):
        """Returns the weighted cross-entropy of the labels."""
        del fuse, rows
        return Objective(logits_loss(model, config.label_smoothing))

    def validator(self, strategy, model, batches):
        """Returns the judge by accuracy, macro F1 and the plain mean loss."""

        def sums(batch):
            logits = model(inputs_of(model, batch), training=False)
            each = losses.token_losses(logits, batch["targets"])
            weights = batch["weights"]
            return {
                "loss": tf.reduce_sum(weights * each),
                "confusion": examples_lib.confusion(batch["targets"], logits, weights),
            }

        def judge(sums):
            count = int(sums["confusion"].sum())
            scores = class_scores(sums["confusion"])
            loss = float(sums["loss"]) / count
            return Scores(loss, scores, count, sums["confusion"])

        return Validator(strategy, batches, sums, judge)

    def count_tokens(self, batch):
        """Returns the real tokens of a batch, special ones counted."""
        return int(batch["lengths"].sum())


def balanced(targets: np.ndarray, num_labels: int) -> np.ndarray:
    """Returns the weight N / (L * n) of each of N examples, n of whose label there are.

    >>> balanced(np.array([0, 0, 0, 1]), 2).round(3)
    array([0.667, 0.667, 0.667, 2.   ], dtype=float32)
    """
    counts = np.bincount(targets, minlength=num_labels)[targets]
    return (len(targets) / (num_labels * counts)).astype("float32")


def _read(source, config):
    return data.read_examples(source, {"text": str, "label": str}, config)


def _encode(experiment, tokenizer, examples, with_pairs, split):
    """Returns arrays of rows, targets and weights, each [N, ...]."""
    labels = experiment.model.labels
    named = [example["label"] for example in examples]
    places = map(data.place_of, examples)
    examples_lib.check_known(labels, zip(named, places, strict=True), split)
    pairs = [e["text_pair"] for e in examples] if with_pairs else None
    rows = EncoderRows(tokenizer, experiment.model.architecture == "bert")
    texts = [example["text"] for example in examples]
    arrays = examples_lib.encode_texts(
        rows, texts, pairs, experiment.data.context, split
    )
    arrays["targets"] = np.array([labels.index(x) for x in named], "int32")
    arrays["weights"] = np.ones(len(named), "float32")
    return arrays


_KINDS = {str: "a string", type(None): "none"}  # What `text_pair` may be.


def _have_pairs(examples):
    """Returns whether the examples are pairs: all of them, or none.

    Raises:
        DataError: Some are, or a second text is no string.
    """
    kinds: Counter[str] = Counter()
    first: dict[str, str] = {}
    for example in examples:
        kind = _KINDS.get(type(example.get("text_pair")), "another type")
        kinds[kind] += 1
        first.setdefault(kind, data.place_of(example))
    if len(kinds) > 1 or not set(kinds) <= set(_KINDS.values()):
        listed = ", ".join(
            f"{count} with {kind}, first at {first[kind]}"
            for kind, count in kinds.items()
        )
        raise data.DataError(
            "Either every example has a `text_pair`, a string, or none has. Received: "
            f"{listed}. Give each one, which may be empty, or none."
        )
    return "a string" in kinds
