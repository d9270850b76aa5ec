"""Sampling, reconstruction and interpolation of texts from Python."""

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from keras_llm.core import checks
from keras_llm.generation import parameters as parameters_lib
from keras_llm.generation.generator import check_texts, readable_errors, stop_rows
from keras_llm.generation.latent_text_model import LatentTextModel
from keras_llm.ops import paths

PATHS = {"linear": paths.linear, "spherical": paths.spherical}


class LatentGenerator:
    """Writes texts with a text VAE in memory.

    Wherever texts are written, `stop` and the fields of `generation.Parameters` may be
    given by name: one value for all rows, or one per row.

    Args:
        model: A built text VAE.
        tokenizer: Its tokenizer.
        jit: Whether decoding is compiled by XLA.
    """

    def __init__(self, model, tokenizer, jit=False):
        self.text_model = LatentTextModel(model, tokenizer, jit)
        text = tf.TensorSpec([None], tf.string)
        rows = {n: tf.TensorSpec([None], d) for n, d in parameters_lib.DTYPES.items()}
        self._encode = tf.function(
            self.text_model.encode, input_signature=[text], autograph=False
        )
        self._write = tf.function(
            self.text_model.write,
            input_signature=[
                tf.TensorSpec([None, self.text_model.latent_dim], tf.float32),
                parameters_lib.Parameters(**rows),
                tf.TensorSpec([None, None], tf.string),
            ],
            autograph=False,
        )

    def encode(self, texts: Sequence[str | bytes]) -> tuple[np.ndarray, np.ndarray]:
        """Returns mean and log-variance [B, Z] of the posterior of each text.

        Raises:
            ValueError: A text is too long.
        """
        check_texts("texts", texts)
        with readable_errors():
            mean, log_variance = self._encode(
                tf.constant(list(texts), tf.string, [len(texts)])
            )
        return mean.numpy(), log_variance.numpy()

    def write(self, z, stop=(), **parameters) -> list[str]:
        """Returns the text of each latent [B, Z].

        Raises:
            ValueError: `z` is of another width or not finite, or a parameter is
                unknown or out of range.
        """
        z = np.asarray(z, np.float32)
        width = self.text_model.latent_dim
        if not (z.ndim == 2 and z.shape[1] == width):
            raise ValueError(
                f"`z` must be a latent of {width} numbers for each text: [B, {width}]. "
                f"Received: shape {z.shape}."
            )
        knobs = parameters_lib.make(len(z), **parameters)
        room = self.text_model.room(tf.zeros([len(z)], tf.int32))
        knobs = parameters_lib.with_room(knobs, room)
        with readable_errors():
            found = self._write(tf.constant(z), knobs, stop_rows(stop, len(z)))
        return [text.decode() for text in found["text"].numpy()]

    def sample(self, count: int, seed: int = 0, stop=(), **parameters) -> list[str]:
        """Returns texts written from latents that are drawn from the prior.

        Latent i is that of seed + i, and so are the tokens drawn where `temperature`
        is above 0. A served `vae_sample` gives the same for these seeds.

        Args:
            count: How many.
            seed: Of the first.
            stop: As in `write`.
            **parameters: As in `write`.
        """
        checks.check_positive("count", count)
        checks.check_in_range("seed", seed, 0, 2**31 - count)
        seeds = np.arange(seed, seed + count, dtype=np.int32)
        z = self.text_model.draw(tf.constant(seeds))
        return self.write(z, stop, seed=seeds, **parameters)

    def reconstruct(
        self, texts: Sequence[str | bytes], stop=(), **parameters
    ) -> list[str]:
        """Returns each text as it is written from its posterior's mean."""
        return self.write(self.encode(texts)[0], stop, **parameters)

    def interpolate(
        self,
        start: str | bytes,
        end: str | bytes,
        steps: int = 5,
        path: str = "linear",
        stop=(),
        **parameters,
    ) -> list[str]:
        """Returns texts from one to another, both ends' reconstructions included.

        Args:
            start: The first text.
            end: The last.
            steps: How many texts, 2 at least.
            path: "linear", or "spherical": see `ops.paths`.
            stop: As in `write`.
            **parameters: As in `write`.

        Raises:
            ValueError: As `write` and `encode`; or `steps` or `path` is none there is.
        """
        checks.check_choice("path", path, tuple(PATHS))
        if not steps >= 2:
            raise ValueError(
                "`steps` must be at least 2: the two ends are among them. "
                f"Received: steps={steps}."
            )
        mean, _ = self.encode([start, end])
        fractions = np.linspace(0.0, 1.0, steps)
        z = PATHS[path](
            np.repeat(mean[:1], steps, 0), np.repeat(mean[1:], steps, 0), fractions
        )
        return self.write(z, stop, **parameters)
