r"""Tokenises a corpus once, into sharded TFRecord files that training reads.

Training and evaluation take the folder in place of text: `--train_text=DIR`,
`--text=DIR`. It carries its tokenizer.

Example: python scripts/prepare_data.py --input='corpus/**/*.jsonl.gz' \
    --tokenizer=runs/tokenizer --out=runs/tokens
"""

import signal
import sys

from absl import app, flags

from keras_llm.commands import _engine_flags, _text_flags

flags.adopt_module_key_flags(_text_flags)
flags.adopt_module_key_flags(_engine_flags)

_INPUT = flags.DEFINE_multi_string(
    "input", None, "File, folder or glob to read; may be repeated.", required=True
)
_TOKENIZER = flags.DEFINE_string("tokenizer", None, "Tokenizer folder.", required=True)
_OUT = flags.DEFINE_string("out", None, "New folder to write.", required=True)
_ADD_SEPARATORS = flags.DEFINE_bool(
    "add_separators", True, "Open each document with the tokenizer's end token."
)
_VALID_FRACTION = flags.DEFINE_float(
    "valid_fraction", 0.05, "Share held back for validation; 0 for none."
)
_MAX_UNPACKED_BYTES = flags.DEFINE_integer(
    "max_unpacked_bytes", 16 * 2**30, "Bytes that one .gz file may unpack to."
)
_SHARD_TOKENS = flags.DEFINE_integer("shard_tokens", 2**27, "Tokens a shard.")


def main(argv: list[str]) -> None:
    """Writes the folder, showing progress, and prints what it holds."""
    if len(argv) > 1:
        raise app.UsageError(
            f"Unexpected arguments: {argv[1:]}. Quote globs: --input='corpus/*.txt'."
        )
    from tqdm import tqdm

    from keras_llm import data, tokenizers
    from keras_llm.core import check_absent

    config = data.TextConfig(
        **_text_flags.given(),
        add_separators=_ADD_SEPARATORS.value,
        valid_fraction=_VALID_FRACTION.value,
        max_unpacked_bytes=_MAX_UNPACKED_BYTES.value,
    )
    # What is quick to refuse is refused before the tokenizer is loaded.
    check_absent(_OUT.value)
    files = data.find_files(_INPUT.value)
    packed = any(path.suffix == ".gz" for path in files)
    total = None if packed else sum(path.stat().st_size for path in files)
    # Ended from outside, it leaves as an error does: no half-written folder stays.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    engine = _engine_flags.given()
    tokenizer = tokenizers.load(_TOKENIZER.value)
    with tqdm(
        total=total, unit="B", unit_scale=True, desc="prepare", disable=None
    ) as bar:
        summary = data.prepare(
            _INPUT.value,
            tokenizer,
            _OUT.value,
            config,
            shard_tokens=_SHARD_TOKENS.value,
            progress=lambda read: bar.update(read.num_bytes - bar.n),
            engine=engine,
        )
    _print_summary(summary)


def _print_summary(summary) -> None:
    for name, counts in (("train", summary.train), ("valid", summary.valid)):
        if counts is not None:
            print(
                f"{name}: {counts.num_documents:,} documents, {counts.num_tokens:,} "
                f"tokens, {counts.num_bytes:,} bytes, "
                f"{counts.num_bytes / counts.num_tokens:.2f} bytes per token"
            )
    print(
        f"{summary.num_shards} shard(s) in {_OUT.value}; "
        f"{summary.empty_documents} empty document(s) left out"
    )
