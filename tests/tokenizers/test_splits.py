"""Llama 3's and Qwen 2's words against the library that runs their patterns."""

import bisect

import hypothesis
import hypothesis.strategies as st
import pytest
import tensorflow as tf
from tokenizers import Regex, pre_tokenizers

from keras_llm.tokenizers.splitting_by_runs import split_by_runs
from tests.tokenizers.generated import UNRULY, books, strings

PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|NUMBERS|"
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
NUMBERS = {3: r"\p{N}{1,3}", 1: r"\p{N}"}
PARTS = [*UNRULY, "'ſ", "ſ", "'S", "'lL", "\r\n", "1234567", "٣٤٥٦", "—", "“"]
SPACED = [*UNRULY[:36], "\n", "\r\n", "  ", "'"]


@pytest.fixture(scope="module", params=list(NUMBERS))
def check(request):
    """Compares the words of a batch of texts with the library's."""
    pattern = Regex(PATTERN.replace("NUMBERS", NUMBERS[request.param]))
    reference = pre_tokenizers.Split(pattern, "isolated")
    split = tf.function(
        lambda texts: split_by_runs(texts, request.param),
        input_signature=[tf.TensorSpec([None], tf.string)],
    )

    def check(texts):
        words = split(tf.constant(texts, tf.string, [len(texts)]))
        joined, ends = words.bytes_P.numpy().tobytes(), words.separator_B.numpy()
        found = [[] for _ in texts]
        for start, length in zip(
            words.start_W.numpy(), words.length_W.numpy(), strict=True
        ):
            row = bisect.bisect_right(ends, start) - 1
            found[row].append(joined[start : start + length].decode())
        for text, pieces in zip(texts, found, strict=True):
            expected = [word for word, _ in reference.pre_tokenize_str(text)]
            assert pieces == expected, repr(text)

    return check


def test_ten_thousand_generated_strings(check):
    check(strings(10_000, PARTS))


def test_white_space_and_contractions(check):
    check(strings(5_000, SPACED, seed=9))


def test_books_by_line_and_a_part_of_each_whole(check):
    for text in books().values():
        check([text[:40_000], *text[:200_000].split("\n")])


@hypothesis.settings(max_examples=60, deadline=None)
@hypothesis.given(st.lists(st.lists(st.sampled_from(PARTS), max_size=12), min_size=1))
def test_any_of_the_unruly(check, texts):
    check(["".join(parts) for parts in texts])


def test_ill_formed_bytes_are_signs_one_by_one():
    words = split_by_runs(tf.constant([b"\xffab \xc3\xe2\x82c"]), 3)
    text = words.bytes_P.numpy().tobytes()
    found = [
        text[start : start + length]
        for start, length in zip(
            words.start_W.numpy(), words.length_W.numpy(), strict=True
        )
    ]
    # One sign goes with the letters behind it; three make a word, with their space.
    assert found == [b"\xffab", b" \xc3\xe2\x82", b"c"]
