"""Texts that a model writes while it is trained, to be read beside its figures."""

from collections.abc import Sequence
from typing import Any

import keras

from keras_llm.generation import Generator


class Samples:
    """Continues the same prompts at every evaluation, greedily.

    Args:
        model: A language model or an encoder-decoder.
        tokenizer: Its tokenizer.
        prompts: Texts to continue, or sources to answer.
        max_new_tokens: How far.

    Raises:
        ValueError: The model writes no text.
    """

    def __init__(
        self,
        model: keras.Model,
        tokenizer: Any,
        prompts: Sequence[str],
        max_new_tokens: int,
    ):
        self.prompts = list(prompts)
        self._max_new_tokens = max_new_tokens
        self._generator = Generator(model, tokenizer)

    def __call__(self) -> list[dict[str, str]]:
        """Returns `prompt` and `text` of each, of the weights as they stand."""
        written = self._generator.generate(
            self.prompts, max_new_tokens=self._max_new_tokens
        )
        return [
            {"prompt": prompt, "text": each.text}
            for prompt, each in zip(self.prompts, written, strict=True)
        ]
