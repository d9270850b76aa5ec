"""Ids of GPT-2's vocabulary against two independent libraries."""

import json
import random
import re

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from keras_llm.tokenizers import unicode_classes
from tests.tokenizers.generated import TESTDATA, UNRULY, strings


@pytest.fixture(scope="module")
def check(gpt2, tokenizers_encode, tiktoken_encode):
    """Compares ids of a batch of texts with both libraries, and decodes them."""

    def check(texts):
        ids = gpt2.encode(texts)
        found = ids.to_list()
        for reference in (tokenizers_encode, tiktoken_encode):
            expected = reference(texts)
            if found != expected:
                pairs = zip(texts, found, expected, strict=True)
                wrong = next(triple for triple in pairs if triple[1] != triple[2])
                pytest.fail(f"{wrong[0]!r}: {wrong[1]}, but the reference {wrong[2]}")
        decoded = gpt2.decode(ids).numpy().tolist()
        assert decoded == [text.encode() for text in texts]

    return check


def test_published_samples(gpt2, check):
    plans = (TESTDATA / "TestPlans.txt").read_text(encoding="utf-8")
    cases = re.findall(
        r"^EncodingName: r50k_base\nSample: (.*?)\nEncoded: (\[.*?\])$",
        plans,
        re.MULTILINE | re.DOTALL,
    )
    assert len(cases) > 30
    samples = [sample for sample, _ in cases]
    assert gpt2.encode(samples).to_list() == [json.loads(ids) for _, ids in cases]
    check(samples)


@pytest.mark.parametrize("name", ["moby_dick.txt", "tang_poems.txt"])
def test_books_whole_and_by_line(check, name):
    text = (TESTDATA / name).read_text(encoding="utf-8")
    check([text])
    check(text.split("\n"))


def test_ten_thousand_generated_strings(check):
    check(strings(10_000, UNRULY))


@hypothesis.settings(max_examples=60)
@hypothesis.given(st.lists(st.text(max_size=40), min_size=1, max_size=20))
def test_any_text(check, texts):
    check(texts)


@hypothesis.settings(max_examples=100)
@hypothesis.given(st.lists(st.text(st.sampled_from(UNRULY[:30])), min_size=1))
def test_any_white_space_and_contractions(check, texts):
    check(texts)


def test_words_far_longer_than_any_token(check):
    rng = random.Random(11)
    prose = (TESTDATA / "moby_dick.txt").read_text(encoding="utf-8")
    check(
        [
            "".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=30_000)),
            "".join(rng.choices("ab", k=5_000)),
            "".join(re.findall("[a-zA-Z]", prose[:60_000])),
            *("a" * n for n in range(1, 40)),
            *(character * n for character in "-=_ \n*a中" for n in (127, 1_001)),
            "".join("-=_*."[n % 5] * rng.randrange(150) for n in range(200)),
            "ab" * 3_000 + "a" * 77,
            "".join(rng.choices("0123456789", k=9_999)),
        ]
    )


def test_every_code_point_has_the_class_that_the_libraries_give_it():
    from tokenizers import Regex, normalizers

    classes = unicode_classes.character_classes()
    everything = [chr(n) for n in range(0x110000) if not 0xD800 <= n < 0xE000]
    for value, pattern in (
        (unicode_classes.LETTER, r"\p{L}"),
        (unicode_classes.NUMBER, r"\p{N}"),
        (unicode_classes.SPACE, r"\s"),
    ):
        remove = normalizers.Replace(Regex(pattern), "")
        rest = set(remove.normalize_str("".join(everything)))
        expected = sorted(set(everything) - rest)
        assert [chr(n) for n in np.flatnonzero(classes == value)] == expected


def test_text_that_spells_a_special_token_is_only_text(gpt2, check):
    texts = ["<|endoftext|>", "a<|endoftext|>b", "<|endoftext|> " * 3]
    check(texts)
    assert gpt2.special_ids == {"end": 50_256}
    assert not any(gpt2.end_id in ids for ids in gpt2.encode(texts).to_list())
