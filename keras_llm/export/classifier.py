"""An exported classifier: texts, or pairs of texts, to labels."""

import tensorflow as tf

from keras_llm.export.encoder import TEXT, TEXTS, EncoderServable

_EXAMPLE = """The probabilities are those of LABELS, in this order.

```bash
curl -d '{"instances": ["TEXT"]}' \\
  http://127.0.0.1:8501/v1/models/{name}:predict
curl -d '{"signature_name": "classify_pair",
  "instances": [{"text": "TEXT", "text_pair": "ANOTHER TEXT"}]}' \\
  http://127.0.0.1:8501/v1/models/{name}:predict
```
"""


class ClassifierServable(EncoderServable):
    """The signatures `classify` and `classify_pair`.

    A text longer than the model reads is cut, as in training: of a pair the longer
    one first. `left_out` says by how many tokens.
    """

    def head_functions(self):
        """Returns what answers each signature, by signature name."""
        classify = self.classify, {"text": TEXT}
        pair = self.classify_pair, {"text": TEXT, "text_pair": TEXT}
        return {
            "serving_default": classify,
            "classify": classify,
            "classify_pair": pair,
        }

    def classify(self, text):
        """Returns the likeliest label of each text.

        Args:
            text: String [B]; any bytes.

        Returns:
            Dict of `label` string [B]; `probabilities` float32 [B, L] in the order of
            the config's labels; `num_tokens` int32 [B], the tokens read, special ones
            counted; `left_out` int32 [B], those of the text that were cut.
        """
        return self._judged(self.rows(text, limit=self.limit))

    def classify_pair(self, text, text_pair):
        """Returns the likeliest label of each pair, as `classify` does."""
        text_pair = self.paired(text=text, text_pair=text_pair)
        return self._judged(self.rows(text, text_pair, self.limit))

    def _judged(self, rows):
        logits = self.output(rows)
        labels = tf.constant(self.model.config.labels)
        return {
            "label": tf.gather(labels, tf.argmax(logits, axis=-1)),
            "probabilities": tf.nn.softmax(logits),
            "num_tokens": rows.lengths,
            "left_out": rows.left_out,
        }

    def warmup_requests(self):
        """Returns a small request to every signature."""
        text = tf.constant(["a"])
        return [
            ("serving_default", {"text": text}),
            ("classify", {"text": text}),
            ("classify_pair", {"text": text, "text_pair": text}),
            ("tokenize", {"text": text}),
        ]

    def cases(self, answer):
        """Yields requests to every signature: a mixed batch, then single rows."""
        del answer
        texts = list(TEXTS)
        # Twice as many tokens as there is room for, where there is an end to it.
        if self.limit < 1_000:
            texts.append("a b " * self.limit)
        yield "classify", {"text": texts}
        yield "classify_pair", {"text": texts, "text_pair": texts[::-1]}
        for text in texts:
            yield "serving_default", {"text": [text]}
        yield "tokenize", {"text": texts}

    def example(self):
        """Returns commands that ask for a label, and the labels."""
        labels = ", ".join(map(repr, self.model.config.labels))
        return _EXAMPLE.replace("LABELS", labels)

    def limits(self):
        """Returns how long a request may be, for the card."""
        return f"cut to {super().limits()}"
