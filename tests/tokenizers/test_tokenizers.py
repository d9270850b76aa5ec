"""What all kinds of tokenizer have in common, and what the simple ones do."""

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
import tensorflow as tf

from keras_llm import tokenizers
from keras_llm.core.allowed_ops import check_graph
from keras_llm.tokenizers.word_table import WordTable

POEM = "床前明月光，疑是地上霜。\n"
INVALID = [b"\xff", b"caf\xc3", b"\xe2\x82", b"a\x80b", b"\xc0\xaf", b"\xed\xa0\x80 x"]


PROSE = [POEM, "the whale, the white whale " * 9, "a t"]
KINDS = {
    "byte": tokenizers.ByteTokenizer,
    "character": lambda: tokenizers.CharacterTokenizer(POEM + "the wal'\0\ufeff"),
    "byte_bpe": lambda: tokenizers.train_byte_bpe(PROSE, 300),
    "wordpiece": lambda: tokenizers.train_wordpiece(PROSE, 100),
    "unigram": lambda: tokenizers.train_sentencepiece(PROSE, 60, extra_ids=2),
    "bpe": lambda: tokenizers.train_sentencepiece(PROSE, 60, "bpe"),
}


def test_words_that_swap_bytes_four_apart_are_told_apart():
    """Their parts fold to the same low half and differ in the highest byte alone."""
    table = WordTable({b" resource": 5, b" recourse": 7})
    text = np.frombuffer(b" resource recourse".ljust(40, b"\0"), "<i8")
    found = table.find(tf.constant(text), tf.constant([0, 9]), tf.constant([9, 9]))
    assert found.numpy().tolist() == [5, 7]


@pytest.fixture(scope="module", params=KINDS)
def tokenizer(request):
    return KINDS[request.param]()


def eager_and_mapped(fn, example):
    """Yields fn(example) run eagerly, then traced by tf.data."""
    yield fn(example)
    yield next(iter(tf.data.Dataset.from_tensors(example).map(fn)))


def test_eager_and_mapped_agree(tokenizer):
    texts = tf.constant([POEM.strip().encode(), b"", b"the  whale's\0 tale", *INVALID])
    ids = [found.to_list() for found in eager_and_mapped(tokenizer.encode, texts)]
    assert ids[0] == ids[1]
    ragged = tf.ragged.constant(ids[0], dtype=tf.int32)
    decoded = eager_and_mapped(tokenizer.decode, ragged)
    both = [texts.numpy().tolist() for texts in decoded]
    assert both[0] == both[1]
    assert both[0][0].replace(b" ", b"").startswith("床前明月光".encode())
    assert both[0][1] == b""


@pytest.mark.parametrize("kind", ["byte", "byte_bpe"])
def test_lossless_kinds_keep_any_bytes(kind):
    tokenizer = KINDS[kind]()

    @hypothesis.given(st.lists(st.binary(max_size=50), min_size=1, max_size=9))
    @hypothesis.settings(max_examples=60)
    def check(texts):
        ids = tokenizer.encode(texts)
        assert tokenizer.decode(ids).numpy().tolist() == texts
        joined = [
            b"".join(tokenizer.token_bytes[n] for n in row) for row in ids.to_list()
        ]
        assert joined == texts

    check()
    texts = INVALID + [bytes(range(256)), b"\0", b"\0\0a", bytes(range(255, -1, -1))]
    assert tokenizer.decode(tokenizer.encode(texts)).numpy().tolist() == texts


def test_invalid_utf8_splits_byte_by_byte_as_other_characters(gpt2):
    # The bytes before and behind are encoded as they are beside any symbol.
    found = gpt2.encode(b"caf\xff s").numpy()
    assert [gpt2.token_bytes[n] for n in found] == [b"c", b"af", b"\xff", b" s"]


def test_shapes(tokenizer):
    scalar = tokenizer.encode("the")
    assert scalar.shape.rank == 1
    assert scalar.dtype == tf.int32
    rows = tokenizer.encode(["the", "", "a"])
    assert isinstance(rows, tf.RaggedTensor)
    assert rows.dtype == tf.int32
    assert rows.to_list()[0] == scalar.numpy().tolist()
    assert rows.to_list()[1] == []
    assert tokenizer.decode(scalar).shape == ()
    assert tokenizer.decode(rows.to_tensor(-1)).numpy().tolist() == [b"the", b"", b"a"]
    assert tokenizer.decode(rows.to_list()).numpy().tolist() == [b"the", b"", b"a"]
    with pytest.raises(ValueError, match="Flatten"):
        tokenizer.encode([["a"], ["b"]])
    with pytest.raises(ValueError, match=r"\[B, N\]"):
        tokenizer.decode(np.zeros((1, 2, 3), np.int32))


def test_nothing_at_all(tokenizer):
    assert tokenizer.encode("").shape == (0,)
    assert tokenizer.encode([]).to_list() == []
    assert tokenizer.encode(["", ""]).to_list() == [[], []]
    assert tokenizer.decode([]).numpy() == b""
    assert tokenizer.decode(np.zeros((0, 5), np.int32)).shape == (0,)
    assert tokenizer.decode(np.zeros((3, 0), np.int32)).numpy().tolist() == [b""] * 3
    assert tokenizer.decode(tokenizer.encode([])).shape == (0,)


def test_a_text_and_what_continues_it_are_the_whole(tokenizer):
    ids = tokenizer.encode("the white whale the whale").numpy()
    whole = tokenizer.decode(ids).numpy()
    for cut in range(1, len(ids)):
        rest = [ids[cut:], ids[cut:cut]]
        goes_on = tokenizer.decode(tf.ragged.stack(rest), continues=True).numpy()
        begun = tokenizer.decode(ids[:cut]).numpy()
        # A mark of a space alone shows nothing yet where a text begins.
        if begun:
            assert [begun + part for part in goes_on] == [whole, begun]


def test_one_long_row_among_many_short_ones(tokenizer):
    ids = tokenizer.encode(["the"] * 30_000 + ["the " * 20_000])
    texts = tokenizer.decode(ids).numpy()
    assert set(texts[:-1]) == {b"the"} and texts[-1].split() == [b"the"] * 20_000


def test_special_padding_and_unknown_ids(tokenizer):
    t = tokenizer.encode("t").numpy().tolist()
    ids = [[-1, *t, tokenizer.end_id, -7], [tokenizer.end_id] * 2 + [*t, -1]]
    assert tokenizer.decode(ids).numpy().tolist() == [b"t", b"t"]
    assert tokenizer.token_bytes[tokenizer.end_id] == b""
    assert len(tokenizer.token_bytes) == tokenizer.vocab_size
    with pytest.raises(tf.errors.InvalidArgumentError, match="below"):
        tokenizer.decode([t[0], tokenizer.vocab_size])


def test_saved_model_holds_stock_ops_and_gives_the_same_ids(tokenizer, tmp_path):
    class Both(tf.Module):
        def __init__(self):
            super().__init__()
            self.tokenizer = tokenizer

        @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
        def encode(self, text):
            return self.tokenizer.encode(text).to_tensor(-1)

        @tf.function(input_signature=[tf.TensorSpec([None, None], tf.int32)])
        def decode(self, ids):
            return tokenizers.repair_utf8(self.tokenizer.decode(ids))

    module = Both()
    signatures = {"encode": module.encode, "decode": module.decode}
    tf.saved_model.save(module, str(tmp_path / "1"), signatures=signatures)
    ops = check_graph(tmp_path / "1")  # Refuses what stock TF Serving would.
    assert not [op for op in ops if "Table" in op]
    (tmp_path / "1").rename(tmp_path / "moved")
    loaded = tf.saved_model.load(str(tmp_path / "moved"))
    texts = tf.constant([POEM, "", "the white\0 whale's", *INVALID])
    np.testing.assert_array_equal(loaded.encode(texts), module.encode(texts))
    ids = module.encode(texts)
    assert loaded.decode(ids).numpy().tolist() == module.decode(ids).numpy().tolist()
    assert loaded.encode(tf.constant([], tf.string)).shape == (0, 0)
    served = loaded.signatures["encode"](text=tf.constant([""]))
    assert next(iter(served.values())).shape == (1, 0)


def test_byte_ids():
    tokenizer = tokenizers.ByteTokenizer()
    text = bytes(range(256))
    assert tokenizer.encode(text).numpy().tolist() == list(text)
    assert tokenizer.special_ids == {"end": 256}
    assert tokenizer.vocab_size == 257


def test_characters_are_learned_in_the_order_of_their_code_points():
    tokenizer = tokenizers.CharacterTokenizer.train(["ba", "風a🌊", b"c\xff"])
    assert tokenizer.characters == "abc風🌊"
    assert tokenizer.vocab_size == 5 + 2
    assert tokenizer.unknown_id == 5
    assert tokenizer.special_ids == {"end": 6}
    assert tokenizer.encode("風ab🌊").numpy().tolist() == [3, 0, 1, 4]


def test_unknown_characters_become_the_replacement_character():
    tokenizer = tokenizers.CharacterTokenizer("ab")
    text = b"a\xe9\xa2\xa8b\xffz\xc3"
    ids = tokenizer.encode(text).numpy().tolist()
    assert ids == [0, 2, 1, 2, 2, 2]
    expected = text.decode("utf-8", "replace").replace("風", "\ufffd")
    decoded = tokenizer.decode(ids).numpy().decode()
    assert decoded == expected.replace("z", "\ufffd")


@hypothesis.settings(max_examples=8)
@hypothesis.given(st.lists(st.text(st.characters(codec="utf-8")), min_size=1))
def test_any_characters_survive(texts):
    tokenizer = tokenizers.CharacterTokenizer.train([*texts, "\0\n\ufeff\U0010ffff"])
    decoded = tokenizer.decode(tokenizer.encode(texts)).numpy()
    assert [text.decode() for text in decoded] == texts


@hypothesis.settings(max_examples=100)
@hypothesis.given(st.lists(st.binary(max_size=30), min_size=1))
def test_repaired_text_is_what_python_makes_of_it(texts):
    expected = [text.decode("utf-8", "replace").encode() for text in texts]
    assert tokenizers.repair_utf8(texts).numpy().tolist() == expected


def test_a_character_set_must_hold_something():
    with pytest.raises(ValueError, match="at least one character"):
        tokenizers.CharacterTokenizer.train(["", b"\xff"])
    with pytest.raises(ValueError, match="surrogate"):
        tokenizers.CharacterTokenizer("a\ud800")
