"""Merging against BPE written as plainly as its definition."""

import random

import numpy as np
import pytest
import tensorflow as tf

from keras_llm.tokenizers import ByteBPETokenizer
from keras_llm.tokenizers.merge_rules import MergeRules
from keras_llm.tokenizers.packing import Packing

pytestmark = pytest.mark.usefixtures("eager_functions")

ALPHABET = [bytes([byte]) for byte in range(256)]


def merge_by_definition(units, ranks):
    """Merges the first of the pairs of lowest rank until none has a rank."""
    units = list(units)
    while True:
        pairs = [
            (ranks[pair], at)
            for at, pair in enumerate(zip(units, units[1:], strict=False))
            if pair in ranks
        ]
        if not pairs:
            return units
        _, at = min(pairs)
        units[at : at + 2] = [units[at] + units[at + 1]]


def random_merges(rng, letters, count):
    """Draws merges of the tokens made so far, each token made once."""
    tokens = [bytes([letter]) for letter in letters]
    merges = []
    while len(merges) < count:
        # The product leans to long tokens and to doubles, where errors would hide.
        first, second = rng.choice(tokens), rng.choice(tokens[-12:])
        if rng.random() < 0.2:
            second = first
        if len(first + second) <= 40 and first + second not in tokens:
            tokens.append(first + second)
            merges.append((first, second))
    return merges


def tokenizer_of(merges):
    tokens = list(dict.fromkeys(ALPHABET + [left + right for left, right in merges]))
    return ByteBPETokenizer([*tokens, b""], merges, {"end": len(tokens)})


@pytest.mark.parametrize("seed", range(6))
def test_merging_is_that_of_the_definition(seed):
    rng = random.Random(seed)
    letters = b"abc"[: 1 + seed % 3]
    merges = random_merges(rng, letters, count=5 + 6 * seed)
    ranks = {pair: rank for rank, pair in enumerate(merges)}
    tokenizer = tokenizer_of(merges)
    texts = [bytes(rng.choices(letters, k=rng.randrange(90))) for _ in range(300)]
    found = tokenizer.encode(texts).to_list()
    for text, ids in zip(texts, found, strict=True):
        expected = merge_by_definition([bytes([byte]) for byte in text], ranks)
        assert [tokenizer.token_bytes[n] for n in ids] == expected


@pytest.mark.parametrize("seed", range(4))
def test_a_token_made_in_two_ways(seed):
    # abc comes from ab + c or from a + bc; all come before they are used.
    rng = random.Random(seed)
    heads = [(b"a", b"b"), (b"b", b"c")]
    tails = [(b"ab", b"c"), (b"a", b"bc")]
    merges = [*rng.sample(heads, 2), *rng.sample(tails, 2), (b"abc", b"abc")]
    ranks = {pair: rank for rank, pair in enumerate(merges)}
    tokenizer = tokenizer_of(merges)
    texts = [bytes(rng.choices(b"abc", k=rng.randrange(60))) for _ in range(500)]
    for text, ids in zip(texts, tokenizer.encode(texts).to_list(), strict=True):
        expected = merge_by_definition([bytes([byte]) for byte in text], ranks)
        assert [tokenizer.token_bytes[n] for n in ids] == expected


def test_a_token_that_its_own_bytes_do_not_give_is_never_looked_up_whole():
    # "abc" is a token, but "bc" always merges first, and (a, bc) is no merge.
    merges = [(b"b", b"c"), (b"a", b"b"), (b"ab", b"c")]
    tokenizer = tokenizer_of(merges)
    found = [tokenizer.token_bytes[n] for n in tokenizer.encode("abc").numpy()]
    assert found == [b"a", b"bc"]


def test_no_merges_at_all():
    assert tokenizer_of([]).encode("whale").numpy().tolist() == [*b"whale"]


def test_work_ends_after_few_rounds(gpt2):
    rng = random.Random(5)
    word = bytes(rng.choices(b"abcdefghijklmnopqrstuvwxyz", k=20_000))
    units = tf.gather(gpt2._byte_ids, np.frombuffer(word, np.uint8).astype(np.int32))
    rules, rounds = gpt2._rules, 0
    edge = tf.fill([8], rules.separator)
    units = tf.concat([edge, units, edge], axis=0)
    state = (units, *rules._candidates(units))
    while tf.size(state[-1]) > 0:
        state = rules._round(*state)
        rounds += 1
    # Rank by rank it takes 1,212.
    assert rounds < 12


@pytest.mark.parametrize("seed", range(8))
def test_merges_in_any_order_are_those_of_the_definition(seed):
    """As in lists made of the ranks of tokens, with every way to make each."""
    rng = random.Random(seed)
    letters = b"abc"[: 1 + seed % 3]
    tokens = {left + right for left, right in random_merges(rng, letters, 9 + 3 * seed)}
    parts = tokens | {bytes([letter]) for letter in letters}
    merges = [
        (token[:cut], token[cut:])
        for token in rng.sample(sorted(tokens), len(tokens))
        for cut in range(1, len(token))
        if {token[:cut], token[cut:]} <= parts
    ]
    ranks = {pair: rank for rank, pair in enumerate(merges)}
    tokenizer = tokenizer_of(merges)
    texts = [bytes(rng.choices(letters, k=rng.randrange(60))) for _ in range(300)]
    found = tokenizer.encode(texts).to_list()
    for text, ids in zip(texts, found, strict=True):
        expected = merge_by_definition([bytes([byte]) for byte in text], ranks)
        assert [tokenizer.token_bytes[n] for n in ids] == expected


def test_merges_that_repeat_are_refused():
    with pytest.raises(ValueError, match="merge 1 repeats merge 0"):
        MergeRules([(0, 1, 2), (0, 1, 2)], vocab_size=4)


def test_packing_gives_every_key_its_own_slot_and_others_some_slot():
    rng = np.random.default_rng(0)
    keys = np.unique(rng.integers(0, 2**50, (5_003, 2)), axis=0)
    packing = Packing(keys)
    assert len(np.unique(packing.slots)) == len(keys)
    np.testing.assert_array_equal(packing.find(keys.T), packing.slots)
    others = packing.find(rng.integers(-(2**63), 2**63 - 1, (2, 10_007))).numpy()
    assert others.min() >= 0
    assert others.max() < packing.num_slots


def test_packing_refuses_keys_that_repeat():
    with pytest.raises(ValueError, match="repeat"):
        Packing(np.array([[5], [5]]))
