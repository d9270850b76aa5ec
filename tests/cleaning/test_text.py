"""What order is, what is no text, and that any text at all can be put in order."""

import unicodedata

import hypothesis
import pytest
from hypothesis import strategies as st

from keras_llm.cleaning import CleaningConfig, LanguageFilter, clean_text, fault

PROSE = "Some years ago, never mind how long precisely, I thought I would sail about."

ORDERED = {
    "wrongly decoded": ("donâ€™t", "don’t"),
    "entities": ("R&amp;B", "R&B"),
    "entities beside a tag": ("<b>R&amp;B", "<b>R&amp;B"),
    "control characters": ("a\x00b\x07c\x1b[31md", "abcd"),
    "line ends": ("a\r\nb\rc\u2028d", "a\nb\nc\nd"),
    "composed": ("e\u0301", "\u00e9"),
    "no width": ("a\u200bb\u00adc\ufeff", "abc"),
    "ends of lines": ("a \t\n b  ", "a\n b"),
    "blank lines": ("a\n\n\n\n\n\nb\n\nc", "a\n\n\nb\n\nc"),
    "quotes stay": ("“a” ‘b’", "“a” ‘b’"),
    "wide letters stay": ("你好，世界！ＡＢ", "你好，世界！ＡＢ"),
    "ligatures stay": ("ﬁn", "ﬁn"),
    "joiners stay": ("می\u200cخواهم", "می\u200cخواهم"),
}


@pytest.mark.parametrize(("text", "expected"), ORDERED.values(), ids=ORDERED)
def test_order(text, expected):
    assert clean_text(text) == expected


@hypothesis.given(st.text())
def test_order_of_any_text(text):
    cleaned = clean_text(text)
    assert unicodedata.is_normalized("NFC", cleaned)
    assert not set(cleaned) & set("\x00\r\u200b\ufeff\u2028")
    cleaned.encode()  # No half of a surrogate pair is left.


FAULTS = {
    "prose": (PROSE, {}, None),
    "too short": (PROSE, {"min_characters": 77}, "short"),
    "long enough": (PROSE, {"min_characters": 76}, None),
    "blank": (" \n" * 50, {}, "short"),
    "blank, any length": ("  ", {"min_characters": 0}, "short"),
    "numbers": ("12 + 30 = 42; " * 9, {}, "symbols"),
    "numbers allowed": ("12 + 30 = 42; " * 9, {"min_letters": 0.0}, None),
    "half letters": ("a1 " * 30, {}, None),
    "Chinese": ("今天天气很好，我们去公园。" * 5, {}, None),
    "Hindi's marks": ("आज मौसम बहुत अच्छा है और हम बाहर घूमने जा रहे हैं।" * 2, {}, None),
    "a line again and again": (f"{PROSE}\n\n" * 3, {}, "repetition"),
    "one line in four again": (
        "\n".join([PROSE, PROSE, PROSE[1:], PROSE[2:]]),
        {},
        None,
    ),
    "lines allowed": (f"{PROSE}\n" * 3, {"max_repeated_lines": 0.0}, None),
}


@pytest.mark.parametrize(("text", "options", "expected"), FAULTS.values(), ids=FAULTS)
def test_faults(text, options, expected):
    assert fault(text, CleaningConfig(**options)) == expected


LANGUAGES = {
    "en": PROSE,
    "fr": "Il y a quelques années, peu importe combien, j'ai pensé naviguer un peu.",
    "de": "Vor einigen Jahren, wie lange genau ist gleich, wollte ich zur See fahren.",
    "zh": "几年前，具体多久并不重要，我想坐船出去看看世界上的海洋。",
    "ru": "Несколько лет назад, неважно, сколько именно, я решил отправиться в море.",
}


def test_languages():
    for languages in (("en",), ("fr", "de"), tuple(LANGUAGES)):
        keeps = LanguageFilter(languages, 0.5)
        kept = {language for language, text in LANGUAGES.items() if keeps(text)}
        assert kept == set(languages)


def test_an_unknown_language_is_named():
    with pytest.raises(ValueError, match=r"Received: english, xx\. Known are: .*en,"):
        LanguageFilter(("en", "english", "xx"), 0.5)
