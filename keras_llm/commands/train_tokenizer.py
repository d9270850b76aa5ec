r"""Learns a tokenizer from text and writes its folder.

Example: python scripts/train_tokenizer.py --input='corpus/*.txt' \
    --kind=byte_bpe --vocab_size=4096 --out=runs/tokenizer
"""

from absl import app, flags

from keras_llm.commands import _text_flags

flags.adopt_module_key_flags(_text_flags)

_INPUT = flags.DEFINE_multi_string(
    "input", None, "File, folder or glob to read; may be repeated.", required=True
)
_KIND = flags.DEFINE_enum(
    "kind",
    "byte_bpe",
    ["byte", "character", "byte_bpe"],
    "Tokens: bytes, Unicode characters, or GPT-2's kind of byte-pair encoding.",
)
_VOCAB_SIZE = flags.DEFINE_integer(
    "vocab_size",
    None,
    "Number of tokens of a byte_bpe, at least 257; 4096 by default. The other kinds "
    "know theirs.",
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

    if _VOCAB_SIZE.value is not None and _KIND.value != "byte_bpe":
        raise ValueError(
            "`vocab_size` can be chosen for a byte_bpe only. Received: "
            f"kind={_KIND.value}, vocab_size={_VOCAB_SIZE.value}. Leave it out."
        )
    check_absent(_OUT.value)
    tokenizer = _train()
    with new_folder(_OUT.value) as folder:
        tokenizer.save(folder)
    print(f"{tokenizer.kind}: {tokenizer.vocab_size:,} tokens, in {_OUT.value}")
    if tokenizer.vocab_size < (_VOCAB_SIZE.value or 0):
        print(
            f"{_VOCAB_SIZE.value:,} were asked for, but no further pair of tokens "
            "occurs twice. A longer text would give more."
        )


def _train():
    from tqdm import tqdm

    from keras_llm import data, tokenizers
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

        if _KIND.value == "byte_bpe":
            # 0 is as far below the alphabet as anything, and not the default.
            size = 4096 if _VOCAB_SIZE.value is None else _VOCAB_SIZE.value
            return tokenizers.train_byte_bpe(pieces(), size)
        if _KIND.value == "character":
            return tokenizers.CharacterTokenizer.train(pieces())
        for _ in pieces():
            pass  # Its vocabulary is fixed, but a mistaken input is still told.
        return tokenizers.ByteTokenizer()
