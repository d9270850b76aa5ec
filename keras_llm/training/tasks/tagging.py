"""Which tag each word of a text has."""

import dataclasses

import numpy as np
import tensorflow as tf

from keras_llm import data
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


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tagging(Task):
    """Tells the tag of every word, from JSON lines {"tokens": [...], "tags": [...]}.

    loss = -mean(log p(tag[w] | text)), over all words w of the step. A word is
    tokenized by itself; its first piece carries its tag, and the others carry none.
    The tags of the training examples, sorted, become the model's labels.

    >>> Tagging().kind
    'tagging'
    """

    kind = "tagging"

    def texts(self, source, config):
        """Yields the words of every example, with spaces between them."""
        for example in _read(source, config):
            yield examples_lib.utf8(" ".join(example["tokens"]))

    def fill_in(self, experiment, tokenizer, train_text):
        """Returns the experiment with the vocabulary's size and the tags."""
        check_architecture(self, experiment.model, "bert")
        examples_lib.check_head(self, experiment.model, "tag")
        model = fill_in_vocabulary(experiment.model, tokenizer)
        tags = _placed_tags(_read(train_text, experiment.data))
        return experiment.replace(model=examples_lib.fill_in_labels(model, tags))

    def batches(self, experiment, train_text, valid_text, tokenizer, team):
        """Returns batches of rows, with targets and weights [R, T] by their pieces."""
        config = experiment.data
        return examples_lib.encoded_batches(
            lambda source: _read(source, config),
            lambda *part: _encode(experiment, tokenizer, *part),
            train_text,
            valid_text,
            config,
            team,
        )

    def validation_batches(self, experiment, text, tokenizer, team):
        """Returns batches of examples that a model is judged by."""
        examples = list(_read(text, experiment.data))
        arrays = _encode(experiment, tokenizer, examples, "validation")
        return examples_lib.validation_examples(arrays, experiment.data, team)

    def objective(self, model, config, fuse=None, rows=None):
        """Returns the cross-entropy of the words' tags."""
        del fuse, rows
        return Objective(logits_loss(model, config.label_smoothing))

    def validator(self, strategy, model, batches):
        """Returns the judge by accuracy and macro F1 of the words' tags."""

        def sums(batch):
            logits = model(inputs_of(model, batch), training=False)
            each = losses.token_losses(logits, batch["targets"])
            targets, weights = (
                tf.reshape(batch[name], [-1]) for name in ("targets", "weights")
            )
            flat = tf.reshape(logits, [-1, logits.shape[-1]])
            return {
                "loss": tf.reduce_sum(batch["weights"] * each),
                "confusion": examples_lib.confusion(targets, flat, weights),
            }

        def judge(sums):
            words = max(1.0, float(sums["confusion"].sum()))
            scores = class_scores(sums["confusion"])
            loss = float(sums["loss"]) / words
            return Scores(loss, scores, batches.num_rows, sums["confusion"])

        return Validator(strategy, batches, sums, judge)

    def count_tokens(self, batch):
        """Returns the real tokens of a batch, special ones counted."""
        return int(batch["lengths"].sum())


def _check(example):
    """Raises ValueError unless every word has one tag, and both are strings."""
    tokens, tags = example["tokens"], example["tags"]
    if len(tokens) != len(tags) or not all(isinstance(x, str) for x in tokens + tags):
        raise ValueError(
            "Every token, a string, must have a tag, a string. Received: "
            f"{len(tokens)} tokens, {len(tags)} tags: {tokens!r:.100}, {tags!r:.100}. "
            "Repair or remove the line."
        )


def _read(source, config):
    return data.read_examples(source, {"tokens": list, "tags": list}, config, _check)


def _placed_tags(examples):
    return ((tag, data.place_of(e)) for e in examples for tag in e["tags"])


def _encode(experiment, tokenizer, examples, split):
    """Returns arrays of rows, targets and weights, each [N, T]."""
    if not examples:
        raise data.DataError(f"Examples are needed. Received: none for {split}.")
    rows, limit = EncoderRows(tokenizer), experiment.data.context
    labels = experiment.model.labels
    examples_lib.check_known(labels, _placed_tags(examples), split)
    words = [[examples_lib.utf8(word) for word in e["tokens"]] for e in examples]
    sizes = np.array([len(row) for row in words], "int64")
    ids = rows.tokenizer.encode(tf.constant(sum(words, []), tf.string))
    ids = ids.with_row_splits_dtype(tf.int64)
    by_example = tf.RaggedTensor.from_row_lengths(ids, sizes).merge_dims(1, 2)
    made = rows.join(by_example, limit=limit)
    arrays = {
        name: getattr(made, name).numpy()
        for name in ("token_ids", "segment_ids", "lengths")
    }
    examples_lib.log_cut(split, made.left_out.numpy(), limit)
    targets = np.zeros_like(arrays["token_ids"])
    weights = np.zeros(targets.shape, "float32")
    pieces = np.split(ids.row_lengths().numpy(), np.cumsum(sizes)[:-1])
    for i, (example, counts) in enumerate(zip(examples, pieces, strict=True)):
        first = 1 + np.cumsum(counts) - counts
        # A word of no pieces has no place; one beyond the cut has lost its.
        there = (counts > 0) & (first < arrays["lengths"][i] - 1)
        places = np.array([labels.index(tag) for tag in example["tags"]], "int32")
        targets[i, first[there]] = places[there]
        weights[i, first[there]] = 1.0
    return {**arrays, "targets": targets, "weights": weights}
