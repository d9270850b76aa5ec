"""Masked language modelling: BERT's pre-training."""

import dataclasses
import math

import tensorflow as tf

from keras_llm import models
from keras_llm.data import masking
from keras_llm.ops import masked_tokens
from keras_llm.training.task import (
    Objective,
    Task,
    check_architecture,
    refuse_carried_state,
)
from keras_llm.training.tasks import masked_rows
from keras_llm.training.validation import Scores, Validator, perplexity


@dataclasses.dataclass(frozen=True, kw_only=True)
class MaskedLanguageModel(Task):
    """Finds the tokens behind masks, from both sides.

    loss = -mean(log p(token | the row as masked)), over all masked tokens of the step.
    A row has `data.context` ids: text between `[CLS]` and `[SEP]`, masked anew each
    time that it is seen, as in `data.TokenMasking`. Validation rows are masked alike
    at every evaluation.

    Judged by `loss`, `accuracy` and `perplexity` of the masked tokens.

    Source: Devlin et al. 2019, section 3.1, https://arxiv.org/abs/1810.04805, without
    the prediction of the next sentence (Liu et al. 2019,
    https://arxiv.org/abs/1907.11692, section 4.2).

    >>> MaskedLanguageModel(mask_rate=1.5)
    Traceback (most recent call last):
    ...
    ValueError: `mask_rate` must be above 0 and below 1: it is the share of tokens \
that are masked. Received: mask_rate=1.5.
    """

    kind = "masked_language_model"

    mask_rate: float = 0.15  # Share of a row's tokens that is masked.
    whole_words: bool = False  # Whether all parts of a word are masked together.

    def __post_init__(self):
        masking.check_mask_rate(self.mask_rate)

    def fill_in(self, experiment, tokenizer, train_text):
        """Returns the experiment with the vocabulary's size."""
        del train_text
        check_architecture(self, experiment.model, "bert")
        if experiment.model.head != "masked_lm":
            raise ValueError(
                f"The task {self.kind!r} trains a BERT that scores ids. Received: "
                f"model.head={experiment.model.head!r}. Set model.head='masked_lm'; "
                "another head is put on afterwards."
            )
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
        return {"mask_rate": self.mask_rate, "whole_words": self.whole_words}

    def objective(self, model, config, fuse=None, rows=None):
        """Returns the mean cross-entropy; only masked tokens are scored."""
        del fuse, rows
        refuse_carried_state(config)
        score = _scorer(model, training=True)

        def summed_loss(batch, step):
            del step
            total, _ = masked_tokens.masked_token_loss(
                score(batch),
                batch["token_ids"],
                batch["masked_positions"],
                config.label_smoothing,
            )
            return total

        return Objective(summed_loss)

    def validator(self, strategy, model, batches):
        """Returns the judge over the masked tokens of the validation text."""
        score = _scorer(model, training=False)

        def sums(batch):
            logits = score(batch)
            places = (batch["token_ids"], batch["masked_positions"])
            total, count = masked_tokens.masked_token_loss(logits, *places)
            correct = masked_tokens.num_correct(logits, *places)
            return {"loss": total, "correct": correct, "count": count}

        def judge(sums):
            # NaN where nothing is masked: never the best.
            count = float(sums["count"]) or math.nan
            loss = float(sums["loss"]) / count
            metrics = {
                "accuracy": float(sums["correct"]) / count,
                "perplexity": perplexity(loss),
            }
            return Scores(loss, metrics, batches.num_rows)

        return Validator(strategy, batches, sums, judge)

    def count_tokens(self, batch):
        """Returns the real ids of a batch, masked or not."""
        return int(batch["lengths"].sum())


def _scorer(model, training):
    """Returns the function from a batch to logits at its masked places, [R, M, V]."""
    trunk, project = models.split_head(model)

    def score(batch):
        inputs = {
            "token_ids": batch["masked_ids"],
            "segment_ids": tf.zeros_like(batch["masked_ids"]),
            "lengths": batch["lengths"],
        }
        hidden = trunk(inputs, training=training)
        return project(masked_tokens.take(hidden, batch["masked_positions"]))

    return score
