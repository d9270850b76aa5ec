"""An exported masked language model: the tokens that fit between two texts."""

import tensorflow as tf

from keras_llm import models
from keras_llm.export.encoder import TEXT, TEXTS, EncoderServable
from keras_llm.tokenizers import repair_utf8

CANDIDATES = 10

_EXAMPLE = """```bash
curl -d '{"instances": [{"before": "Call me", "after": "."}]}' \\
  http://127.0.0.1:8501/v1/models/{name}:predict
```
"""


class FillMaskServable(EncoderServable):
    """The signature `fill_mask`: what stands between `before` and `after`?

    The mask enters by its id, between two texts: text that spells "[MASK]" is text
    like any other. Both texts together must fit the model's positions.

    Raises:
        ValueError: The tokenizer has no mask.
    """

    def __init__(self, model, tokenizer, jit, weights):
        if "mask" not in tokenizer.special_ids:
            raise ValueError(
                "A masked language model needs a tokenizer with the role 'mask': one "
                "of kind 'wordpiece', or trained with `mask`. Received: "
                f"{tokenizer.kind!r} with {tokenizer.special_ids}."
            )
        super().__init__(model, tokenizer, jit, weights)
        self._trunk, self._project = models.split_head(model)

    def head_functions(self):
        """Returns what answers each signature, by signature name."""
        fill_mask = self.fill_mask, {"before": TEXT, "after": TEXT}
        return {"serving_default": fill_mask, "fill_mask": fill_mask}

    def fill_mask(self, before, after):
        """Returns the likeliest tokens between two texts.

        Args:
            before: String [B].
            after: String [B].

        Returns:
            Dict of `tokens` string [B, K], valid UTF-8, likeliest first, K = 10 or
            all there are; `token_ids` int32 [B, K]; `probabilities` float32 [B, K].
            Special tokens and pieces that stand for no text, as SentencePiece's mark
            of a word's beginning, are no candidates, though the probabilities count
            them.
        """
        after = self.paired(before=before, after=after)
        left, right = (
            ids.with_row_splits_dtype(tf.int64)
            for ids in (
                self.tokenizer.encode(before),
                self.tokenizer.encode(after, continues=True),
            )
        )
        mask = tf.fill([left.nrows(), 1], self.tokenizer.special_ids["mask"])
        rows = self.rows.join(tf.concat([left, mask, right], axis=1))
        rows = self.fitting(rows, "`before` and `after` together")
        inputs = {name: getattr(rows, name) for name in self.model.input}
        hidden = self._trunk(inputs, training=False)
        logits = self._project(tf.gather(hidden, left.row_lengths() + 1, batch_dims=1))
        logits = tf.cast(logits, tf.float32)[:, : self.tokenizer.vocab_size]
        is_text = self._is_text()
        probabilities = tf.nn.softmax(logits) * tf.cast(is_text, tf.float32)
        count = min(CANDIDATES, int(is_text.sum()))
        best, ids = tf.math.top_k(probabilities, count)
        tokens = self.tokenizer.decode(tf.reshape(ids, [-1, 1]))
        return {
            "tokens": tf.reshape(repair_utf8(tokens), [-1, count]),
            "token_ids": ids,
            "probabilities": best,
        }

    def _is_text(self):
        """Returns bool [V]: False for special ids, sentinels and what is no text."""
        with tf.init_scope():  # Once, not in the graph.
            ids = tf.range(self.tokenizer.vocab_size)[:, None]
            is_text = self.tokenizer.decode(ids).numpy() != b""
        is_text[list(self.tokenizer.special_ids.values())] = False
        is_text[list(getattr(self.tokenizer, "sentinel_ids", ()))] = False
        return is_text

    def warmup_requests(self):
        """Returns a small request to every signature."""
        text = tf.constant(["a"])
        pair = {"before": text, "after": text}
        return [
            ("serving_default", pair),
            ("fill_mask", pair),
            ("tokenize", {"text": text}),
        ]

    def cases(self, answer):
        """Yields requests to every signature: a mixed batch, then single rows."""
        del answer
        pairs = list(zip(TEXTS, TEXTS[::-1], strict=True))
        pairs = [pair for pair in pairs if self.fits(*pair)]
        before, after = ([pair[i] for pair in pairs] for i in (0, 1))
        yield "fill_mask", {"before": before, "after": after}
        for one, other in pairs:
            yield "serving_default", {"before": [one], "after": [other]}
        yield "tokenize", {"text": before}

    def example(self):
        """Returns a command that asks for a missing word."""
        return _EXAMPLE
