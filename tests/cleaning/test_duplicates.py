"""Signatures against true Jaccard similarities; the first of a kind stays."""

import random

import numpy as np
import pytest

from keras_llm.cleaning import NearDuplicates, digest, signature

RNG = random.Random(5)
WORDS = [f"w{i}" for i in range(4_000)]


def shingles(text, size):
    words = text.split()
    return {tuple(words[i : i + size]) for i in range(len(words) - size + 1)}


def changed(words, count):
    words = list(words)
    for place in RNG.sample(range(len(words)), count):
        words[place] = RNG.choice(WORDS)
    return words


@pytest.mark.parametrize("count", [0, 3, 10, 30, 200])
def test_agreement_estimates_the_jaccard_similarity(count):
    first = RNG.choices(WORDS, k=300)
    a, b = " ".join(first), " ".join(changed(first, count))
    sets = shingles(a, 3), shingles(b, 3)
    true = len(sets[0] & sets[1]) / len(sets[0] | sets[1])
    estimate = np.mean(signature(a, 3, 512) == signature(b, 3, 512))
    # Five deviations of a mean of 512 draws.
    assert abs(estimate - true) < 5 * (true * (1 - true) / 512) ** 0.5 + 1e-9


def test_case_and_punctuation_do_not_count_and_characters_are_words():
    assert (signature("A b, c!", 2, 32) == signature("a b c", 2, 32)).all()
    same = np.mean(
        signature("今天天气很好", 2, 256) == signature("今天天气真好", 2, 256)
    )
    assert 0.2 < same < 0.7  # Of 3 + 4 pairs of characters 3 are in both.


def test_texts_of_fewer_words_than_a_shingle():
    assert (signature("two words", 5, 32) == signature("Two words.", 5, 32)).all()
    assert (signature("two words", 5, 32) != signature("two birds", 5, 32)).any()
    assert signature("", 5, 32).shape == signature("!?", 5, 32).shape == (32,)


def test_near_duplicates_leave_the_first():
    originals = [RNG.choices(WORDS, k=200) for _ in range(30)]
    texts = [(" ".join(words), True) for words in originals]
    texts += [(" ".join(changed(words, 2)), False) for words in originals]
    texts += [(" ".join(changed(words, 90)), True) for words in originals]
    near = NearDuplicates(0.8, 128)
    found = [near.is_new(signature(text, 5, 128)) for text, _ in texts]
    assert found == [expected for _, expected in texts]


def test_digests():
    assert digest("a b") == digest(" a\n\tb ")
    assert len({digest("a b"), digest("ab"), digest("a B"), digest("")}) == 4
