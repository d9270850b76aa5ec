r"""Learns a tokenizer from text and writes its folder.

Example: python scripts/train_tokenizer.py --input='corpus/*.txt' \
    --kind=byte_bpe --vocab_size=4096 --out=runs/tokenizer
"""

from collections.abc import Iterable

from absl import app, flags

from keras_llm.commands import _idle_flags, _text_flags

flags.adopt_module_key_flags(_text_flags)

_INPUT = flags.DEFINE_multi_string(
    "input", None, "File, folder or glob to read; may be repeated.", required=True
)
_KIND = flags.DEFINE_enum(
    "kind",
    "byte_bpe",
    ["byte", "character", "byte_bpe", "wordpiece", "unigram", "bpe"],
    "Tokens: bytes, Unicode characters, GPT-2's kind of byte-pair encoding, BERT's "
    "WordPiece, or SentencePiece's unigram or BPE.",
)
_VOCAB_SIZE = flags.DEFINE_integer(
    "vocab_size",
    None,
    "Number of tokens, 4096 by default; of a byte_bpe at least 257. Bytes and "
    "characters know theirs.",
)
_LOWER_CASE = flags.DEFINE_bool(
    "lower_case", True, "Of a wordpiece: make capitals small and strip accents."
)
_EXTRA_IDS = flags.DEFINE_integer(
    "extra_ids",
    0,
    "Of a unigram or bpe: how many sentinels to add, as T5 has 100.",
    lower_bound=0,
)
_BYTE_FALLBACK = flags.DEFINE_bool(
    "byte_fallback",
    False,
    "Of a unigram or bpe: make characters that are not in the vocabulary of bytes.",
)
_CHARACTER_COVERAGE = flags.DEFINE_float(
    "character_coverage",
    0.9995,
    "Of a unigram or bpe: how much of the text the characters in the vocabulary make "
    "up.",
    lower_bound=0.98,
    upper_bound=1.0,
)
_MASK = flags.DEFINE_bool(
    "mask",
    False,
    "Of a unigram or bpe: keep an id that masks, to pretrain a BERT or an ELECTRA.",
)
_OUT = flags.DEFINE_string("out", None, "New folder to write.", required=True)


def main(argv: list[str]) -> None:
    """Trains, showing progress, and writes the folder whole or not at all."""
    if len(argv) > 1:
        raise app.UsageError(
            f"Unexpected arguments: {argv[1:]}. Quote globs: --input='corpus/*.txt'."
        )
    # What is quick to refuse is refused before the text is read.
    from keras_llm.core import check_absent, new_folder

    _refuse_idle_flags()
    check_absent(_OUT.value)
    tokenizer = _train()
    with new_folder(_OUT.value) as folder:
        tokenizer.save(folder)
    print(f"{tokenizer.kind}: {tokenizer.vocab_size:,} tokens, in {_OUT.value}")
    if tokenizer.vocab_size - _EXTRA_IDS.value < (_VOCAB_SIZE.value or 0):
        print(
            f"{_VOCAB_SIZE.value:,} were asked for, but the text repeats no further "
            "parts. A longer text would give more."
        )


def _refuse_idle_flags() -> None:
    kind = _KIND.value
    if kind in ("byte", "character"):
        _idle_flags.refuse([_VOCAB_SIZE], f"with --kind={kind}")
    if kind != "wordpiece":
        _idle_flags.refuse([_LOWER_CASE], f"with --kind={kind}")
    if kind not in ("unigram", "bpe"):
        of_sentencepiece = [_EXTRA_IDS, _BYTE_FALLBACK, _CHARACTER_COVERAGE, _MASK]
        _idle_flags.refuse(of_sentencepiece, f"with --kind={kind}")


def _train():
    from tqdm import tqdm

    from keras_llm import data
    from keras_llm.data.documents import ReadCounts, read_pieces

    files = data.find_files(_INPUT.value)
    config = data.TextConfig(**_text_flags.given())
    packed = any(path.suffix == ".gz" for path in files)
    total = None if packed else sum(path.stat().st_size for path in files)
    # None: no bar where standard error is no terminal.
    with tqdm(total=total, unit="B", unit_scale=True, desc="read", disable=None) as bar:

        def pieces():
            counts = ReadCounts()
            for piece in read_pieces(files, config, counts):
                bar.update(counts.num_bytes - bar.n)
                yield piece.text
            if not counts.num_bytes:
                raise ValueError(
                    "A tokenizer is trained on text. Received: no text in "
                    f"{', '.join(_INPUT.value)}."
                )
            bar.set_description("learn")

        return _learn(pieces())


def _learn(pieces: Iterable[str | bytes]):
    from keras_llm import tokenizers

    # 0 is as far below the alphabet as anything, and not the default.
    size = 4096 if _VOCAB_SIZE.value is None else _VOCAB_SIZE.value
    kind = _KIND.value
    if kind == "byte_bpe":
        return tokenizers.train_byte_bpe(pieces, size)
    if kind == "wordpiece":
        return tokenizers.train_wordpiece(pieces, size, _LOWER_CASE.value)
    if kind in ("unigram", "bpe"):
        return tokenizers.train_sentencepiece(
            pieces,
            size,
            kind,
            _EXTRA_IDS.value,
            _BYTE_FALLBACK.value,
            _CHARACTER_COVERAGE.value,
            _MASK.value,
        )
    if kind == "character":
        return tokenizers.CharacterTokenizer.train(pieces)
    for _ in pieces:
        pass  # Its vocabulary is fixed, but a mistaken input is still told.
    return tokenizers.ByteTokenizer()
