"""Training against the library, and the command."""

import pathlib

import numpy as np
import pytest

from keras_llm import tokenizers
from keras_llm.tokenizers import gpt2_files
from tests import forked

POEM = "床前明月光，疑是地上霜。舉頭望明月，低頭思故鄉。"
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


@pytest.fixture(scope="module")
def wordpiece():
    return tokenizers.train_wordpiece([TEXTS[0].read_bytes()[:300_000]], 900)


def test_wordpiece_learns_the_same_from_the_same_text(wordpiece):
    text = TEXTS[0].read_text("utf-8")
    again = tokenizers.train_wordpiece([text[:290_000]], vocab_size=900)
    text = TEXTS[0].read_bytes()[:300_000]
    assert tokenizers.train_wordpiece([text], 900).tokens == wordpiece.tokens
    assert again.tokens != wordpiece.tokens
    assert wordpiece.tokens[:5] == ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
    assert "whale" in wordpiece.tokens and "##ing" in wordpiece.tokens
    ids = wordpiece.encode(text).numpy()
    assert wordpiece.special_ids["unk"] not in ids  # No word of it is unknown.


def test_cased_wordpiece_keeps_capitals_and_accents():
    texts = ["Ōsaka Ōsaka Café Café"]
    cased = tokenizers.train_wordpiece(texts, 40, lower_case=False)
    assert {"Ō", "C", "##é"} <= set(cased.tokens) and "c" not in cased.tokens
    plain = tokenizers.train_wordpiece(texts, 40)
    assert {"o", "c", "##e"} <= set(plain.tokens) and "é" not in "".join(plain.tokens)


@pytest.mark.parametrize("model_type", ["unigram", "bpe"])
def test_sentencepiece_learns_the_same_from_the_same_text(model_type):
    text = TEXTS[0].read_bytes()[:100_000]
    options = {"model_type": model_type, "extra_ids": 10, "character_coverage": 1.0}
    trained = tokenizers.train_sentencepiece([text], 400, **options)
    again = tokenizers.train_sentencepiece([text], 400, **options)
    assert trained.model == again.model and trained.model_type == model_type
    assert trained.special_ids == {"pad": 0, "end": 1, "unk": 2}
    assert trained.vocab_size == 410 and trained.sentinel_ids[0] == 409
    words = " ".join(text.decode(errors="ignore").split())
    assert trained.decode(trained.encode(words)).numpy().decode() == words


def test_a_mask_is_kept_for_models_that_fill_it():
    plain = tokenizers.train_sentencepiece([POEM], 60)
    masked = tokenizers.train_sentencepiece([POEM], 61, mask=True)
    assert masked.special_ids == {"pad": 0, "end": 1, "unk": 2, "mask": 3}
    ids, moved = plain.encode(POEM).numpy(), masked.encode(POEM).numpy()
    np.testing.assert_array_equal(moved, ids + 1)  # All else is as without it.
    assert 3 not in masked.encode("the [MASK]").numpy()


def test_characters_that_are_left_out_become_bytes_or_unknown():
    text = "the whale " * 50 + "床"
    options = {"model_type": "bpe", "character_coverage": 0.99}
    trained = tokenizers.train_sentencepiece([text], 300, byte_fallback=True, **options)
    assert trained.decode(trained.encode("a 床!")).numpy().decode() == "a 床!"
    trained = tokenizers.train_sentencepiece([text], 300, **options)
    assert trained.decode(trained.encode("a 床")).numpy().decode() == "a  ⁇ "


def test_what_cannot_be_trained():
    with pytest.raises(ValueError, match="vocab_size=20, but .* are needed"):
        tokenizers.train_wordpiece([POEM], vocab_size=20)
    with pytest.raises(
        ValueError, match=r"vocab_size=9. The text needs \d\d: raise `vocab_size`"
    ):
        tokenizers.train_sentencepiece([POEM], vocab_size=9)
    with pytest.raises(ValueError, match="unigram"):
        tokenizers.train_sentencepiece([POEM], vocab_size=99, model_type="char")
    for train in (tokenizers.train_wordpiece, tokenizers.train_sentencepiece):
        for empty in ([], ["", b"\xff", " \n"]):
            with pytest.raises(ValueError, match="nothing but white space"):
                train(empty, 300)
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
    assert done.stderr == ""  # No bar where it would fill a log.
    tokenizer = tokenizers.load(out)
    assert tokenizer.kind == "byte_bpe"
    assert tokenizer.vocab_size == 500


@pytest.mark.parametrize(
    ("kind", "flags", "loaded"),
    [
        ("wordpiece", ["--nolower_case"], "wordpiece"),
        ("unigram", ["--extra_ids=7", "--byte_fallback", "--mask"], "sentencepiece"),
    ],
)
def test_the_command_trains_other_kinds(tmp_path, kind, flags, loaded):
    out = tmp_path / "tokenizer"
    size = ["--vocab_size=5000", f"--kind={kind}", f"--out={out}"]
    done = run("--input=testdata/tang*.txt", *size, *flags)
    assert done.returncode == 0, done.stderr
    tokenizer = tokenizers.load(out)
    assert tokenizer.kind == loaded
    if kind == "wordpiece":
        assert not tokenizer.lower_case
    else:
        assert "mask" in tokenizer.special_ids
        assert len(tokenizer.sentinel_ids) == tokenizer.vocab_size - 5_000 == 7


def test_a_flag_that_changes_nothing_is_refused(tmp_path):
    out = f"--out={tmp_path / 'new'}"
    done = run("--input=testdata", "--kind=bpe", "--nolower_case", out)
    assert done.returncode == 1
    assert "--lower_case changes nothing with --kind=bpe" in done.stderr
    assert not list(tmp_path.iterdir())


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
