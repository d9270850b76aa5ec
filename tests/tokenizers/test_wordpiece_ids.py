"""Ids and offsets of BERT's vocabulary against the `tokenizers` library."""

import functools
import random
import re
import unicodedata

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
import tokenizers as library

from keras_llm import tokenizers
from keras_llm.tokenizers import bert_characters
from tests.tokenizers.generated import TESTDATA, UNRULY, books, strings

VOCABULARY = TESTDATA / "bert" / "vocab.txt"
WAYS = {
    "uncased": {},
    "cased": {"lower_case": False},
    "small letters with accents": {"lower_case": True, "strip_accents": False},
    "capitals without accents": {"lower_case": False, "strip_accents": True},
}
UNRULY_FOR_BERT = [
    *UNRULY,
    *"İıǅẞςΣ≠≮ﬁﾀﾞ한국어ガカ\u3099éàêỆ\xad\u200e\ue000\U000e0001\u0378豈\U0002f800々ー〇_$^`~",
    *["##ing", "[SEP]", "[unk]", "unaffable", "Ōsaka", "naïve", "\u0645\u064e", "🏴"],
]


def reference(lower_case=True, strip_accents=None):
    made = library.Tokenizer(
        library.models.WordPiece.from_file(
            str(VOCABULARY), unk_token="[UNK]", max_input_chars_per_word=100
        )
    )
    made.normalizer = library.normalizers.BertNormalizer(
        lowercase=lower_case, strip_accents=strip_accents
    )
    made.pre_tokenizer = library.pre_tokenizers.BertPreTokenizer()
    made.decoder = library.decoders.WordPiece(cleanup=False)
    made.add_special_tokens(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"])
    made.encode_special_tokens = True
    return made


@functools.cache
def made(way):
    """Returns a tokenizer, and the reference made alike."""
    ours = tokenizers.WordPieceTokenizer.from_file(VOCABULARY, **WAYS[way])
    return ours, reference(**WAYS[way])


@pytest.fixture(params=WAYS)
def pair(request):
    return made(request.param)


def bytes_before(text):
    """Returns how many bytes stand before each character, and before the end."""
    before = [0]
    for character in text:
        before.append(before[-1] + len(character.encode()))
    return before


def sorts_marks(text):
    """Tells whether decomposition moves marks from one character to another's place."""
    cleaned = library.normalizers.BertNormalizer(
        strip_accents=False, lowercase=False
    ).normalize_str(text)
    alone = "".join(unicodedata.normalize("NFD", character) for character in cleaned)
    return unicodedata.normalize("NFD", cleaned) != alone


def check(pair, texts):
    ours, theirs = pair
    ids, starts, ends = ours.encode_with_offsets(texts)
    found = theirs.encode_batch(texts, add_special_tokens=False)
    assert ours.encode(texts).to_list() == ids.to_list()
    for text, row, start, end, expected in zip(
        texts, ids.to_list(), starts.to_list(), ends.to_list(), found, strict=True
    ):
        assert row == expected.ids, f"{text!r}: {expected.tokens}"
        assert all(a < b for a, b in zip(start, end, strict=True)), repr(text)
        if not sorts_marks(text):
            before = bytes_before(text)
            spans = [(before[a], before[b]) for a, b in expected.offsets]
            assert list(zip(start, end, strict=True)) == spans, repr(text)
    # Decoded, too: what is unknown is silent as other special tokens are.
    decoded = [text.decode() for text in ours.decode(ids).numpy()]
    for text, expected in zip(decoded, found, strict=True):
        kept = [number for number in expected.ids if number != ours.special_ids["unk"]]
        if not kept or not ours.tokens[kept[0]].startswith("##"):
            assert text == theirs.decode(kept)


def test_generated_strings(pair):
    usual = pair[0].lower_case == pair[0].strip_accents
    check(pair, strings(10_000 if usual else 1_000, UNRULY_FOR_BERT))


@pytest.mark.parametrize("name", books())
def test_books_whole_and_by_line(name):
    book = books()[name]
    ours, theirs = made("uncased")
    for texts in ([book], book.split("\n")):
        found = theirs.encode_batch(texts, add_special_tokens=False)
        ids = ours.encode(texts)
        assert ids.row_lengths().numpy().tolist() == [len(each) for each in found]
        expected = np.concatenate([each.ids for each in found])
        np.testing.assert_array_equal(ids.values, expected)


@hypothesis.settings(
    max_examples=40,
    suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture],
)
@hypothesis.given(st.lists(st.text(max_size=40), min_size=1, max_size=20))
def test_any_text(pair, texts):
    check(pair, texts)


def test_every_character_between_two_letters():
    ours, theirs = made("uncased")
    # Of the planes without characters, and of private use, one in 17.
    used = [*range(0xE000), *range(0xF900, 0x32000), *range(0xE0000, 0xE0200)]
    numbers = sorted({*used, *range(0xE000, 0x110000, 17)})
    valid = [chr(number) for number in numbers if not 0xD800 <= number < 0xE000]
    # One string for many characters; the space ends what the last one began.
    texts = [
        " ".join(f"a{character}a" for character in valid[at : at + 5_000])
        for at in range(0, len(valid), 5_000)
    ]
    found = theirs.encode_batch(texts, add_special_tokens=False)
    expected = np.concatenate([each.ids for each in found])
    np.testing.assert_array_equal(ours.encode(texts).values, expected)


def test_marks_that_stay_are_sorted(pair):
    rng = random.Random(3)
    kept = [
        chr(n)
        for ranges in bert_characters._KEPT_MARKS.values()
        for n in bert_characters.code_points(ranges)
    ]
    gone = [chr(n) for n in bert_characters.code_points(bert_characters._MARKS)]
    parts = [*kept, *gone[::3], *"aéé \x07\x07한"]
    texts = ["".join(rng.choices(parts, k=rng.randrange(1, 12))) for _ in range(3_000)]
    check(pair, texts)
    # With every such mark in the vocabulary, their order shows.
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokens = [*special, *sorted({*kept, *(f"##{mark}" for mark in kept)})]
    ours = tokenizers.WordPieceTokenizer(tokens, strip_accents=True)
    normalizer = library.normalizers.BertNormalizer(strip_accents=True)
    for text, row in zip(texts, ours.encode(texts).to_list(), strict=True):
        words = normalizer.normalize_str(text).split()
        known = "".join(words) if set("".join(words)) <= set(kept) else None
        if known is not None:
            pieces = "".join(ours.tokens[number] for number in row)
            assert pieces.replace("##", "") == known, ascii(text)


def test_words_of_a_hundred_characters_and_more(pair):
    texts = [
        *("a" * n for n in (99, 100, 101, 5_000)),
        *("é" * n for n in (100, 101)),
        *("e\u0301" * n for n in (50, 51, 100, 101)),
        *("한" * n for n in (33, 34)),
        "unaffable" * 11 + " whale",
        "unaffable" * 12 + " whale",
        "".join(random.Random(1).choices("abcdefghij", k=100)),
        "".join(re.findall("[a-zA-Z]", books()["moby_dick.txt"])),
    ]
    check(pair, texts)


def test_invalid_utf8_goes_away_as_the_replacement_character_does(pair):
    texts = [
        b"\xff",
        b"caf\xc3",
        b"\xe2\x82 x",
        b"a\x80b",
        b"\xed\xa0\x80 x",
        b"\xc0\xaf",
    ]
    expected = pair[1].encode_batch(
        [text.decode(errors="replace") for text in texts], add_special_tokens=False
    )
    assert pair[0].encode(texts).to_list() == [each.ids for each in expected]
    _, starts, ends = pair[0].encode_with_offsets([b"\xff a\x80b", b"\xff"])
    assert starts.to_list() == [[2], []] and ends.to_list() == [[5], []]


def test_offsets_give_the_stretch_of_the_original_text():
    ours, _ = made("uncased")
    text = "Café Köhler sah 北京 \x07un\x00affable\u0301!"
    data = text.encode()
    ids, starts, ends = (
        each.numpy().tolist() for each in ours.encode_with_offsets(text)
    )
    stretches = [data[a:b].decode() for a, b in zip(starts, ends, strict=True)]
    assert "".join(ours.tokens[n].removeprefix("##") for n in ids) == (
        "cafekohlersah北京unaffable!"
    )
    assert "".join(stretches) == "CaféKöhlersah北京un\x00affable!"
    assert stretches[-1] == "!" and stretches[0] == "Café"
    assert ours.encode_with_offsets("")[1].shape == (0,)
    assert [each.to_list() for each in ours.encode_with_offsets(["", " "])] == 3 * [
        [[], []]
    ]
    with pytest.raises(ValueError, match="Flatten"):
        ours.encode_with_offsets([["a"], ["b"]])


def test_text_that_spells_a_special_token_is_only_text():
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    ours = tokenizers.WordPieceTokenizer([*special, "[", "]", "SEP"], lower_case=False)
    assert ours.encode("[SEP]").numpy().tolist() == [5, 7, 6]
    assert ours.special_ids == {
        "pad": 0,
        "unk": 1,
        "cls": 2,
        "sep": 3,
        "mask": 4,
        "end": 3,
    }
    assert ours.decode([2, 5, 1, 7, 6, 3, 0, -1]).numpy() == b"[ SEP ]"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[PAD]\n[CLS]\n[SEP]\n[MASK]\na\n", r"5 tokens without \[UNK\]"),
        (b"[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\na\n", "token 6 is 'a', as token 5"),
        (b"[PAD]\n[UNK]\n[CLS]\n[SEP]\n\n[MASK]\na\n", "token 4 is ''"),
        (b"[PAD]\r\n[UNK]\r\n[CLS]\r\n", "carriage return in line 1"),
        (b"[PAD]\n[UNK]\n\xff\n", "must be UTF-8"),
        (b"", "token 0 is ''"),
    ],
    ids=["no [UNK]", "twice", "blank", "CRLF", "not UTF-8", "empty"],
)
def test_a_malformed_vocabulary_is_refused(tmp_path, content, message):
    (tmp_path / "vocab.txt").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        tokenizers.WordPieceTokenizer.from_file(tmp_path / "vocab.txt")
