"""Training of vocabularies through the `tokenizers` and `sentencepiece` libraries."""

import io
import json
import re
from collections.abc import Iterable, Iterator
from typing import Any

from keras_llm.core.checks import check_choice
from keras_llm.tokenizers import gpt2_files
from keras_llm.tokenizers.byte_bpe_tokenizer import ByteBPETokenizer
from keras_llm.tokenizers.sentencepiece_model import KINDS
from keras_llm.tokenizers.sentencepiece_tokenizer import SentencePieceTokenizer
from keras_llm.tokenizers.wordpiece_tokenizer import SPECIAL_TOKENS, WordPieceTokenizer

_ALPHABET = 256
_SPECIAL_TOKENS = 1
SMALLEST_VOCABULARY = _ALPHABET + _SPECIAL_TOKENS
_EMPTY = "A vocabulary is learned from text. Check which files the input names."
_LONGEST_LINE = 2**30  # SentencePiece passes over longer ones.


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
        raise ValueError(f"{_EMPTY} Received: an empty corpus.")
    pairs = [_pair(merge) for merge in json.loads(model.to_str())["model"]["merges"]]
    return ByteBPETokenizer(*_numbered(_in_training_order(pairs)))


def train_wordpiece(
    texts: Iterable[str | bytes],
    vocab_size: int,
    lower_case: bool = True,
    strip_accents: bool | None = None,
    progress: bool = False,
) -> WordPieceTokenizer:
    """Learns the pieces of WordPiece from text.

    Text is simplified and split as the tokenizer does it; then the pairs of pieces that
    occur most often are joined, until the vocabulary is full or no pair occurs twice.
    Ids: first the special tokens, then every character of the text, beginning a word
    and continuing one, then longer pieces. The same texts give the same tokenizer.

    Args:
        texts: Documents, which are held in memory. Ill-formed UTF-8 in bytes is passed
            over.
        vocab_size: Number of tokens, the special ones included.
        lower_case: Whether capitals become small.
        strip_accents: Whether accents are removed; None for as `lower_case`.
        progress: Whether to draw a progress bar on standard error.

    Raises:
        ValueError: The characters alone are more than `vocab_size`, or the texts are
            all empty.

    >>> tokenizer = train_wordpiece(["Ho ho ho", "hoy hoy hoy"], vocab_size=11)
    >>> tokenizer.tokens[5:]
    ('h', 'o', 'y', '##o', '##y', 'ho')
    """
    import tokenizers

    model = tokenizers.Tokenizer(
        tokenizers.models.WordPiece(unk_token=SPECIAL_TOKENS["unk"])
    )
    model.normalizer = tokenizers.normalizers.BertNormalizer(
        lowercase=lower_case, strip_accents=strip_accents
    )
    model.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    documents = _read_all(texts)
    trainer = tokenizers.trainers.WordPieceTrainer(
        vocab_size=vocab_size,
        min_frequency=2,
        # Left to itself, the trainer numbers single characters in the order of a hash
        # table, another in each run, and breaks ties by those numbers.
        special_tokens=[*SPECIAL_TOKENS.values(), *_characters(model, documents)],
        show_progress=progress,
    )
    model.train_from_iterator(documents, trainer)
    ids = model.get_vocab()
    if not len(ids) <= vocab_size:
        raise ValueError(
            "`vocab_size` must hold the special tokens and every character of the "
            "text, so that no word of it is unknown. Received: "
            f"vocab_size={vocab_size}, but {len(ids):,} are needed."
        )
    return WordPieceTokenizer(
        sorted(ids, key=ids.__getitem__), lower_case, strip_accents
    )


def train_sentencepiece(
    texts: Iterable[str | bytes],
    vocab_size: int,
    model_type: str = "unigram",
    extra_ids: int = 0,
    byte_fallback: bool = False,
    character_coverage: float = 0.9995,
    mask: bool = False,
) -> SentencePieceTokenizer:
    """Learns a SentencePiece model from text, line by line.

    Text is brought into a compatible form (NFKC) and runs of white space count as one
    space. Ids: padding 0, end 1, unknown 2, as T5 has them, then pieces. A vocabulary
    stays smaller than asked for where the text has no more pieces. The same texts give
    the same tokenizer.

    Args:
        texts: Documents, which are held in memory. Ill-formed UTF-8 in bytes is passed
            over.
        vocab_size: Number of pieces, special ones included, sentinels not.
        model_type: "unigram" or "bpe".
        extra_ids: How many sentinels to add behind the pieces.
        byte_fallback: Whether 256 of the pieces are bytes, of which characters that
            are not in the vocabulary are then made; else they are unknown.
        character_coverage: How much of the text its characters in the vocabulary make
            up, from 0.98 to 1; the rarest are left out.
        mask: Whether id 3 is that of a masked token, `[MASK]`, which no text spells.

    Raises:
        ValueError: `vocab_size` is too small for the characters of the text,
            `model_type` is neither, or the texts are all empty.
    """
    check_choice("model_type", model_type, tuple(KINDS.values()))
    import sentencepiece

    documents = _read_all(texts)
    written = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=(
                line for text in documents for line in text.split("\n") if line.strip()
            ),
            model_writer=written,
            model_type=model_type,
            vocab_size=vocab_size,
            byte_fallback=byte_fallback,
            character_coverage=character_coverage,
            hard_vocab_limit=False,
            max_sentence_length=_LONGEST_LINE,
            control_symbols=[SPECIAL_TOKENS["mask"]] if mask else [],
            pad_id=0,
            eos_id=1,
            unk_id=2,
            bos_id=-1,
            minloglevel=2,
        )
    except RuntimeError as error:
        needed = re.search(r"required_chars\. \d+ vs (\d+)", str(error))
        reason = str(error).rpartition("] ")[2] or str(error)
        remedy = f"SentencePiece says: {reason}"
        if needed:
            remedy = (
                f"The text needs {needed[1]}: raise `vocab_size`, or lower "
                "`character_coverage`, the share of the text's characters that is kept."
            )
        raise ValueError(
            "`vocab_size` must hold the special pieces and the characters of the text. "
            f"Received: vocab_size={vocab_size}. {remedy}"
        ) from None
    return SentencePieceTokenizer(written.getvalue(), extra_ids)


def _characters(model: Any, documents: list[str]) -> list[str]:
    """Returns the pieces of one character that the words of the documents need."""
    front: set[str] = set()
    inside: set[str] = set()
    for document in documents:
        normalized = model.normalizer.normalize_str(document)
        for word, _ in model.pre_tokenizer.pre_tokenize_str(normalized):
            front.update(word)
            inside.update(word[1:])
    return [*sorted(front), *(f"##{character}" for character in sorted(inside))]


def _read_all(texts: Iterable[str | bytes]) -> list[str]:
    documents = [document for document in _Documents(texts) if document.strip()]
    if not documents:
        raise ValueError(f"{_EMPTY} Received: nothing but white space.")
    return documents


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
