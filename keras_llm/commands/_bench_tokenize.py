"""Times byte-level BPE in the graph beside the `tokenizers` library."""

import functools
import pathlib
import random
import statistics
import time
from collections.abc import Callable
from typing import Any

from keras_llm.commands import _repository

SHORT = "Call me Ishmael. Some years ago, never mind how long precisely"
_LETTERS = "abcdefghijklmnopqrstuvwxyz"


def benchmark_tokenize(
    text: str | None = None,
    vocabulary: str | None = None,
    batch_lines: int = 1_000,
    rounds: int = 7,
    growth_bytes: int = 5_000_000,
) -> list[dict[str, Any]]:
    """Measures both with GPT-2's vocabulary, turn and turn about.

    Args:
        text: File to encode in batches of lines; None takes the repository's book.
        vocabulary: Folder with `encoder.json` and `vocab.bpe`; None takes the
            repository's.
        batch_lines: Lines in a batch.
        rounds: Timed passes of each over the whole text; the best counts, since a
            busy machine only ever adds time.
        growth_bytes: Length of the long texts, which are then doubled; 0 for none.

    Returns:
        One dict a case. Throughput in MB (10**6 bytes) per second, short strings in
        microseconds, long texts in seconds with the growth when the length doubles.
    """
    import tensorflow as tf

    from keras_llm.tokenizers import ByteBPETokenizer

    folder = pathlib.Path(vocabulary or _repository.test_file("gpt2"))
    files = str(folder / "encoder.json"), str(folder / "vocab.bpe")
    ours = ByteBPETokenizer.from_gpt2_files(*files)
    reference = _reference(*files)
    book = pathlib.Path(text or _repository.test_file("moby_dick.txt"))
    whole = book.read_text(encoding="utf-8")
    lines = whole.split("\n")
    batches = [lines[at : at + batch_lines] for at in range(0, len(lines), batch_lines)]
    tensors = [tf.constant(batch) for batch in batches]
    encode = tf.function(ours.encode, autograph=False)
    rows = [
        _throughput(
            f"{batch_lines:,} lines a batch",
            len(whole.encode()),
            lambda: [encode(tensor) for tensor in tensors],
            lambda: [reference.encode_batch(batch) for batch in batches],
            rounds,
        ),
        _throughput(
            "the book as one string",
            len(whole.encode()),
            lambda: encode(tf.constant([whole])),
            lambda: reference.encode_batch([whole]),
            rounds,
        ),
        _latency(encode, reference, tf.constant(SHORT)),
    ]
    if growth_bytes:
        for case, make in _long_texts(whole).items():
            rows.append(_growth(case, make, encode, growth_bytes))
    return rows


def _reference(encoder_json: str, vocab_bpe: str):
    import tokenizers

    model = tokenizers.models.BPE.from_file(encoder_json, vocab_bpe)
    reference = tokenizers.Tokenizer(model)
    split = tokenizers.pre_tokenizers.ByteLevel
    reference.pre_tokenizer = split(add_prefix_space=False, use_regex=True)
    return reference


def _seconds(run: Callable[[], Any]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def _throughput(case, num_bytes, ours, reference, rounds) -> dict[str, Any]:
    _seconds(ours)  # Traces, and fills caches.
    _seconds(reference)
    timed = [(_seconds(ours), _seconds(reference)) for _ in range(rounds)]
    best = [min(column) for column in zip(*timed, strict=True)]
    return {
        "case": case,
        "mb_per_second": num_bytes / best[0] / 1e6,
        "tokenizers_mb_per_second": num_bytes / best[1] / 1e6,
        "ratio": best[1] / best[0],
    }


def _latency(encode, reference, short) -> dict[str, Any]:
    string = short.numpy().decode()
    for _ in range(50):
        encode(short)
    ours = [_seconds(lambda: encode(short)) for _ in range(1_000)]
    theirs = [_seconds(lambda: reference.encode(string)) for _ in range(1_000)]
    return {
        "case": f"one string of {len(string)} characters",
        "median_microseconds": statistics.median(ours) * 1e6,
        "tokenizers_median_microseconds": statistics.median(theirs) * 1e6,
    }


def _long_texts(whole: str) -> dict[str, Callable[[int], str]]:
    prose = whole.replace("\n", " ")
    letters = "".join(c for c in whole if c.isascii() and c.isalpha())
    rng = random.Random(0)

    def repeat(text: str) -> Callable[[int], str]:
        return lambda size: (text * (size // len(text) + 1))[:size]

    return {
        "one line of prose": repeat(prose),
        "one word: prose without spaces": repeat(letters),
        "one word: random letters": lambda n: "".join(rng.choices(_LETTERS, k=n)),
        "one word: aaaa…": repeat("a"),
        "white space": repeat(" "),
    }


def _growth(case, make, encode, size) -> dict[str, Any]:
    import tensorflow as tf

    texts = [tf.constant(make(size)), tf.constant(make(2 * size))]
    best = [
        min(_seconds(functools.partial(encode, text)) for _ in range(2))
        for text in texts
    ]
    return {
        "case": case,
        "bytes": 2 * size,
        "seconds": best[1],
        "mb_per_second": 2 * size / best[1] / 1e6,
        "growth_when_doubled": best[1] / best[0],
    }
