"""Text to token ids and back, inside the graph."""

from keras_llm.tokenizers.byte_bpe_tokenizer import ByteBPETokenizer
from keras_llm.tokenizers.byte_tokenizer import ByteTokenizer
from keras_llm.tokenizers.character_tokenizer import CharacterTokenizer
from keras_llm.tokenizers.chat import ChatEncoder
from keras_llm.tokenizers.chat_format import ChatFormat
from keras_llm.tokenizers.encoder_rows import EncoderRows, Rows
from keras_llm.tokenizers.folder import load
from keras_llm.tokenizers.sentencepiece_tokenizer import SentencePieceTokenizer
from keras_llm.tokenizers.tokenizer import Tokenizer
from keras_llm.tokenizers.training import (
    train_byte_bpe,
    train_sentencepiece,
    train_wordpiece,
)
from keras_llm.tokenizers.utf8 import repair_utf8
from keras_llm.tokenizers.wordpiece_tokenizer import WordPieceTokenizer

__all__ = [
    "ByteBPETokenizer",
    "ByteTokenizer",
    "CharacterTokenizer",
    "ChatEncoder",
    "ChatFormat",
    "EncoderRows",
    "Rows",
    "SentencePieceTokenizer",
    "Tokenizer",
    "WordPieceTokenizer",
    "load",
    "repair_utf8",
    "train_byte_bpe",
    "train_sentencepiece",
    "train_wordpiece",
]
