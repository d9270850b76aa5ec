"""How well a variational autoencoder of text tells texts, and what its latent says."""

import math
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_llm import data, models
from keras_llm.core import checks
from keras_llm.evaluation.context import measured_context
from keras_llm.ops import gaussian, latent_estimates, losses
from keras_llm.training import TextVAE
from keras_llm.training.tasks.sequence_to_sequence import closed_rows, teacher_forcing
from keras_llm.training.validation import perplexity

_LOGITS = 2**24  # That exist at one time: 64 MB.
_PAIRS = 2**24  # Values that an estimate of the mutual information holds: 64 MB.
_ROUNDING = 16  # Padded lengths are multiples of it, so that few graphs are traced.


def evaluate_latent(
    model: keras.Model,
    tokenizer: Any,
    text: Any,
    samples: int = 64,
    seed: int = 0,
    context: int | None = None,
    active_variance: float = 0.01,
    **text_fields: Any,
) -> dict[str, Any]:
    """Judges a text VAE by the likelihood of texts and by its use of the latent.

    Each text is drawn `samples` latents z from q(z | x); nll = -log of the mean over
    them of p(x | z) p(z) / q(z | x). It falls with their number, to -log p(x). What is
    drawn for a text depends on `seed` and the text's place alone.

    Args:
        model: A built text VAE.
        tokenizer: Its tokenizer.
        text: Files, folders or globs of texts: JSON lines, or lines of plain files.
        samples: Latents for each text.
        seed: Of the latents.
        context: Tokens of a text at most, its end token counted; None for the
            model's positions, at most 1,024. What is longer is cut.
        active_variance: A dimension is active whose mean varies by more than that.
        **text_fields: Of `data.TextConfig`, such as `json_field`.

    Returns:
        By name, in nats and as means over the texts:

        - nll: importance-weighted estimate of -log p(x); but for chance at most -elbo.
        - elbo: -(reconstruction + kl), the evidence lower bound of log p(x).
        - reconstruction: -log p(x | z), averaged over samples of q(z | x).
        - kl: KL(q(z | x) || p(z)).
        - mutual_information: I(x; z) under q; at most the logarithm of the texts.

        And nats_per_token, the nll of all texts divided by their tokens; perplexity =
        exp(nats_per_token); active_units, the dimensions whose mean differs between
        texts; num_texts; num_tokens, an end token for each text counted; left_out, the
        tokens beyond `context`; samples.

    Raises:
        data.DataError: There is no text to be found.
        ValueError: An argument outside its range.

    Source: Burda et al. 2016, https://arxiv.org/abs/1509.00519 (nll, active units);
    Hoffman and Johnson 2016, "ELBO surgery" (mutual information).
    """
    checks.check_positive("samples", samples)
    checks.check_not_negative("seed", seed)
    checks.check_not_negative("active_variance", active_variance)
    context = measured_context(model, context)
    ids, lengths, left_out = _rows(tokenizer, text, context, text_fields)
    measure = _Measure(model, samples, seed)
    found = {name: np.zeros(len(ids)) for name in ("reconstruction", "kl", "nll")}
    latents = {
        name: np.zeros((len(ids), model.config.latent_dim), np.float32)
        for name in ("z", "mean", "log_variance")
    }
    for rows in _batches(lengths, model.config.vocab_size):
        width = int(-(-lengths[rows].max() // _ROUNDING) * _ROUNDING)
        width = min(width, ids.shape[1])
        result = measure(ids[rows, :width], lengths[rows], rows)
        for name, value in result.items():
            (found if name in found else latents)[name][rows] = value
    tokens, nats = int(lengths.sum()), float(found["nll"].sum())
    means = {name: float(found[name].mean()) for name in found}
    active = latent_estimates.active_units(latents["mean"], active_variance)
    return {
        "nll": means["nll"],
        "elbo": -(means["reconstruction"] + means["kl"]),
        "reconstruction": means["reconstruction"],
        "kl": means["kl"],
        "mutual_information": _mutual_information(**latents),
        "active_units": int(active),
        "nats_per_token": nats / tokens,
        "perplexity": perplexity(nats / tokens),
        "num_texts": len(ids),
        "num_tokens": tokens,
        "left_out": left_out,
        "samples": samples,
    }


class _Measure:
    """What one batch of texts gives, row by row."""

    def __init__(self, model, samples, seed):
        self.decoder = models.decoder(model)
        self.config = model.config
        self.samples, self.seed = samples, seed
        ids, row = (
            tf.TensorSpec([None, None], tf.int32),
            tf.TensorSpec([None], tf.int32),
        )
        weights = tf.TensorSpec([None, None], tf.float32)
        latent = tf.TensorSpec([None, self.config.latent_dim], tf.float32)
        self._encode = tf.function(
            self.decoder.encode, input_signature=[ids, row], autograph=False
        )
        self._likelihood = tf.function(
            self._log_likelihood,
            input_signature=[ids, ids, weights, latent],
            autograph=False,
        )

    def __call__(self, ids, lengths, places):
        mean, log_variance = self._encode(ids, lengths)
        made = teacher_forcing(ids, lengths, self.config.start_id)
        noise_BPZ = np.stack([self._noise(place) for place in places])
        likelihoods, latents = [], []
        for i in range(self.samples):
            z = gaussian.sample(mean, log_variance, noise_BPZ[:, i])
            latents.append(z)
            likelihoods.append(
                self._likelihood(made["token_ids"], made["targets"], made["weights"], z)
            )
        weights_PB = latent_estimates.log_importance_weights(
            tf.stack(likelihoods), tf.stack(latents), mean, log_variance
        )
        kl_BZ = gaussian.kl_from_standard(mean, log_variance)
        return {
            "reconstruction": -tf.reduce_mean(tf.stack(likelihoods), axis=0),
            "kl": tf.reduce_sum(kl_BZ, axis=1),
            "nll": latent_estimates.importance_weighted_nll(weights_PB),
            "z": latents[0],
            "mean": mean,
            "log_variance": log_variance,
        }

    def _noise(self, place):
        random = np.random.default_rng([self.seed, int(place)])
        shape = (self.samples, self.config.latent_dim)
        return random.standard_normal(shape, np.float32)

    def _log_likelihood(self, token_ids, targets, weights, z):
        logits = self.decoder.logits(token_ids, z)
        return -tf.reduce_sum(weights * losses.token_losses(logits, targets), axis=1)


def _rows(tokenizer, text, context, text_fields):
    """Returns ids [N, context], lengths [N] and how many tokens were cut."""
    config = data.TextConfig(**text_fields)
    texts = [text.decode("utf-8", "replace") for text in TextVAE().texts(text, config)]
    ids, lengths = closed_rows(tokenizer, texts, context, "evaluation")
    kept = int(lengths.sum()) - len(texts)
    whole = int(tokenizer.encode(texts).flat_values.shape[0])
    return ids[:, : lengths.max()], lengths, whole - kept


def _batches(lengths, vocab_size):
    """Yields the places of rows of like length, as many as memory should hold."""
    order, start = np.argsort(-lengths, kind="stable"), 0
    while start < len(order):
        longest = int(lengths[order[start]])
        count = max(1, _LOGITS // (longest * vocab_size))
        yield order[start : start + count]
        start += count


def _mutual_information(z, mean, log_variance):
    """Returns the mean of the estimates over equal groups that memory can hold."""
    largest = max(2, math.isqrt(_PAIRS // z.shape[1]))
    groups = np.array_split(np.arange(len(z)), -(-len(z) // largest))
    found = [
        float(latent_estimates.mutual_information(z[g], mean[g], log_variance[g]))
        for g in groups
    ]
    return float(np.average(found, weights=[len(group) for group in groups]))
