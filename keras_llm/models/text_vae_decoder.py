"""From text to latent and from latent to text, over a built model's layers."""

import keras
from keras import ops

from keras_llm.models.latent_writers import writer
from keras_llm.models.transformer import check_capacity, output_head


class TextVAEDecoder:
    """Encoding to a latent and cached decoding from one, over a built model's layers.

    The state is a dict of tensors with leading dimension B: `z` [B, Z], never changed
    by a step; and for an LSTM `h_0`, `c_0` and so on [B, D], for a Transformer
    `keys_0`, `values_0` and so on [B, N, C, H] and `position` int32 [B].

    Args:
        model: From `build_text_vae`.
        jit: Whether XLA will compile `step`.
    """

    prompt_in_cache = False  # The prompt is the source; slots hold the target alone.

    def __init__(self, model: keras.Model, jit: bool = False):
        self.model = model
        self.jit = jit
        self.config = model.config
        self.writer = writer(self.config, {layer.name: layer for layer in model.layers})
        self.project = output_head(model, jit)
        inputs, outputs = model.input, model.output
        self._encoder = keras.Model(
            {name: inputs[name] for name in ("source_ids", "source_lengths")},
            [outputs["mean"], outputs["log_variance"]],
        )
        self._reader = keras.Model(
            [inputs["token_ids"], outputs["z"]], outputs["logits"]
        )

    def encode(self, source_ids, lengths):
        """Returns the posterior of right-padded texts.

        Args:
            source_ids: Int32 [B, S].
            lengths: Int32 [B], the real tokens of each row.

        Returns:
            mean and log_variance, float32 [B, Z].

        Raises:
            ValueError: A text longer than `max_positions`.
        """
        source_ids = ops.convert_to_tensor(source_ids)
        self._check_room(source_ids.shape[1])
        lengths = ops.cast(lengths, "int32")
        mean, log_variance = self._encoder(
            {"source_ids": source_ids, "source_lengths": lengths}
        )
        return mean, log_variance

    def logits(self, token_ids, z):
        """Returns the model's logits under given latents.

        For estimates of log p(x) from several samples of z for each text.

        Args:
            token_ids: Int32 [B, T]: `start_id`, then the text without its last token.
            z: Float32 [B, Z].

        Returns:
            Float32 [B, T, V].
        """
        return self._reader([ops.convert_to_tensor(token_ids), ops.cast(z, "float32")])

    def prefill(self, token_ids, lengths, capacity):
        """Encodes texts, to decode each one anew from its posterior's mean.

        Args:
            token_ids: Int32 [B, S], right-padded.
            lengths: Int32 [B], each from 1 to S: the real tokens of each row.
            capacity: C >= 1, the target's slots; int or scalar tensor.

        Returns:
            Logits float32 [B, V] for the first token, and the state.

        Raises:
            ValueError: A text or a capacity longer than `max_positions`.
        """
        mean, _ = self.encode(token_ids, lengths)
        return self.prefill_latent(mean, capacity)

    def prefill_latent(self, z, capacity):
        """Starts to decode from latents; z ~ N(0, I) samples from the prior.

        Args:
            z: Float32 [B, Z].
            capacity: As in `prefill`.

        Returns:
            As `prefill`.

        Raises:
            ValueError: A capacity longer than `max_positions`.
        """
        self._check_room(capacity)
        z = ops.cast(z, "float32")
        start = ops.zeros_like(z[:, 0], dtype="int32") + self.config.start_id
        return self.step(start, self.writer.initial_state(z, capacity))

    def step(self, token_ids, state):
        """Runs one token per row.

        Args:
            token_ids: Int32 [B].
            state: From `prefill`, `prefill_latent` or `step`. What a row gets whose
                cache is full means nothing.

        Returns:
            Logits float32 [B, V] for the token after it, and the new state.
        """
        hidden, state = self.writer.step(token_ids, state, self.jit)
        return self.project(hidden), state

    def _check_room(self, length):
        if self.config.max_positions is not None:
            check_capacity(length, length, self.config.max_positions)
