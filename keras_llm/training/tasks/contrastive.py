"""Vectors of texts: that of a text is made like its partner's, and unlike others'."""

import dataclasses
import hashlib

import numpy as np
import tensorflow as tf

from keras_llm import data
from keras_llm.core import checks
from keras_llm.tokenizers import EncoderRows
from keras_llm.training.objective import inputs_of
from keras_llm.training.task import (
    Objective,
    Task,
    check_architecture,
    fill_in_vocabulary,
    refuse_label_smoothing,
)
from keras_llm.training.tasks import examples as examples_lib
from keras_llm.training.validation import means_validator

SIDES = ("text", "text_pair")
_INPUTS = ("token_ids", "segment_ids", "lengths")
_LEFT_OUT = -1e9  # Of a score that does not count.


@dataclasses.dataclass(frozen=True, kw_only=True)
class Contrastive(Task):
    """Finds a text's partner among those of others, from JSON lines of pairs.

    A line is {"text": ..., "text_pair": ...}, such as a question and its answer, or a
    title and its article. With v the vectors of a `bert` of head "embed", scaled to
    length 1,

    s[i, j] = v(text[i]) . v(text_pair[j]) / temperature
    loss = -mean_i(log(exp s[i, i] / sum_j exp s[i, j])),

    j over the pairs of i's group but for those that share either text with i, word for
    word: theirs is no wrong answer.
    A group is `group` neighbours in the batch, so that the loss is the same on however
    many replicas the rows lie; the larger, the harder and the better. A text beyond
    `data.context` tokens is cut.

    Judged by `loss` and `accuracy`, the share of texts whose own partner is nearer than
    all others of the group: figures of groups of one size alone can be compared.

    Source: Henderson et al. 2017, section 4.4, https://arxiv.org/abs/1705.00652;
    temperature and length 1 as in Gao et al. 2021, https://arxiv.org/abs/2104.08821.

    >>> Contrastive(group=1)
    Traceback (most recent call last):
    ...
    ValueError: `group` must be at least 2: a text alone has no other's partner to be \
told from. Received: group=1.
    """

    kind = "contrastive"
    wants_a_start = True

    temperature: float = 0.05
    # Pairs told from each other; None: the rows of a micro-batch, on one device.
    group: int | None = None

    def __post_init__(self):
        checks.check_positive("temperature", self.temperature)
        if self.group is not None and self.group < 2:
            raise ValueError(
                "`group` must be at least 2: a text alone has no other's partner to be "
                f"told from. Received: group={self.group}."
            )

    def texts(self, source, config):
        """Yields both texts of every pair."""
        for example in read_pairs(source, config):
            yield from (examples_lib.utf8(example[side]) for side in SIDES)

    def fill_in(self, experiment, tokenizer, train_text):
        """Returns the experiment with the vocabulary's size.

        Raises:
            ValueError: The model gives no vectors, or groups do not fit the batch.
        """
        del train_text
        check_architecture(self, experiment.model, "bert")
        examples_lib.check_head(self, experiment.model, "embed")
        self._check_rows(experiment.data.batch_size)
        model = fill_in_vocabulary(experiment.model, tokenizer)
        return experiment.replace(model=model)

    def batches(self, experiment, train_text, valid_text, tokenizer, team):
        """Returns batches of both texts' inputs, their keys and weights."""
        config = experiment.data
        return examples_lib.encoded_batches(
            lambda source: read_pairs(source, config),
            lambda *part: _encoded(config.context, tokenizer, *part),
            train_text,
            valid_text,
            config,
            team,
        )

    def objective(self, model, config, fuse=None, rows=None):
        """Returns the loss of the pairs."""
        del fuse
        refuse_label_smoothing(config, "Pairs")
        replicas = tf.distribute.get_strategy().num_replicas_in_sync
        if replicas > 1 and self.group is None:
            raise ValueError(
                "Several replicas need groups that lie on one of them each. Received: "
                f"task.group=None, {replicas} replicas. Set it to the rows of a "
                "replica, or a divisor."
            )
        if rows is not None:
            self._check_rows(rows // replicas)

        def summed_loss(batch, step):
            del step
            each, _ = self._judged(model, batch, training=True)
            return tf.reduce_sum(batch["weights"] * each)

        return Objective(summed_loss)

    def validator(self, strategy, model, batches):
        """Returns the judge by loss and accuracy."""

        def each(batch):
            loss, nearest = self._judged(model, batch, training=False)
            return {"loss": loss, "accuracy": nearest}

        return means_validator(strategy, batches, each)

    def count_tokens(self, batch):
        """Returns the real tokens of both sides, special ones counted."""
        return sum(int(batch[f"{side}/lengths"].sum()) for side in SIDES)

    def _judged(self, model, batch, training):
        """Returns each pair's loss, and 1 where its partner is nearest, float32 [R]."""
        size = self.group or tf.shape(batch["weights"])[0]
        asking_GND, partners_GND = (
            tf.reshape(vectors, (-1, size, vectors.shape[-1]))
            for vectors in (
                unit_vectors(
                    model, {n: batch[f"{side}/{n}"] for n in _INPUTS}, training
                )
                for side in SIDES
            )
        )
        scores_GNN = tf.matmul(asking_GND, partners_GND, transpose_b=True)
        keys_GN2 = tf.reshape(batch["keys"], (-1, size, 2))
        unlike_GNN = tf.reduce_all(keys_GN2[:, :, None] != keys_GN2[:, None], axis=-1)
        real_GN = tf.reshape(batch["weights"], (-1, size)) > 0
        others_GNN = unlike_GNN & real_GN[:, None]
        scores_GNN /= self.temperature
        own_GN = tf.linalg.diag_part(scores_GNN)
        of_others_GNN = tf.where(others_GNN, scores_GNN, _LEFT_OUT)
        nearest = own_GN > tf.reduce_max(of_others_GNN, axis=-1)
        all_GNN = tf.linalg.set_diag(of_others_GNN, own_GN)
        each = tf.reduce_logsumexp(all_GNN, axis=-1) - own_GN
        nearest = tf.cast(nearest, tf.float32)
        return tf.reshape(each, [-1]), tf.reshape(nearest, [-1])

    def _check_rows(self, rows):
        if rows < 2:
            raise ValueError(
                "A pair is told from the others of its batch: each replica needs two "
                f"rows or more. Received: {rows} a replica. Raise data.batch_size."
            )
        if rows % (self.group or 1):
            raise ValueError(
                "Groups fill the rows of a replica without a rest. Received: "
                f"task.group={self.group}, {rows} rows a replica. Change task.group or "
                "data.batch_size."
            )


def unit_vectors(model, rows, training):
    """Returns the vectors of rows, scaled to length 1, float32 [R, D]."""
    vectors = model(inputs_of(model, rows), training=training)
    return tf.math.l2_normalize(tf.cast(vectors, tf.float32), axis=-1)


def read_pairs(source, config):
    """Yields the examples of a source, each with both texts."""
    return data.read_examples(source, dict.fromkeys(SIDES, str), config)


def _encoded(context, tokenizer, examples, split):
    """Returns arrays of both texts' rows, each [N, ...], their keys and weights.

    Each side is as wide as its own longest text: questions are shorter than answers.
    """
    rows, arrays, keys = EncoderRows(tokenizer), {}, []
    for side, which in zip(SIDES, (split, f"{split} partners'"), strict=True):
        texts = [example[side] for example in examples]
        encoded = examples_lib.encode_texts(rows, texts, None, context, which)
        arrays |= {f"{side}/{name}": encoded[name] for name in _INPUTS}
        keys.append([_key(examples_lib.utf8(text)) for text in texts])
    arrays["keys"] = np.array(keys, np.int64).T
    arrays["weights"] = np.ones(len(examples), np.float32)
    return arrays


def _key(text):
    """Returns a number that equal texts share, and unlike ones hardly ever do."""
    return int.from_bytes(hashlib.sha256(text).digest()[:8], "little", signed=True)
