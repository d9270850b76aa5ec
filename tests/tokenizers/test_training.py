"""Training against the library, and the command."""

import pathlib

import pytest

from keras_llm import tokenizers
from keras_llm.tokenizers import gpt2_files
from tests import forked

ROOT = pathlib.Path(__file__).parents[2]
TEXTS = [ROOT / "testdata" / name for name in ("moby_dick.txt", "tang_poems.txt")]


@pytest.fixture(scope="module")
def trained():
    texts = [path.read_bytes() for path in TEXTS]
    return tokenizers.train_byte_bpe(texts, vocab_size=3_001)


def test_ids_are_those_of_the_library_trained_alike(trained):
    import tokenizers as library

    reference = library.Tokenizer(library.models.BPE())
    level = library.pre_tokenizers.ByteLevel
    reference.pre_tokenizer = level(add_prefix_space=False)
    trainer = library.trainers.BpeTrainer(
        vocab_size=3_000,
        min_frequency=2,
        initial_alphabet=level.alphabet(),
        show_progress=False,
    )
    reference.train_from_iterator([path.read_text("utf-8") for path in TEXTS], trainer)
    lines = TEXTS[0].read_text("utf-8").split("\n")[:3_000]
    lines += TEXTS[1].read_text("utf-8").split("\n")
    number_of = {token: n for n, token in enumerate(trained.token_bytes.tolist())}
    to_bytes = gpt2_files.to_bytes
    expected = [
        [number_of[to_bytes(token)] for token in found.tokens]
        for found in reference.encode_batch(lines)
    ]
    assert trained.encode(lines).to_list() == expected


def test_what_is_learned(trained):
    assert trained.vocab_size == 3_001
    assert trained.special_ids == {"end": 3_000}
    assert trained.token_bytes[:256].tolist() == [bytes([byte]) for byte in range(256)]
    assert len(trained.merges) == 3_000 - 256
    assert b" whale" in trained.token_bytes.tolist()
    again = tokenizers.train_byte_bpe(
        [path.read_text("utf-8") for path in TEXTS], vocab_size=3_001
    )
    assert again.merges == trained.merges


def test_a_short_text_gives_a_smaller_vocabulary():
    tokenizer = tokenizers.train_byte_bpe(["whale whale", b"\xff"], vocab_size=5_000)
    assert tokenizer.vocab_size < 270
    assert tokenizer.decode(tokenizer.encode("whale")).numpy() == b"whale"


def test_the_alphabet_alone():
    tokenizer = tokenizers.train_byte_bpe(["the the the"], vocab_size=257)
    assert tokenizer.merges == []
    assert tokenizer.encode("the").numpy().tolist() == list(b"the")


def test_what_cannot_be_trained():
    with pytest.raises(ValueError, match="at least 257.*vocab_size=256"):
        tokenizers.train_byte_bpe(["the"], vocab_size=256)
    for empty in ([], ["", b""]):
        with pytest.raises(ValueError, match="empty corpus"):
            tokenizers.train_byte_bpe(empty, vocab_size=300)


def run(*flags):
    return forked.run(ROOT / "scripts" / "train_tokenizer.py", *flags)


def test_the_command_writes_a_folder(tmp_path):
    out = tmp_path / "new" / "folder"
    done = run("--input=testdata/tang*.txt", "--vocab_size=500", f"--out={out}")
    assert done.returncode == 0, done.stderr
    assert "500 tokens" in done.stdout
    tokenizer = tokenizers.load(out)
    assert tokenizer.kind == "byte_bpe"
    assert tokenizer.vocab_size == 500


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--input={empty}", "--out={new}"], "no text in"),
        (["--input=testdata", "--out={here}", "--vocab_size=9"], "never over an"),
    ],
)
def test_the_command_refuses_in_one_line(tmp_path, flags, message):
    empty = tmp_path / "empty.txt"
    empty.touch()
    names = {"here": tmp_path, "new": tmp_path / "new", "empty": empty}
    done = run(*(flag.format(**names) for flag in flags))
    assert done.returncode == 1
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["empty.txt"]
