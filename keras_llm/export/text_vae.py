"""An exported variational autoencoder: texts to latents and back."""

import tensorflow as tf

from keras_llm.export.servable import Function, Servable
from keras_llm.generation import LatentTextModel
from keras_llm.generation import parameters as parameters_lib
from keras_llm.generation.parameters import Parameters

_TEXT = tf.TensorSpec([None], tf.string)
_TEXTS = ("", "The", "Call me Ishmael.", "一二三，café 🙂\n\t  x")
_NEW_TOKENS = 12
_EXAMPLE = """A text written anew from its latent, and one halfway between two:

```bash
curl -d '{"instances": ["TEXT"]}' \\
  http://127.0.0.1:8501/v1/models/{name}:predict
curl -d '{"signature_name": "vae_interpolate", "instances": [
  {"text_a": "TEXT", "text_b": "ANOTHER TEXT", "fraction": 0.5}]}' \\
  http://127.0.0.1:8501/v1/models/{name}:predict
```

New ones, from latents of the prior:

```bash
curl -d '{"signature_name": "vae_sample", "instances": [1, 2, 3]}' \\
  http://127.0.0.1:8501/v1/models/{name}:predict
```
"""


class TextVAEServable(Servable):
    """The signatures `vae_encode`, `vae_decode`, `vae_interpolate` and `vae_sample`.

    Where no knobs are given, a text is written greedily, by 64 tokens or the
    positions that the model has. An interpolated or sampled latent comes with its
    text, to be written otherwise by `vae_decode`.

    Args:
        model: A built text VAE.
        tokenizer: Its tokenizer.
        jit: Whether decoding is compiled by XLA.
        weights: The variables that the model computes with.
    """

    def __init__(self, model, tokenizer, jit, weights):
        super().__init__(model, tokenizer, jit, weights)
        # What has the functions that are exported.
        self.text_model = LatentTextModel(model, tokenizer, jit)

    def functions(self) -> dict[str, Function]:
        """Returns what answers each signature, by signature name."""
        row = tf.TensorSpec([None], tf.int32)
        fraction = tf.TensorSpec([None], tf.float32)
        z = tf.TensorSpec([None, self.text_model.latent_dim], tf.float32)
        stop = tf.TensorSpec([None, None], tf.string)
        knobs = {n: tf.TensorSpec([None], d) for n, d in parameters_lib.DTYPES.items()}
        pair = {"text_a": _TEXT, "text_b": _TEXT, "fraction": fraction}
        return {
            "serving_default": (self.serving_default, {"text": _TEXT}),
            "vae_encode": (self.vae_encode, {"text": _TEXT}),
            "vae_decode": (self.vae_decode, {"z": z, "stop": stop, **knobs}),
            "vae_interpolate": (self.vae_interpolate, pair),
            "vae_sample": (self.vae_sample, {"seed": row}),
            "tokenize": (self.tokenize, {"text": _TEXT}),
        }

    def serving_default(self, text):
        """Writes each text anew, from the mean of its posterior."""
        mean, _ = self.text_model.encode(text)
        return {"text": self._greedy(mean)}

    def vae_encode(self, text):
        """Returns `mean` and `log_variance` [B, Z] of each text's posterior."""
        mean, log_variance = self.text_model.encode(text)
        return {"mean": mean, "log_variance": log_variance}

    def vae_decode(self, z, stop, **knobs):
        """Writes a text from each latent, by its own parameters."""
        return self.text_model.write(z, Parameters(**knobs), stop)

    def vae_interpolate(self, text_a, text_b, fraction):
        """Returns `z` and `text` on the straight way from one text to the other."""
        z = self.text_model.between(text_a, text_b, fraction)
        return {"text": self._greedy(z), "z": z}

    def vae_sample(self, seed):
        """Returns `z` of the prior, one for each seed, and its `text`."""
        z = self.text_model.draw(seed)
        return {"text": self._greedy(z), "z": z}

    def tokenize(self, text):
        """Returns each text's token ids."""
        return self.text_model.tokenize(text)

    def _greedy(self, z):
        rows = tf.shape(z)[0]
        stop = tf.zeros([rows, 0], tf.string)
        return self.text_model.write(z, parameters_lib.make(rows), stop)["text"]

    def warmup_requests(self):
        """Returns a small request to every signature."""
        text, one = tf.constant(["a"]), tf.constant([1])
        knobs = {
            name: tf.constant([value], parameters_lib.DTYPES[name])
            for name, value in parameters_lib.DEFAULTS.items()
        }
        knobs["max_new_tokens"] = tf.constant([min(4, self.text_model.limit)])
        latent = {"z": tf.zeros([1, self.text_model.latent_dim])}
        warm = {**knobs, "temperature": tf.constant([1.0])}
        pair = {"text_a": text, "text_b": text, "fraction": tf.constant([0.5])}
        return [
            ("serving_default", {"text": text}),
            ("vae_encode", {"text": text}),
            ("vae_decode", {**latent, "stop": tf.constant([[""]]), **knobs}),
            ("vae_decode", {**latent, "stop": tf.constant([["b"]]), **warm}),
            ("vae_interpolate", pair),
            ("vae_sample", {"seed": one}),
            ("tokenize", {"text": text}),
        ]

    def cases(self, answer):
        """Yields requests to every signature: a mixed batch, then single rows."""
        texts = [text for text in _TEXTS if self._fits(text)]
        encoded = {"text": texts}
        yield "vae_encode", encoded
        yield "tokenize", encoded
        for text in texts:
            yield "serving_default", {"text": [text]}
        count = len(texts)
        yield (
            "vae_interpolate",
            {
                "text_a": texts,
                "text_b": texts[::-1],
                "fraction": [i / count for i in range(count)],
            },
        )
        yield "vae_sample", {"seed": list(range(count))}
        columns = {
            "z": answer("vae_encode", encoded)["mean"],
            "stop": [["e", ""] if i % 2 else ["", ""] for i in range(count)],
            "max_new_tokens": [min(_NEW_TOKENS, self.text_model.limit)] * count,
            "temperature": [float(i % 3 > 0) * 0.8 for i in range(count)],
            "top_k": [40 * (i % 2) for i in range(count)],
            "top_p": [0.9] * count,
            "min_p": [0.0] * count,
            "repetition_penalty": [1.0 + 0.1 * i for i in range(count)],
            "seed": [10 + i for i in range(count)],
        }
        yield "vae_decode", columns
        for i in range(count):
            row = {key: values[i : i + 1] for key, values in columns.items()}
            yield "vae_decode", row

    def example(self):
        """Returns commands that ask for texts."""
        return _EXAMPLE

    def _fits(self, text):
        _, lengths = self.text_model.encode_prompt(tf.constant([text]))
        return int(lengths[0]) <= self.text_model.limit
