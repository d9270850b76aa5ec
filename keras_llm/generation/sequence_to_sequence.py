"""An encoder-decoder, which answers a source by a target, from strings to strings."""

import tensorflow as tf

from keras_llm import models
from keras_llm.generation import parameters as parameters_lib
from keras_llm.generation.prompt_model import PromptModel, right_padded, scores
from keras_llm.generation.text_model import TextModel


class SequenceToSequence(PromptModel):
    """Generates, scores and tokenizes text with an encoder-decoder.

    The prompt is the source. It is read with an end token after it, so that an empty
    one is that token alone; the target starts from the model's own start token.
    Source and target hold `limit` tokens at most each. The repetition penalty knows
    the target alone.
    """

    def room(self, prompt_tokens):
        """Returns the limit: the source takes nothing of it."""
        return tf.fill(tf.shape(prompt_tokens), self.limit)

    def capacity(self, longest, room):
        """Returns the slots for the target."""
        del longest
        return tf.minimum(room, self.limit)

    def score(self, prompt, completion, adapter=None):
        """Returns how likely each completion is, as `PromptModel.score`."""
        same_rows = parameters_lib.require_rows("completion", completion, prompt)
        short = [
            self.require_short("prompt", prompt),
            self.require_short("completion", completion),
        ]
        with tf.control_dependencies([same_rows, *short]):
            source = self.prompt_rows(tf.identity(prompt))
            target = self.tokenizer.encode(tf.identity(completion))
        source_lengths = tf.cast(source.row_lengths(), tf.int32)
        lengths = tf.cast(target.row_lengths(), tf.int32)
        fits = tf.debugging.Assert(
            tf.reduce_all((source_lengths <= self.limit) & (lengths <= self.limit)),
            [
                f"Prompt and completion must hold at most {self.limit} tokens each, "
                "the positions that this model has; shorten them. Received, in "
                "tokens:",
                source_lengths,
                lengths,
            ],
            summarize=8,
        )
        with tf.control_dependencies([fits]):
            source_ids, targets = right_padded(source, 1), right_padded(target, 1)
        start = tf.fill([tf.shape(targets)[0], 1], self.model.config.start_id)
        inputs = {
            "source_ids": source_ids,
            "source_lengths": source_lengths,
            "token_ids": tf.concat([start, targets[:, :-1]], axis=1),
        }
        with self.adapters.using(self.adapters.rows(adapter, lengths)):
            log_probs = self.token_log_probs(inputs, targets)
        counts = tf.range(tf.shape(targets)[1])[None] < lengths[:, None]
        return scores(tf.where(counts, log_probs, 0.0), completion, lengths)

    def prompt_rows(self, prompt):
        """Returns each source's ids, the end token after them."""
        rows = self.tokenizer.encode(prompt)
        ends = tf.fill([rows.nrows(out_type=tf.int32), 1], self.end_id)
        ends = tf.RaggedTensor.from_tensor(ends, row_splits_dtype=rows.row_splits.dtype)
        return tf.concat([rows, ends], axis=1)


def make_prompt_model(model, tokenizer, jit=False) -> PromptModel:
    """Returns the functions from strings to strings of either kind of model.

    Args:
        model: A built model that has a decoder.
        tokenizer: Its tokenizer.
        jit: Whether decoding is compiled by XLA.
    """
    continues = models.decoder(model).prompt_in_cache
    kind = TextModel if continues else SequenceToSequence
    return kind(model, tokenizer, jit)
