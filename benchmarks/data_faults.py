"""Faults of data in full number: records damaged, strings that nobody expects.

The tests do the same in small number (tests/data/test_corpus.py, tests/tokenizers).
`records` damages N records of a prepared corpus, a bit of their length, its check sum,
their payload or its check sum, or cuts a shard: each must be found, told with its shard
and offset, and passed over where one record may be, and only there. `strings` encodes N
strings (empty, of NUL, not UTF-8, of lone surrogates, of long rows of combining marks)
by every kind of tokenizer: ids below the vocabulary's size, text again as documented.
`growth` times one string of 2 * N bytes beside one of N, medians of five; the bar
is 2.2 times. What fails is printed, and ends it with status 1.

Example: python benchmarks/data_faults.py records strings growth
"""

import argparse
import logging
import os
import pathlib
import random
import sys
import tempfile
import time

# As the commands have it: a pool keeps memory that the system would take back.
os.environ.setdefault("TF_CPU_ALLOCATOR_USE_BFC", "true")
sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

import numpy as np
import tensorflow as tf

from keras_llm import data, tokenizers
from keras_llm.core import CorruptFolderError
from tests.tokenizers.generated import UNRULY
from tests.tokenizers.generated import strings as generated

ROOT = pathlib.Path(__file__).parents[1]
COUNTS = {"records": 1_000, "strings": 10_000, "growth": 5_000_000}
GROWTH = 2.2
NOISE_S = 0.02  # Of the byte tokenizer, which takes less for all of a text.
TOKENS = 64
# Of a record of 64 tokens of two bytes: length, its sum, payload, its sum.
PLACES = {"length": 8, "its sum": 12, "payload": 140, "payload's sum": 144}
STRANGE = [
    b"",
    b"\0",
    b"\0" * 1_000,
    b"\xff",
    b"caf\xc3",
    b"\xed\xa0\x80 lone surrogates \xed\xbf\xbf",
    b"\xc0\xaf",
    b"\xf4\x90\x80\x80",
    bytes(range(256)),
    b"a" + "\u0301".encode() * 5_000,
    "\u0e01\u0e38".encode() * 3_000,
    b"\xe2\x80\x8d" * 1_000,
]


def kinds() -> dict[str, tokenizers.Tokenizer]:
    """Returns a tokenizer of every kind."""
    book = (ROOT / "testdata" / "moby_dick.txt").read_text(encoding="utf-8")
    lines, gpt2 = book[:60_000].split("\n"), ROOT / "testdata" / "gpt2"
    return {
        "byte": tokenizers.ByteTokenizer(),
        "character": tokenizers.CharacterTokenizer.train([book]),
        "byte_bpe": tokenizers.ByteBPETokenizer.from_gpt2_files(
            gpt2 / "encoder.json", gpt2 / "vocab.bpe"
        ),
        "wordpiece": tokenizers.train_wordpiece(lines, 2_000),
        "unigram": tokenizers.train_sentencepiece(lines, 1_000),
        "bpe": tokenizers.train_sentencepiece(lines, 1_000, "bpe"),
    }


def records(count: int, folder: pathlib.Path, rng: random.Random) -> list[str]:
    """Returns which of `count` damages were not found, or not told, or not skipped."""
    logs = _Kept()
    logging.getLogger("keras_llm").addHandler(logs)
    tokenizer, corpus = tokenizers.ByteTokenizer(), folder / "corpus"
    options = {"valid_fraction": 0.0}
    data.prepare(
        str(ROOT / "testdata" / "tang_poems.txt"),
        tokenizer,
        corpus,
        data.TextConfig(**options),
        shard_tokens=64 * TOKENS,
        record_tokens=TOKENS,
    )
    config = {"context": 31, "batch_size": 6, **options}
    strict = data.DataConfig(**config)
    lenient = data.DataConfig(**config, max_corrupt_records=1)
    shards = sorted(corpus.glob("*.tfrecord"))[:-1]  # The last one may be short.
    failures = []
    for number in range(count):
        shard = rng.choice(shards)
        content = shard.read_bytes()
        if number % 5 == 4:
            what, offset = _cut(shard, content, rng)
            errors = [_error(corpus, tokenizer, strict)] * 2
        else:
            what, offset = _flip(shard, content, list(PLACES)[number % 5], rng)
            logs.lines.clear()
            errors = [_error(corpus, tokenizer, strict)]
            skipped = _error(corpus, tokenizer, lenient)
            if skipped or not any(offset in line for line in logs.lines):
                failures.append(f"not skipped with a word: {what}: {skipped}")
            # Another one, which is one too many.
            other = rng.choice([each for each in shards if each != shard])
            intact = other.read_bytes()
            _flip(other, intact, "payload", rng)
            errors.append(_error(corpus, tokenizer, lenient))
            other.write_bytes(intact)
        shard.write_bytes(content)
        if not all(errors) or shard.name not in errors[0] or offset not in errors[0]:
            failures.append(f"not found or not told: {what}: {errors}")
    return failures


class _Kept(logging.Handler):
    """Keeps what was logged."""

    def __init__(self):
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record):
        self.lines.append(record.getMessage())


def _flip(
    shard: pathlib.Path, content: bytes, part: str, rng: random.Random
) -> tuple[str, str]:
    """Flips a bit of a part of a record; returns what was done, and the offset told."""
    end = PLACES[part]
    begin = max((each for each in PLACES.values() if each < end), default=0)
    start = rng.randrange(len(content) // PLACES["payload's sum"])
    start *= PLACES["payload's sum"]
    place = start + rng.randrange(begin, end)
    changed = bytearray(content)
    changed[place] ^= 1 << rng.randrange(8)
    shard.write_bytes(changed)
    return f"byte {place} ({part}) of {shard.name}", f"at byte offset {start}"


def _cut(shard: pathlib.Path, content: bytes, rng: random.Random) -> tuple[str, str]:
    place = rng.randrange(len(content))
    os.truncate(shard, place)
    start = place - place % PLACES["payload's sum"]
    return f"{shard.name} cut to {place} bytes", f"offset {start}"


def _error(corpus: pathlib.Path, tokenizer, config) -> str:
    """Reads all of a corpus; returns the error, or nothing."""
    try:
        batches = data.training_batches(corpus, tokenizer, config)
        for index in range(int(batches.batches_per_epoch)):
            batches.batch(index)
    except (CorruptFolderError, data.CorruptRecordError) as error:
        return str(error)
    return ""


def strange_strings(count: int) -> list[bytes]:
    """Returns `count` strings: the strange ones, and made up ones, half not UTF-8."""
    rng = random.Random(0)
    texts = [text.encode() for text in generated(count - len(STRANGE), UNRULY)]
    for i in range(0, len(texts), 2):
        place = rng.randrange(len(texts[i]) + 1)
        texts[i] = texts[i][:place] + rng.randbytes(3) + texts[i][place:]
    return [*STRANGE, *texts]


def check_strings(kind: str, tokenizer, texts: list[bytes]) -> list[str]:
    """Returns what was wrong with the ids of strings, and with the text of the ids."""
    ids = tokenizer.encode(texts)
    values = ids.values.numpy()
    failures = []
    if len(values) and not 0 <= values.min() <= values.max() < tokenizer.vocab_size:
        failures.append(f"{kind}: ids from {values.min()} to {values.max()}")
    decoded = tokenizer.decode(ids).numpy().tolist()
    for text, again in zip(texts, decoded, strict=True):
        if kind in ("byte", "byte_bpe"):
            right = again == text
        else:  # What is not UTF-8, or not known, is U+FFFD or nothing: never bytes.
            right = again == again.decode("utf-8", "replace").encode()
        if kind == "character":
            known = set(tokenizer.characters)
            expected = text.decode("utf-8", "replace")
            expected = [c if c in known else "\ufffd" for c in expected]
            right = again.decode() == "".join(expected)
        if not right:
            failures.append(f"{kind}: {text[:40]!r} became {again[:40]!r}")
    return failures


def all_strings(count: int, folder: pathlib.Path, rng: random.Random) -> list[str]:
    """Returns what was wrong with `count` strings, of every kind of tokenizer."""
    del folder, rng
    texts, failures = strange_strings(count), []
    for kind, tokenizer in kinds().items():
        failures += check_strings(kind, tokenizer, texts)
    return failures


def growth(
    size: int, folder: pathlib.Path, rng: random.Random, rounds: int = 5
) -> list[str]:
    """Returns for which strings twice the length takes more than GROWTH times."""
    del folder
    book = (ROOT / "testdata" / "moby_dick.txt").read_text(encoding="utf-8")
    letters = "".join(c for c in book if c.isascii() and c.isalpha())
    long = {
        "prose": book.replace("\n", " "),
        "one word": letters,
        "random letters": "".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=2**20)),
        "one letter": "a",
        "spaces": " ",
        "combining": "\u0301",
        "NUL": "\0",
    }
    failures = []
    for kind, tokenizer in kinds().items():
        encode = tf.function(tokenizer.encode, autograph=False)
        for name, unit in long.items():
            # First in small: what grows with the square would take hours in full.
            for bytes_once in (size // 20, size):
                once, twice = _times(encode, unit.encode(), bytes_once, rounds)
                if not twice <= GROWTH * once + NOISE_S:
                    failures.append(f"{kind}, {name}: {twice / once:.2f} times")
                    break
            print(
                f"{kind:10} {name:15} {2 * bytes_once:10,} bytes: {twice:6.2f} s, "
                f"{twice / once:.2f} times",
                flush=True,
            )
    return failures


def _times(encode, unit: bytes, size: int, rounds: int) -> tuple[float, float]:
    """Returns the medians for a text of `size` bytes and for one of twice that."""
    sizes = (size, 2 * size)
    texts = [tf.constant((unit * (n // len(unit) + 1))[:n]) for n in sizes]
    times = [[_seconds(encode, t) for t in texts] for _ in range(rounds + 1)]
    once, twice = np.median(times[1:], axis=0)
    return float(once), float(twice)


def _seconds(encode, text) -> float:
    start = time.process_time()  # Other work on the machine does not count.
    encode(text).numpy()
    return time.process_time() - start


CHECKS = {"records": records, "strings": all_strings, "growth": growth}


def main() -> None:
    """Runs what is asked for and prints how it went."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("which", nargs="+", choices=COUNTS)
    parser.add_argument("--count", type=int, help="By default the full number.")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    logging.getLogger("keras_llm").propagate = False  # Damage is no news here.
    failed = False
    for which in arguments.which:
        count, begun = arguments.count or COUNTS[which], time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            rng = random.Random(arguments.seed)
            failures = CHECKS[which](count, pathlib.Path(folder), rng)
        seconds = time.perf_counter() - begun
        print(f"{which}: {count}, {len(failures)} failures, {seconds:.0f} s")
        print("".join(f"  {failure}\n" for failure in failures[:20]), end="")
        failed = failed or bool(failures)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
