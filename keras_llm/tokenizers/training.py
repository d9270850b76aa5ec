"""Training of byte-level BPE through the `tokenizers` library."""

import json
from collections.abc import Iterable, Iterator

from keras_llm.tokenizers import gpt2_files
from keras_llm.tokenizers.byte_bpe_tokenizer import ByteBPETokenizer

_ALPHABET = 256
_SPECIAL_TOKENS = 1
SMALLEST_VOCABULARY = _ALPHABET + _SPECIAL_TOKENS


def train_byte_bpe(
    texts: Iterable[str | bytes], vocab_size: int, progress: bool = False
) -> ByteBPETokenizer:
    """Learns the merges of byte-level BPE from text.

    Words are split by GPT-2's pattern; the most frequent pair of tokens is merged
    until the vocabulary is full or no pair occurs twice, in which case it stays
    smaller than asked for. Ids: first the 256 bytes, then merged tokens by rank, the
    end last. The same texts give the same tokenizer.

    Args:
        texts: Documents. Ill-formed UTF-8 in bytes is passed over.
        vocab_size: Number of tokens, at least 257: the 256 bytes and the end.
        progress: Whether to draw a progress bar on standard error.

    Raises:
        ValueError: `vocab_size` is below 257, or the texts are all empty.

    >>> tokenizer = train_byte_bpe(["ho ho ho", "hoy hoy hoy"], vocab_size=260)
    >>> tokenizer.merges
    [(b'h', b'o'), (b' ', b'ho'), (b' ho', b'y')]
    """
    if not vocab_size >= SMALLEST_VOCABULARY:
        raise ValueError(
            f"`vocab_size` must be at least {SMALLEST_VOCABULARY}, which is the 256 "
            "bytes and the end, so that any text can be encoded. Received: "
            f"vocab_size={vocab_size}."
        )
    # Imported here: the library is not needed to use a tokenizer.
    import tokenizers

    model = tokenizers.Tokenizer(tokenizers.models.BPE())
    split = tokenizers.pre_tokenizers.ByteLevel
    model.pre_tokenizer = split(add_prefix_space=False, use_regex=True)
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=vocab_size - _SPECIAL_TOKENS,
        min_frequency=2,
        initial_alphabet=split.alphabet(),
        show_progress=progress,
    )
    documents = _Documents(texts)
    model.train_from_iterator(documents, trainer)
    if not documents.characters:
        raise ValueError(
            "A vocabulary is learned from text. Received: an empty corpus. Check which "
            "files the input names."
        )
    pairs = [_pair(merge) for merge in json.loads(model.to_str())["model"]["merges"]]
    return ByteBPETokenizer(*_numbered(_in_training_order(pairs)))


class _Documents:
    """Iterates over texts as strings and counts their characters."""

    def __init__(self, texts: Iterable[str | bytes]):
        self._texts = texts
        self.characters = 0

    def __iter__(self) -> Iterator[str]:
        for text in self._texts:
            if isinstance(text, bytes):
                text = text.decode("utf-8", errors="ignore")
            self.characters += len(text)
            yield text


def _pair(merge: list[str] | str) -> tuple[bytes, bytes]:
    first, second = merge.split(" ") if isinstance(merge, str) else merge
    return gpt2_files.to_bytes(first), gpt2_files.to_bytes(second)


def _in_training_order(
    pairs: list[tuple[bytes, bytes]],
) -> list[tuple[bytes, bytes]]:
    """Drops a merge that makes anew what an earlier one has made already.

    The trainer can list such a merge, rarely. Every token then has one origin, which
    lies before its first use.
    """
    made: set[bytes] = set()
    kept = []
    for first, second in pairs:
        if first + second not in made:
            made.add(first + second)
            kept.append((first, second))
    return kept


def _numbered(pairs: list[tuple[bytes, bytes]]):
    alphabet = [bytes([byte]) for byte in range(_ALPHABET)]
    tokens = [*alphabet, *(first + second for first, second in pairs), b""]
    return tokens, pairs, {"end": len(tokens) - 1}
