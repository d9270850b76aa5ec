"""From a text to a latent and back: a variational autoencoder."""

import dataclasses
import math

import keras
import numpy as np
import tensorflow as tf

from keras_llm import data, models
from keras_llm.core import checks
from keras_llm.ops import elbo, kl_weight
from keras_llm.training.objective import (
    inputs_of,
    training_head_loss,
    validation_head_loss,
)
from keras_llm.training.task import (
    Objective,
    Task,
    check_architecture,
    fill_in_vocabulary,
    refuse_carried_state,
)
from keras_llm.training.tasks import examples as examples_lib
from keras_llm.training.tasks.sequence_to_sequence import closed_rows, teacher_forcing
from keras_llm.training.validation import Scores, Validator, perplexity

SCHEDULES = ("constant", "linear", "cyclical", "sigmoid")
ACTIVE_VARIANCE = 0.01  # As in `latent_estimates.active_units`.


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextVAE(Task):
    """Writes each text again from a latent, at the price of what the latent says.

    loss = sum over rows of (-log p(x | z) + beta(step) * KL) / target tokens, z drawn
    from q(z | x): nats per token. The KL counts once a row, with a floor as in
    `elbo.free_bits`, whose mean is over one replica's rows of one micro-batch.

    A row is a JSON line's text or, unless `data.document_separator` says otherwise,
    a line of a plain file; cut to `data.context` tokens, the end token included.

    Judged by `loss`: reconstruction from the posterior's mean plus the KL with weight
    1, in nats a row. The mean makes it repeatable; only an average over samples of z
    is a bound. Beside it `reconstruction` and `kl` in nats a row, `perplexity` =
    exp(loss a token), and `active_units`.

    Aggressive training lets the encoder catch up with the decoder: in the first
    `aggressive_steps` steps only every (`aggressive_ratio` + 1)-th changes all
    weights; the others change the encoder's alone. How long that lasts is fixed
    beforehand, not found by measuring.

    Source: Bowman et al. 2016, https://arxiv.org/abs/1511.06349; He et al. 2019,
    algorithm 1, https://arxiv.org/abs/1901.05534 (aggressive training).

    >>> TextVAE(beta=-1.0)
    Traceback (most recent call last):
    ...
    ValueError: `beta` must be at least 0. Received: beta=-1.0.
    """

    kind = "text_vae"

    beta: float = 1.0  # Weight of the KL, at the end of its schedule.
    beta_schedule: str = "constant"  # Or "linear", "cyclical", "sigmoid".
    beta_steps: int = 1_000  # "linear", "cyclical": steps until it stays at `beta`.
    beta_cycles: int = 4  # "cyclical": rises within `beta_steps`.
    beta_rising: float = 0.5  # "cyclical": share of a cycle in which it rises.
    beta_middle: int = 500  # "sigmoid": the step of half of `beta`.
    beta_width: float = 100.0  # "sigmoid": steps in which its odds grow by e.
    free_bits: float = 0.0  # Nats of KL that cost nothing.
    free_bits_per: str = "dimension"  # Or "total": for all dimensions together.
    aggressive_steps: int = 0  # Steps, from the first, of aggressive training.
    aggressive_ratio: int = 10  # In those: encoder's steps before each of all weights.

    def __post_init__(self):
        checks.check_choice("beta_schedule", self.beta_schedule, SCHEDULES)
        checks.check_not_negative("beta", self.beta)
        for name in ("beta_steps", "beta_cycles", "beta_rising", "beta_width"):
            checks.check_positive(name, getattr(self, name))
        checks.check_in_range("beta_rising", self.beta_rising, 0, 1)
        checks.check_not_negative("beta_middle", self.beta_middle)
        checks.check_not_negative("free_bits", self.free_bits)
        checks.check_choice("free_bits_per", self.free_bits_per, elbo.SCOPES)
        checks.check_not_negative("aggressive_steps", self.aggressive_steps)
        checks.check_positive("aggressive_ratio", self.aggressive_ratio)

    def texts(self, source, config):
        """Yields every row's text."""
        return data.read_documents(source, _by_line(config))

    def fill_in(self, experiment, tokenizer, train_text):
        """Returns the experiment with the vocabulary's size."""
        del train_text
        check_architecture(self, experiment.model, "text_vae")
        model = fill_in_vocabulary(experiment.model, tokenizer)
        return experiment.replace(model=model)

    def batches(self, experiment, train_text, valid_text, tokenizer, team):
        """Returns batches of texts, what the decoder reads, and its targets."""
        config = experiment.data

        def read(source):
            for text in self.texts(source, config):
                yield {"text": text.decode("utf-8", "replace")}

        splits = examples_lib.read_splits(read, train_text, valid_text, config)
        arrays = []
        for examples, split in zip(splits, ("training", "validation"), strict=True):
            texts = [example["text"] for example in examples]
            ids, lengths = closed_rows(tokenizer, texts, config.context, split)
            arrays.append(
                {
                    "source_ids": ids,
                    "source_lengths": lengths,
                    **teacher_forcing(ids, lengths, experiment.model.start_id),
                }
            )
        return examples_lib.example_batches(*arrays, config, team)

    def objective(self, model, config, fuse=None, rows=None):
        """Returns the negative ELBO with its weight and floor."""
        del rows
        refuse_carried_state(config)
        trunk = _trunk(model)
        reconstruction = training_head_loss(model, config.label_smoothing, fuse)

        def summed_loss(batch, step):
            outputs = trunk(inputs_of(model, batch), training=True)
            real = _real_rows(batch)
            kl = elbo.free_bits(outputs["kl"], self.free_bits, self.free_bits_per, real)
            price = self.beta_at(step) * tf.reduce_sum(real) * kl
            return reconstruction(outputs["hidden"], batch) + price

        return Objective(summed_loss, moves=self._moves(model))

    def _moves(self, model):
        """Returns which weights a step changes, or None where it is always all."""
        if not self.aggressive_steps:
            return None
        # The table that both sides read stays with the decoder: p(x | z) rests on it.
        of_encoder = [
            weight.path.startswith(("encoder_", "posterior/"))
            for weight in model.trainable_variables
        ]

        def moves(step):
            whole = self.moves_whole_model(step)
            return [encoder or whole for encoder in of_encoder]

        return moves

    def moves_whole_model(self, step):
        """Returns whether a step changes all weights, or the encoder's alone.

        >>> task = TextVAE(aggressive_steps=7, aggressive_ratio=2)
        >>> [bool(task.moves_whole_model(step)) for step in range(9)]
        [False, False, True, False, False, True, False, True, True]
        """
        turn = (step + 1) % (self.aggressive_ratio + 1)
        return (step >= self.aggressive_steps) | (turn == 0)

    def beta_at(self, step):
        """Returns the weight of the KL at a step, float32.

        >>> float(TextVAE(beta_schedule="linear", beta_steps=4).beta_at(1))
        0.25
        """
        if self.beta_schedule == "linear":
            return kl_weight.linear(step, self.beta_steps, self.beta)
        if self.beta_schedule == "cyclical":
            return kl_weight.cyclical(
                step, self.beta_steps, self.beta_cycles, self.beta_rising, self.beta
            )
        if self.beta_schedule == "sigmoid":
            return kl_weight.sigmoid(step, self.beta_middle, self.beta_width, self.beta)
        return kl_weight.constant(step, self.beta)

    def validator(self, strategy, model, batches):
        """Returns the judge over the validation texts."""
        return _validator(strategy, model, batches)

    def count_tokens(self, batch):
        """Returns the real tokens read and written."""
        return int(batch["source_lengths"].sum() + batch["weights"].sum())


def _by_line(config: data.TextConfig) -> data.TextConfig:
    if config.document_separator is not None:
        return config
    return config.replace(document_separator="\n")


def _trunk(model: keras.Model) -> keras.Model:
    """Returns the model but for its head: logits are made some tokens at a time."""
    layers, _ = models.split_head(model)
    return keras.Model(
        model.input,
        {
            "hidden": layers.output,
            "kl": model.output["kl"],
            "mean": model.output["mean"],
        },
    )


def _real_rows(batch):
    """Returns 1 for rows that count and 0 for padding, [R]."""
    return tf.reduce_max(batch["weights"], axis=1)


def _validator(strategy, model: keras.Model, batches) -> Validator[Scores]:
    trunk, reconstruction = _trunk(model), validation_head_loss(model)

    def sums(batch):
        outputs = trunk(inputs_of(model, batch), training=False)
        real = _real_rows(batch)
        mean = real[:, None] * outputs["mean"]
        return {
            "reconstruction": reconstruction(outputs["hidden"], batch),
            "kl": tf.reduce_sum(real[:, None] * outputs["kl"]),
            "rows": tf.reduce_sum(real),
            "tokens": tf.reduce_sum(batch["weights"]),
            "mean": tf.reduce_sum(mean, axis=0),
            "square": tf.reduce_sum(mean * outputs["mean"], axis=0),
        }

    def judge(sums):
        # NaN where there is no row to judge by: never the best.
        rows = float(sums["rows"]) or math.nan
        total = float(sums["reconstruction"] + sums["kl"])
        variance = sums["square"] / rows - (sums["mean"] / rows) ** 2
        metrics = {
            "reconstruction": float(sums["reconstruction"]) / rows,
            "kl": float(sums["kl"]) / rows,
            "perplexity": perplexity(total / (float(sums["tokens"]) or math.nan)),
            "active_units": float(np.sum(variance > ACTIVE_VARIANCE)),
        }
        return Scores(total / rows, metrics, batches.num_rows)

    return Validator(strategy, batches, sums, judge)
