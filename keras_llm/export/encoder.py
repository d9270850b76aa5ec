"""An exported encoder: what the heads' signatures share."""

import abc

import tensorflow as tf

from keras_llm.export.servable import Function, Servable
from keras_llm.generation.prompt_model import UNBOUNDED_LIMIT
from keras_llm.tokenizers import EncoderRows, Rows

TEXTS = ("", "The", "Call me Ishmael.", "一二三，café 🙂\n\t  x")

TEXT = tf.TensorSpec([None], tf.string)


class EncoderServable(Servable):
    """The signatures of a model that reads a text and writes none.

    Text is read as in training, as `tokenizers.EncoderRows` frames it. Nothing
    depends on the other rows of a batch.

    Args:
        model: A built encoder.
        tokenizer: Its tokenizer.
        jit: Must be False: one pass over texts of any length gains nothing by it.
        weights: The variables that the model computes with.

    Raises:
        ValueError: `jit` is True, or the tokenizer has ids that the model lacks.
    """

    def __init__(self, model, tokenizer, jit, weights):
        if jit:
            raise ValueError(
                "An encoder is exported without XLA, which would compile it anew for "
                "every length of text. Received: jit=True. Set jit=False."
            )
        if not tokenizer.vocab_size <= model.config.vocab_size:
            raise ValueError(
                "The model must have a row for every id of its tokenizer. Received: "
                f"tokenizer.vocab_size={tokenizer.vocab_size}, model "
                f"vocab_size={model.config.vocab_size}. Give the tokenizer that the "
                "model was trained with."
            )
        super().__init__(model, tokenizer, jit, weights)
        self.rows = EncoderRows(tokenizer, model.config.architecture == "bert")
        self.limit = getattr(model.config, "max_positions", None) or UNBOUNDED_LIMIT

    def functions(self) -> dict[str, Function]:
        """Returns the head's functions and `tokenize`, by signature name."""
        return {**self.head_functions(), "tokenize": (self.tokenize, {"text": TEXT})}

    @abc.abstractmethod
    def head_functions(self) -> dict[str, Function]:
        """Returns the head's functions, `serving_default` among them."""

    def tokenize(self, text):
        """Returns each text's token ids, special ones left out."""
        rows = self.tokenizer.encode(text)
        return {
            "token_ids": rows.to_tensor(-1),
            "num_tokens": tf.cast(rows.row_lengths(), tf.int32),
        }

    def paired(self, **texts):
        """Returns the second of two texts once it has as many rows as the first."""
        (first_name, first), (name, second) = texts.items()
        same = tf.debugging.Assert(
            tf.equal(tf.shape(second)[0], tf.shape(first)[0]),
            [
                f"`{name}` must have as many rows as `{first_name}`. Received rows:",
                tf.shape(second),
                tf.shape(first),
            ],
        )
        with tf.control_dependencies([same]):
            return tf.identity(second)

    def output(self, rows: Rows) -> tf.Tensor:
        """Returns what the model gives for rows, in float32."""
        inputs = {name: getattr(rows, name) for name in self.model.input}
        return tf.cast(self.model(inputs, training=False), tf.float32)

    def fitting(self, rows: Rows, names: str) -> Rows:
        """Returns the rows once each has been found to be within the limit."""
        too_long = tf.where(rows.lengths > self.limit)[:, 0]
        fits = tf.debugging.Assert(
            tf.equal(tf.size(too_long), 0),
            [
                f"{names} must hold at most {self.limit} tokens, special ones "
                "counted, the positions that this model has; shorten the text. "
                "Received, by number from 0:",
                too_long,
                "in tokens:",
                tf.gather(rows.lengths, too_long),
            ],
            summarize=8,
        )
        with tf.control_dependencies([fits]):
            return Rows(*map(tf.identity, rows))

    def fits(self, *texts: str) -> bool:
        """Whether texts, framed together, are within the limit."""
        return int(self.rows(*([text] for text in texts)).lengths[0]) <= self.limit

    def limits(self):
        """Returns how long a request may be, for the card."""
        return f"{self.limit} tokens, special ones counted"
