"""Learning which of two replies is preferred, without a model of rewards."""

import dataclasses

import numpy as np
import tensorflow as tf

from keras_llm import data, models
from keras_llm.core import checks
from keras_llm.models.prompts import refuse_prompt
from keras_llm.tokenizers import ChatEncoder
from keras_llm.training.objective import (
    head_token_losses,
    inputs_of,
    training_head_loss,
)
from keras_llm.training.task import (
    Objective,
    Task,
    check_architecture,
    fill_in_vocabulary,
    refuse_label_smoothing,
)
from keras_llm.training.tasks import examples as examples_lib
from keras_llm.training.tasks.chat import check_turns, conversations
from keras_llm.training.validation import means_validator

_SIDES = ("chosen", "rejected")
_REFERENCE_ROWS = 8  # Replies that the reference reads at a time.


@dataclasses.dataclass(frozen=True, kw_only=True)
class Preferences(Task):
    """Direct preference optimisation, from JSON lines of a prompt and two replies.

    A line is {"messages": [...], "chosen": ..., "rejected": ...}: messages as in the
    task "chat", but that the user has the last word, and two replies to them.

    loss = mean(-log sigmoid(z)) over the pairs,
    z = beta * ((log p(chosen) - log q(chosen)) - (log p(rejected) - log q(rejected))),
    p the model, q the reference, both given the messages. log q is found once, before
    the first step. What is common to both sides has no part in z.

    Each side has a row of its own; what exceeds `data.context` tokens is cut.

    Judged by `loss`, `accuracy` (the share of pairs with z > 0) and `margin`, the mean
    of z.

    Attributes:
        reference: Model folder of q; as a rule that which the run starts from.
        beta: How dear it is to leave the reference.

    Source: Rafailov et al. 2023, eq. 7, https://arxiv.org/abs/2305.18290.

    >>> Preferences(reference="models/smol", beta=0.0)
    Traceback (most recent call last):
    ...
    ValueError: `beta` must be positive. Received: beta=0.0.
    """

    kind = "preferences"

    reference: str = ""  # Model folder that replies are compared with; required.
    beta: float = 0.1  # Of z; less lets the model go further from the reference.

    def __post_init__(self):
        checks.check_positive("beta", self.beta)

    def texts(self, source, config):
        """Yields every message's content, and both replies."""
        for example in _read(source, config):
            for message in example["messages"]:
                yield examples_lib.utf8(message["content"])
            for side in _SIDES:
                yield examples_lib.utf8(example[side])

    def fill_in(self, experiment, tokenizer, train_text):
        """Returns the experiment with the vocabulary's size.

        Raises:
            ValueError: The tokenizer knows no template, or `reference` is missing.
        """
        del train_text
        check_architecture(self, experiment.model, "gemma", "gpt2", "llama", "lstm_lm")
        ChatEncoder(tokenizer)
        if not self.reference:
            raise ValueError(
                "Preferences are learnt beside a reference model. Received: "
                "task.reference=''. Give its folder, as a rule that of --init."
            )
        model = fill_in_vocabulary(experiment.model, tokenizer)
        return experiment.replace(model=model.replace(separator_id=None))

    def batches(self, experiment, train_text, valid_text, tokenizer, team):
        """Returns pairs of rows with the reference's log probability of each."""
        config = experiment.data
        reference = models.load(self.reference)
        refuse_prompt(
            reference,
            "Replies are compared with those of a plain model.",
            f"Give the model that {self.reference} is an adapter of.",
        )
        log_probs = reply_log_probs(reference)

        def encode(examples, split):
            arrays = _encoded(config.context, tokenizer, examples, split)
            arrays["reference"] = _in_parts(log_probs, arrays)
            return arrays

        return examples_lib.encoded_batches(
            lambda source: _read(source, config),
            encode,
            train_text,
            valid_text,
            config,
            team,
        )

    def objective(self, model, config, fuse=None, rows=None):
        """Returns the loss of the pairs.

        Its gradient is that of the replies' cross-entropies, each weighted by how far
        z is from being certain; so the head is read some tokens at a time, as in any
        training, and the weights come from a first reading without gradient.
        """
        del rows
        refuse_label_smoothing(config, "Preferences")
        trunk, _ = models.split_head(model)
        log_probs = head_log_probs(model)
        weighted_loss = training_head_loss(model, fuse=fuse)

        def summed_loss(batch, step):
            del step
            flat = _flat(batch)
            hidden = trunk(inputs_of(model, flat), training=True)
            z = self._certainty(log_probs(tf.stop_gradient(hidden), flat), batch)
            value = tf.reduce_sum(batch["weights"] * tf.nn.softplus(-z))
            slope = batch["weights"] * self.beta * tf.sigmoid(-z)
            sides = tf.reshape(tf.stack([slope, -slope], axis=1), (-1, 1))
            weights = flat["marks"] * tf.stop_gradient(sides)
            moved = weighted_loss(hidden, {**flat, "weights": weights})
            return moved + tf.stop_gradient(value - moved)

        return Objective(summed_loss)

    def validator(self, strategy, model, batches):
        """Returns the judge by loss, accuracy and margin."""
        log_probs = reply_log_probs(model)

        def each(batch):
            z = self._certainty(log_probs(_flat(batch)), batch)
            return {
                "loss": tf.nn.softplus(-z),
                "accuracy": tf.cast(z > 0, tf.float32),
                "margin": z,
            }

        return means_validator(strategy, batches, each)

    def _certainty(self, log_probs, batch):
        """Returns z float32 [R]."""
        gain = tf.reshape(log_probs, (-1, 2)) - batch["reference"]
        return self.beta * (gain[:, 0] - gain[:, 1])

    def count_tokens(self, batch):
        """Returns the tokens of both sides."""
        return examples_lib.count_to_padding(batch["token_ids"])


def head_log_probs(model):
    """Returns the function from hidden states [N, T, D] and rows to log p [N].

    The rows are `targets` int32 and `marks` float32, 1 where a token counts, [N, T].
    """
    token_losses = head_token_losses(model)

    def log_probs(hidden, rows):
        each = [part for _, part in token_losses(hidden, rows["targets"])]
        each = tf.reshape(tf.concat(each, axis=0), rows["targets"].shape)
        return -tf.reduce_sum(rows["marks"] * each, axis=1)

    return log_probs


def reply_log_probs(model):
    """Returns the function from rows [N, T] to log p [N] of their marked tokens."""
    trunk, _ = models.split_head(model)
    log_probs = head_log_probs(model)
    return lambda rows: log_probs(trunk(inputs_of(model, rows), training=False), rows)


def _flat(batch):
    """Returns the rows of both sides under each other, [2 R, T]."""
    return {
        name: tf.reshape(batch[name], (-1, batch[name].shape[-1]))
        for name in ("token_ids", "targets", "marks")
    }


def _in_parts(log_probs, arrays):
    """Returns log q float32 [N, 2], some rows at a time."""
    rows = _flat(arrays)
    compiled = tf.function(log_probs, reduce_retracing=False)
    total = rows["targets"].shape[0]
    found = [
        compiled({name: x[i : i + _REFERENCE_ROWS] for name, x in rows.items()})
        for i in range(0, total, _REFERENCE_ROWS)
    ]
    return np.concatenate([part.numpy() for part in found]).reshape(-1, 2)


def _encoded(context, tokenizer, examples, split):
    if not examples:
        raise data.DataError(f"Examples are needed. Received: none for {split}.")
    size, encoder = context + 1, ChatEncoder(tokenizer)
    talks = [
        {"messages": [*e["messages"], {"role": "assistant", "content": e[side]}]}
        for e in examples
        for side in _SIDES
    ]
    ids, marks = np.zeros((2, len(talks), size), np.int32)
    left_out = np.zeros(len(talks), np.int64)
    for i, (row, mark) in enumerate(conversations(encoder, talks)):
        left_out[i] = max(0, len(row) - size)
        ids[i, : len(row)], marks[i, : len(row)] = row[:size], mark[:size]
    examples_lib.log_cut(split, left_out.reshape(-1, 2).max(axis=1), context)
    arrays = {"token_ids": ids[:, :-1], "targets": ids[:, 1:], "marks": marks[:, 1:]}
    pairs = {name: x.reshape(-1, 2, context) for name, x in arrays.items()}
    pairs["marks"] = pairs["marks"].astype(np.float32)
    pairs["weights"] = np.ones(len(examples), np.float32)
    return pairs


def _read(source, config):
    fields = {"messages": list, "chosen": str, "rejected": str}
    return data.read_examples(source, fields, config, _check)


def _check(example):
    """Raises ValueError unless an example is a prompt with two unlike replies."""
    reply = {"role": "assistant", "content": example["chosen"]}
    check_turns([*example["messages"], reply])
    if example["chosen"] == example["rejected"]:
        raise ValueError(
            "The replies of a pair must differ. Received twice: "
            f"{example['chosen'][:60]!r}."
        )
