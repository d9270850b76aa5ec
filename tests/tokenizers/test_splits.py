"""The words of Llama 3, Qwen 2 and SmolLM against the library that makes theirs."""

import bisect

import hypothesis
import hypothesis.strategies as st
import pytest
import tensorflow as tf
from tokenizers import Regex, pre_tokenizers

from keras_llm.tokenizers.splitting import split_words
from keras_llm.tokenizers.splitting_by_runs import split_by_runs
from tests.tokenizers.generated import UNRULY, books, strings

PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|NUMBERS|"
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
GPT2 = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
PARTS = [*UNRULY, "'ſ", "ſ", "'S", "'lL", "\r\n", "1234567", "٣٤٥٦", "—", "“"]
SPACED = [*UNRULY[:36], "\n", "\r\n", "  ", "'"]


def by_runs(digits, numbers):
    pattern = Regex(PATTERN.replace("NUMBERS", numbers))
    reference = pre_tokenizers.Split(pattern, "isolated")
    return reference, lambda texts: split_by_runs(texts, digits)


def between_digits():
    steps = [
        pre_tokenizers.Digits(individual_digits=True),
        pre_tokenizers.Split(Regex(GPT2), "isolated"),
    ]
    return (
        pre_tokenizers.Sequence(steps),
        lambda texts: split_words(texts, single_digits=True),
    )


KINDS = {
    "llama3": by_runs(3, r"\p{N}{1,3}"),
    "qwen2": by_runs(1, r"\p{N}"),
    "smollm": between_digits(),
}


@pytest.fixture(scope="module", params=list(KINDS))
def check(request):
    """Compares the words of a batch of texts with the library's."""
    reference, function = KINDS[request.param]
    split = tf.function(function, input_signature=[tf.TensorSpec([None], tf.string)])

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
