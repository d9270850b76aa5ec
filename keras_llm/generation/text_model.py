"""A decoder-only model, which continues its prompt, from strings to strings."""

import tensorflow as tf

from keras_llm.generation import parameters as parameters_lib
from keras_llm.generation.prompt_model import PromptModel, right_padded, scores
from keras_llm.models.prompts import check_prompted
from keras_llm.tokenizers import ChatEncoder


class TextModel(PromptModel):
    """Generates, scores and tokenizes text with a language model.

    Prompt and continuation are one text: together they hold `limit` tokens at most.
    A prompt without tokens starts from the end token, as a new document does.
    """

    def chat(self, roles, contents, parameters, stop, adapter=None):
        """Writes the assistant's next reply in each conversation.

        Args:
            roles: String [B, M]; see `tokenizers.ChatEncoder.prompts`.
            contents: String [B, M].
            parameters: The knobs, one value per row.
            stop: String [B, S], as in `generate`.
            adapter: As in `generate`.

        Returns:
            What `generate` returns.

        Raises:
            ValueError: The tokenizer knows no template, or another prompt than the
                model has learnt.
            tf.errors.InvalidArgumentError: When run, on a role or a value out of
                range, or a conversation that leaves no room for a reply.
        """
        encoder = ChatEncoder(self.tokenizer)
        check_prompted(self.model, self.tokenizer)
        with tf.control_dependencies([self.require_short("contents", contents)]):
            rows = encoder.prompts(roles, tf.identity(contents))
        lengths = tf.cast(rows.row_lengths(), tf.int32)
        token_ids = right_padded(rows, 1)
        return self.continued(token_ids, lengths, parameters, stop, adapter)

    def room(self, prompt_tokens):
        """Returns what the prompt leaves of the limit."""
        return self.limit - prompt_tokens

    def capacity(self, longest, room):
        """Returns the slots for prompt and continuation."""
        return tf.minimum(longest + room, self.limit)

    def score(self, prompt, completion, adapter=None):
        """Returns how likely each completion is, as `PromptModel.score`."""
        with tf.control_dependencies(
            [
                parameters_lib.require_rows("completion", completion, prompt),
                self.require_short("prompt", prompt),
                self.require_short("completion", completion),
            ]
        ):
            before = self.prompt_rows(tf.identity(prompt))
            after = self.tokenizer.encode(tf.identity(completion))
        rows = tf.concat([before, after], axis=1)
        lengths = tf.cast(rows.row_lengths(), tf.int32)
        fits = tf.debugging.Assert(
            tf.reduce_all(lengths <= self.limit),
            [
                f"Prompt and completion must hold at most {self.limit} tokens "
                "together, the positions that this model has; shorten them. "
                "Received, in tokens:",
                lengths,
            ],
            summarize=8,
        )
        with tf.control_dependencies([fits]):
            token_ids = right_padded(rows, 2)
        with self.adapters.using(self.adapters.rows(adapter, lengths)):
            log_probs = self.token_log_probs(token_ids[:, :-1], token_ids[:, 1:])
        first = tf.cast(before.row_lengths(), tf.int32)[:, None]
        column = tf.range(1, tf.shape(token_ids)[1])[None]
        counts = (column >= first) & (column < lengths[:, None])
        num_tokens = tf.cast(after.row_lengths(), tf.int32)
        return scores(tf.where(counts, log_probs, 0.0), completion, num_tokens)

    def prompt_rows(self, prompt):
        """Returns each prompt's ids, the end token where there are none."""
        rows = self.tokenizer.encode(prompt)
        is_empty = tf.cast(tf.equal(rows.row_lengths(), 0), tf.int32)
        start = tf.RaggedTensor.from_row_lengths(
            tf.fill([tf.reduce_sum(is_empty)], self.end_id), is_empty
        )
        return tf.concat([start.with_row_splits_dtype(rows.row_splits.dtype), rows], 1)
