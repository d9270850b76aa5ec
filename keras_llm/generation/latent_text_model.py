"""A variational autoencoder of text: from strings to latents and back to strings."""

import tensorflow as tf

from keras_llm.generation import loop, stopping
from keras_llm.generation import parameters as parameters_lib
from keras_llm.generation.parameters import Parameters
from keras_llm.generation.sequence_to_sequence import SequenceToSequence
from keras_llm.ops import paths, random


class LatentTextModel(SequenceToSequence):
    """Encodes texts to latents, and writes texts from latents.

    As an encoder-decoder it writes its prompt anew, from the mean of the prompt's
    posterior: `generate` is the reconstruction.

    Args:
        model: A text VAE.
        tokenizer: Its tokenizer.
        jit: Whether decoding is compiled by XLA.
    """

    def __init__(self, model, tokenizer, jit=False):
        super().__init__(model, tokenizer, jit)
        self.latent_dim = model.config.latent_dim
        self._decode_latents = tf.function(
            self._decode_from,
            input_signature=loop.decode_signature(
                tf.TensorSpec([None, self.latent_dim], tf.float32)
            ),
            jit_compile=jit or None,
            autograph=False,
        )

    def encode(self, text):
        """Returns the posterior of each text.

        Args:
            text: String [B]; any bytes.

        Returns:
            `mean` and `log_variance`, float32 [B, Z].

        Raises:
            tf.errors.InvalidArgumentError: When run, on a text that is too long.
        """
        token_ids, lengths = self.encode_prompt(text)
        fits = tf.debugging.Assert(
            tf.reduce_all(lengths <= self.limit),
            [
                f"A text must hold at most {self.limit} tokens, its end token "
                "counted, the positions that this model has; shorten it. Received, "
                "in tokens:",
                lengths,
            ],
            summarize=8,
        )
        with tf.control_dependencies([fits]):
            token_ids = tf.identity(token_ids)
        return self.decoder.encode(token_ids, lengths)

    def write(self, z, parameters: Parameters, stop):
        """Writes a text from each latent.

        Args:
            z: Float32 [B, Z].
            parameters: The knobs, one value per row.
            stop: As in `generate`.

        Returns:
            As `generate`, without `prompt_tokens`.

        Raises:
            tf.errors.InvalidArgumentError: When run, on a value out of range.
        """
        nothing_read = tf.zeros([tf.shape(z)[0]], tf.int32)
        parameters = parameters_lib.with_room(parameters, self.room(nothing_read))
        parameters = self.check(parameters, nothing_read)
        same_rows = parameters_lib.require_rows("stop", stop, z)
        with tf.control_dependencies([same_rows, self._check_latents(z)]):
            stops = stopping.parse(tf.identity(stop), self.bucket)
            z = tf.identity(z)
        room = self.most_new_tokens(parameters)
        z, capacity = self.bounded(z, self.capacity(1, room))
        state = self._decode_latents(z, nothing_read, parameters, stops, room, capacity)
        return self.written(loop.without_spare_columns(state))

    def between(self, text_a, text_b, fraction):
        """Returns latents [B, Z] on the straight way between the means of two texts.

        Args:
            text_a: String [B].
            text_b: String [B].
            fraction: Float32 [B] from 0, the first text, to 1, the second.
        """
        checks = [
            parameters_lib.require_rows("text_b", text_b, text_a),
            parameters_lib.require_rows("fraction", fraction, text_a),
            parameters_lib.require_range("fraction", fraction, 0.0, 1.0),
        ]
        with tf.control_dependencies(checks):
            text_a, text_b = tf.identity(text_a), tf.identity(text_b)
        start, _ = self.encode(text_a)
        end, _ = self.encode(text_b)
        return paths.linear(start, end, fraction)

    def draw(self, seed):
        """Returns a latent [B, Z] from the prior for each seed, int32 [B].

        The same seed draws the same latent, whatever the batch.
        """
        return random.normal(seed, self.latent_dim)

    def _check_latents(self, z):
        return tf.debugging.Assert(
            tf.reduce_all(tf.math.is_finite(z)),
            ["`z` must be finite. Received:", z],
            summarize=8,
        )

    def _decode_from(self, z, lengths, parameters, stops, room, capacity):
        request = self.request(parameters, stops)
        begun = _FromLatents(self.decoder)
        state = loop.decode(begun, z, lengths, request, room, capacity)
        return loop.without_caches(state)


class _FromLatents:
    """A decoder whose prompt is a latent."""

    prompt_in_cache = False

    def __init__(self, decoder):
        self.decoder = decoder
        self.step = decoder.step

    def prefill(self, z, lengths, capacity):
        """Returns the first logits and the state; of latents nothing is padding."""
        del lengths
        return self.decoder.prefill_latent(z, capacity)
