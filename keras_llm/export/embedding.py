"""An exported encoder that gives a text one vector."""

import tensorflow as tf

from keras_llm.export.encoder import TEXT, TEXTS, EncoderServable

_EXAMPLE = """```bash
curl -d '{"instances": ["TEXT"]}' \\
  http://127.0.0.1:8501/v1/models/{name}:predict
```
"""


class EmbeddingServable(EncoderServable):
    """The signature `embed`; a text longer than the model's positions is refused."""

    def head_functions(self):
        """Returns what answers each signature, by signature name."""
        embed = self.embed, {"text": TEXT}
        return {"serving_default": embed, "embed": embed}

    def embed(self, text):
        """Returns `embedding` float32 [B, D] and `num_tokens` int32 [B]."""
        rows = self.fitting(self.rows(text), "`text`")
        return {"embedding": self.output(rows), "num_tokens": rows.lengths}

    def warmup_requests(self):
        """Returns a small request to every signature."""
        request = {"text": tf.constant(["a"])}
        return [(name, request) for name in ("serving_default", "embed", "tokenize")]

    def cases(self, answer):
        """Yields requests to every signature: a mixed batch, then single rows."""
        del answer
        texts = [text for text in TEXTS if self.fits(text)]
        yield "embed", {"text": texts}
        for text in texts:
            yield "serving_default", {"text": [text]}
        yield "tokenize", {"text": texts}

    def example(self):
        """Returns a command that asks for a vector."""
        return _EXAMPLE
