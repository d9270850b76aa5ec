r"""Cleans a corpus: text put in order, judged, scrubbed, and each document kept once.

Writes compressed JSON lines and a report that says what was left out and why. The
folder is the same whatever the engine. Needs the extra `corpus`.

Example: python scripts/clean_corpus.py --input='crawl/**/*.jsonl.gz' \
    --languages=en,fr --processes=8 --out=runs/clean
"""

import signal
import sys

from absl import app, flags

from keras_llm.commands import _engine_flags, _text_flags

USES_TENSORFLOW = False

flags.adopt_module_key_flags(_text_flags)
flags.adopt_module_key_flags(_engine_flags)

_INPUT = flags.DEFINE_multi_string(
    "input", None, "File, folder or glob to read; may be repeated.", required=True
)
_OUT = flags.DEFINE_string("out", None, "New folder to write.", required=True)
_MIN_CHARACTERS = flags.DEFINE_integer(
    "min_characters", 50, "Shorter documents are left out."
)
_MIN_LETTERS = flags.DEFINE_float(
    "min_letters", 0.5, "Least share of letters in what is no white space."
)
_MAX_REPEATED_LINES = flags.DEFINE_float(
    "max_repeated_lines", 0.3, "Largest share of lines that stood there before; 0: any."
)
_LANGUAGES = flags.DEFINE_list(
    "languages", [], "ISO 639-1 codes of the languages to keep; none keeps all."
)
_MIN_LANGUAGE_PROBABILITY = flags.DEFINE_float(
    "min_language_probability", 0.5, "That a document is in one of --languages."
)
_SCRUB = flags.DEFINE_list(
    "scrub",
    ["email", "ip_address", "payment_card"],
    "Personal data to replace by placeholders; empty for none.",
)
_DUPLICATES = flags.DEFINE_enum(
    "duplicates",
    "near",
    ["keep", "exact", "near"],
    "Which documents count as one and stay once.",
)
_NEAR_SIMILARITY = flags.DEFINE_float(
    "near_similarity", 0.8, "Jaccard similarity of words in a row of near duplicates."
)
_SHARD_BYTES = flags.DEFINE_integer(
    "shard_bytes", 2**26, "Input that one process takes at a time, for one shard."
)
_MAX_DOCUMENT_BYTES = flags.DEFINE_integer(
    "max_document_bytes", 2**28, "A longer document stops the run."
)


def main(argv: list[str]) -> None:
    """Writes the folder, showing progress, and prints what became of the corpus."""
    if len(argv) > 1:
        raise app.UsageError(
            f"Unexpected arguments: {argv[1:]}. Quote globs: --input='corpus/*.txt'."
        )
    from tqdm import tqdm

    from keras_llm import cleaning, data

    config = _config()
    # Ended from outside, it leaves as an error does: no half-written folder stays.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    with tqdm(unit="B", unit_scale=True, desc="clean", disable=None) as bar:

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        report = cleaning.clean_corpus(
            _INPUT.value,
            _OUT.value,
            config,
            data.TextConfig(**_text_flags.given()),
            _engine_flags.given(),
            progress,
        )
    _print_report(report)


def _config():
    """Returns the rules that the flags give."""
    from keras_llm import cleaning

    return cleaning.CleaningConfig(
        min_characters=_MIN_CHARACTERS.value,
        min_letters=_MIN_LETTERS.value,
        max_repeated_lines=_MAX_REPEATED_LINES.value,
        languages=tuple(_LANGUAGES.value),
        min_language_probability=_MIN_LANGUAGE_PROBABILITY.value,
        scrub=tuple(_SCRUB.value),
        duplicates=_DUPLICATES.value,
        near_similarity=_NEAR_SIMILARITY.value,
        shard_bytes=_SHARD_BYTES.value,
        max_document_bytes=_MAX_DOCUMENT_BYTES.value,
    )


def _print_report(report) -> None:
    share = report.kept / report.documents
    print(
        f"{report.kept:,} of {report.documents:,} documents kept ({share:.1%}), "
        f"{report.characters:,} characters"
    )
    for reason, count in report.left_out.items():
        print(f"left out: {count:,} {reason}")
    for kind, count in report.scrubbed.items():
        print(f"replaced: {count:,} {kind}")
    print(f"written to {_OUT.value}; report.json there has examples")
