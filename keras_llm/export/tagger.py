"""An exported tagger: a label for every word of a text."""

import tensorflow as tf

from keras_llm.export.encoder import TEXT, TEXTS, EncoderServable
from keras_llm.export.located import check_locates
from keras_llm.tokenizers.tokenizer import rows_of_values

_EXAMPLE = """The labels are LABELS.

```bash
curl -d '{"instances": ["TEXT"]}' \\
  http://127.0.0.1:8501/v1/models/{name}:predict
```
"""


class TaggerServable(EncoderServable):
    """The signature `tag`.

    A word goes from a piece that opens one to the last that continues it, and has
    the label of the first, as in training. A text longer than the model's positions
    is refused.

    Raises:
        ValueError: The tokenizer does not tell where its tokens are.
    """

    def __init__(self, model, tokenizer, jit, weights):
        check_locates(tokenizer, "tag")
        super().__init__(model, tokenizer, jit, weights)

    def head_functions(self):
        """Returns what answers each signature, by signature name."""
        tag = self.tag, {"text": TEXT}
        return {"serving_default": tag, "tag": tag}

    def tag(self, text):
        """Returns the label of every word.

        Args:
            text: String [B].

        Returns:
            Dict of `labels` string [B, N], padded with ""; `probabilities` float32
            [B, N], each label's, padded with 0; `starts` and `ends` int32 [B, N], the
            bytes of the text from which and up to which each word goes, padded with
            -1; `num_words` int32 [B].
        """
        ids, starts, ends = self.tokenizer.encode_with_offsets(text)
        rows = self.fitting(self.rows.join(ids), "`text`")
        probabilities = tf.nn.softmax(self.output(rows))
        row_N = tf.cast(rows_of_values(ids), tf.int64)
        place_N = tf.range(tf.size(row_N, tf.int64)) - tf.gather(
            tf.cast(ids.row_starts(), tf.int64), row_N
        )
        found_NL = tf.gather_nd(probabilities, tf.stack([row_N, place_N + 1], axis=1))
        labels = tf.gather(
            tf.constant(self.model.config.labels), tf.argmax(found_NL, axis=-1)
        )
        opens_N = ~tf.gather(tf.constant(self.tokenizer.continues), ids.values)
        # What follows a word's last piece opens a word, in this row or the next.
        closes_N = tf.concat([opens_N[1:], tf.ones_like(opens_N[:1])], axis=0)

        def words(values_N, chosen_N):
            return tf.ragged.boolean_mask(
                ids.with_values(values_N), ids.with_values(chosen_N)
            )

        of_words = words(labels, opens_N)
        best = words(tf.reduce_max(found_NL, axis=-1), opens_N)
        return {
            "labels": of_words.to_tensor(""),
            "probabilities": best.to_tensor(0.0),
            "starts": words(starts.values, opens_N).to_tensor(-1),
            "ends": words(ends.values, closes_N).to_tensor(-1),
            "num_words": tf.cast(of_words.row_lengths(), tf.int32),
        }

    def warmup_requests(self):
        """Returns a small request to every signature."""
        request = {"text": tf.constant(["a"])}
        return [(name, request) for name in ("serving_default", "tag", "tokenize")]

    def cases(self, answer):
        """Yields requests to every signature: a mixed batch, then single rows."""
        del answer
        texts = [text for text in TEXTS if self.fits(text)]
        yield "tag", {"text": texts}
        for text in texts:
            yield "serving_default", {"text": [text]}
        yield "tokenize", {"text": texts}

    def example(self):
        """Returns a command that asks for labels, and the labels."""
        labels = ", ".join(map(repr, self.model.config.labels))
        return _EXAMPLE.replace("LABELS", labels)
