"""Replaced-token detection: ELECTRA's pre-training."""

import dataclasses
import math

import tensorflow as tf

from keras_llm.core import checks
from keras_llm.data import masking
from keras_llm.ops import masked_tokens, masks
from keras_llm.training.task import (
    Objective,
    Task,
    check_architecture,
    refuse_carried_state,
)
from keras_llm.training.tasks import masked_rows
from keras_llm.training.validation import Scores, Validator


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReplacedTokens(Task):
    """Fills masked places with a generator's tokens and finds those it got wrong.

    With row r's m_r masked of n_r real tokens, the sum g_r of the generator's losses
    over the masked and the sum d_r of the discriminator's over the real ones:

        loss = sum_r(g_r + discriminator_weight * m_r / n_r * d_r) / sum_r(m_r)

    The generator's part is the mean over all masked tokens of the step. The
    discriminator's is a mean of its rows' means, each counted by its masked tokens:
    where m_r / n_r is the same in all, as in full rows without special tokens inside,
    the mean over all real tokens. Each term hangs on one row alone, so the loss does
    not depend on how rows are spread over replicas and micro-batches.

    Rows are made as in `MaskedLanguageModel`, but every masked place gets the mask id.
    Judged by `loss` as above; by `generator_loss` and `discriminator_loss`, its two
    parts before weighting, and `generator_accuracy`; and by `precision`, `recall` and
    `f1` of "replaced". Evaluated, the generator puts in its likeliest tokens.

    Source: Clark et al. 2020, section 2, https://arxiv.org/abs/2003.10555.

    >>> ReplacedTokens().kind
    'replaced_token_detection'
    """

    kind = "replaced_token_detection"

    mask_rate: float = 0.15  # Share of a row's tokens that is masked.
    whole_words: bool = False  # Whether all parts of a word are masked together.
    discriminator_weight: float = 50.0  # Of its loss beside the generator's.

    def __post_init__(self):
        masking.check_mask_rate(self.mask_rate)
        checks.check_positive("discriminator_weight", self.discriminator_weight)

    def fill_in(self, experiment, tokenizer, train_text):
        """Returns the experiment with the vocabulary's size."""
        del train_text
        check_architecture(self, experiment.model, "electra")
        return masked_rows.fill_in(experiment, tokenizer)

    def batches(self, experiment, train_text, valid_text, tokenizer, team):
        """Returns masked rows of the training and of the validation text."""
        return masked_rows.masked_batches(
            experiment,
            train_text,
            valid_text,
            tokenizer,
            team,
            **self._choices(),
        )

    def validation_batches(self, experiment, text, tokenizer, team):
        """Returns masked rows of a text that a model is judged by."""
        return masked_rows.validation_batches(
            experiment, text, tokenizer, team, **self._choices()
        )

    def _choices(self):
        return {
            "mask_rate": self.mask_rate,
            "whole_words": self.whole_words,
            "mask_share": 1.0,
            "random_share": 0.0,
        }

    def objective(self, model, config, fuse=None, rows=None):
        """Returns the joint loss; label smoothing is the generator's alone."""
        del fuse, rows
        refuse_carried_state(config)

        def summed_loss(batch, step):
            del step
            outputs = _outputs(model, batch, training=True)
            generator, _ = _generator_loss(outputs, batch, config.label_smoothing)
            discriminator = _discriminator_loss(outputs, batch)
            return generator + self.discriminator_weight * discriminator

        return Objective(summed_loss)

    def validator(self, strategy, model, batches):
        """Returns the judge over the masked rows of the validation text."""

        def sums(batch):
            outputs = _outputs(model, batch, training=False)
            generator, count = _generator_loss(outputs, batch)
            correct = masked_tokens.num_correct(
                outputs["generator_logits"],
                batch["token_ids"],
                batch["masked_positions"],
            )
            return {
                "generator": generator,
                "discriminator": _discriminator_loss(outputs, batch),
                "correct": correct,
                "count": count,
                **_found(outputs, batch),
            }

        def judge(sums):
            # NaN where nothing is masked: never the best.
            count = float(sums["count"]) or math.nan
            generator = float(sums["generator"]) / count
            discriminator = float(sums["discriminator"]) / count
            metrics = {
                "generator_loss": generator,
                "generator_accuracy": float(sums["correct"]) / count,
                "discriminator_loss": discriminator,
                **_scores_of_finding(sums["hits"], sums["alarms"], sums["replaced"]),
            }
            loss = generator + self.discriminator_weight * discriminator
            return Scores(loss, metrics, batches.num_rows)

        return Validator(strategy, batches, sums, judge)

    def count_tokens(self, batch):
        """Returns the real ids of a batch, masked or not."""
        return int(batch["lengths"].sum())


def _outputs(model, batch, training):
    inputs = {
        "token_ids": batch["token_ids"],
        "masked_ids": batch["masked_ids"],
        "masked_positions": batch["masked_positions"],
        "segment_ids": tf.zeros_like(batch["token_ids"]),
        "lengths": batch["lengths"],
    }
    return model(inputs, training=training)


def _generator_loss(outputs, batch, label_smoothing=0.0):
    return masked_tokens.masked_token_loss(
        outputs["generator_logits"],
        batch["token_ids"],
        batch["masked_positions"],
        label_smoothing,
    )


def _discriminator_loss(outputs, batch):
    """Returns the sum over rows of their mean loss times their masked tokens."""
    total_R = masked_tokens.replaced_token_losses(
        outputs["discriminator_logits"],
        batch["token_ids"],
        outputs["corrupted_ids"],
        batch["lengths"],
    )
    length_R = tf.cast(tf.maximum(batch["lengths"], 1), tf.float32)
    return tf.reduce_sum(total_R * tf.reduce_sum(batch["weights"], axis=1) / length_R)


def _found(outputs, batch):
    """Returns how many tokens were replaced, said to be, and both."""
    logits = outputs["discriminator_logits"]
    real = masks.real_tokens(batch["lengths"], tf.shape(logits)[1])
    replaced = real & (batch["token_ids"] != outputs["corrupted_ids"])
    alarms = real & (logits > 0)
    counted = {"hits": replaced & alarms, "alarms": alarms, "replaced": replaced}
    return {n: tf.reduce_sum(tf.cast(v, tf.float32)) for n, v in counted.items()}


def _scores_of_finding(hits, alarms, replaced):
    """Returns precision, recall and their harmonic mean; 0 where they have no base."""
    return {
        "precision": float(hits / alarms) if alarms else 0.0,
        "recall": float(hits / replaced) if replaced else 0.0,
        "f1": float(2 * hits / (alarms + replaced)) if alarms + replaced else 0.0,
    }
