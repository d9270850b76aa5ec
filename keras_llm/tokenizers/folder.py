"""Loading a tokenizer of any kind."""

import os
import pathlib

from keras_llm.core.checks import check_choice
from keras_llm.tokenizers.byte_bpe_tokenizer import ByteBPETokenizer
from keras_llm.tokenizers.byte_tokenizer import ByteTokenizer
from keras_llm.tokenizers.character_tokenizer import CharacterTokenizer
from keras_llm.tokenizers.sentencepiece_tokenizer import SentencePieceTokenizer
from keras_llm.tokenizers.tokenizer import Tokenizer, read_description
from keras_llm.tokenizers.wordpiece_tokenizer import WordPieceTokenizer

_CLASSES: tuple[type[Tokenizer], ...] = (
    ByteTokenizer,
    CharacterTokenizer,
    ByteBPETokenizer,
    WordPieceTokenizer,
    SentencePieceTokenizer,
)


def load(folder: str | os.PathLike[str]) -> Tokenizer:
    """Reads the tokenizer that `Tokenizer.save` wrote into `folder`.

    Raises:
        FileNotFoundError: There is no tokenizer.json in `folder`.
        ValueError: The files are malformed or contradict one another.
    """
    kind = read_description(pathlib.Path(folder))["kind"]
    by_kind = {each.kind: each for each in _CLASSES}
    check_choice("kind", kind, tuple(by_kind))
    return by_kind[kind].load(folder)
