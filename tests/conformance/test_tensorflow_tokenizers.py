"""Every public tokenizer: eager, traced, mapped, reloaded, in a SavedModel."""

import numpy as np
import pytest
import tensorflow as tf

from keras_llm import tokenizers
from tests.conformance import subjects

TEXTS = [
    "Call me Ishmael. Some years ago",
    "床前明月光，疑是地上霜。",
    "",
    "  two  spaces\t\n\r\n and lines\n",
    "naïve café 🐳🐋 don't",
    "<|endoftext|> spelt out",
]
TOKENIZERS = {
    "ByteBPETokenizer": tokenizers.train_byte_bpe(3 * TEXTS, 300),
    "ByteTokenizer": tokenizers.ByteTokenizer(),
    "CharacterTokenizer": tokenizers.CharacterTokenizer.train(TEXTS),
    "SentencePieceTokenizer": tokenizers.train_sentencepiece(TEXTS, 120, extra_ids=3),
    "WordPieceTokenizer": tokenizers.train_wordpiece(TEXTS, 200),
}
# What a kind that is not lossless makes of the texts.
DECODED = {
    "SentencePieceTokenizer": [
        "Call me Ishmael. Some years ago",
        "床前明月光,疑是地上霜。",
        "",
        "two spaces and lines",
        "naïve café 🐳🐋 don't",
        "<|endoftext|> spelt out",
    ],
    "WordPieceTokenizer": [
        "call me ishmael . some years ago",
        "床 前 明 月 光 ， 疑 是 地 上 霜 。",
        "",
        "two spaces and lines",
        "naive cafe 🐳🐋 don ' t",
        "< | endoftext | > spelt out",
    ],
}


@pytest.fixture(params=sorted(TOKENIZERS))
def tokenizer(request):
    return TOKENIZERS[request.param]


def decoded(tokenizer):
    return DECODED.get(type(tokenizer).__name__, TEXTS)


def test_cases_are_the_public_tokenizers():
    assert set(TOKENIZERS) == subjects.public(tokenizers, tokenizers.Tokenizer)
    for name, tokenizer in TOKENIZERS.items():
        assert type(tokenizer).__name__ == name


def test_round_trip(tokenizer):
    ids = tokenizer.encode(TEXTS)
    assert ids.dtype == tf.int32 and ids.ragged_rank == 1
    assert [text.decode() for text in tokenizer.decode(ids).numpy()] == decoded(
        tokenizer
    )


def test_eager_traced_and_mapped_are_the_same(tokenizer):
    eager = tokenizer.encode(TEXTS).to_list()
    traced = tf.function(tokenizer.encode, autograph=False)(tf.constant(TEXTS))
    assert traced.to_list() == eager
    mapped = tf.data.Dataset.from_tensor_slices(TEXTS).map(tokenizer.encode)
    assert [row.tolist() for row in mapped.as_numpy_iterator()] == eager


def test_a_row_alone_is_the_row_in_a_batch(tokenizer):
    together = tokenizer.encode(TEXTS).to_list()
    assert [tokenizer.encode(text).numpy().tolist() for text in TEXTS] == together


def test_ids_lie_in_the_vocabulary_and_never_are_special(tokenizer):
    ids = tokenizer.encode(TEXTS).flat_values.numpy()
    # What is unknown stands for text.
    special = {n for role, n in tokenizer.special_ids.items() if role != "unk"}
    assert tokenizer.special_ids["end"] in special
    assert ids.min() >= 0 and ids.max() < tokenizer.vocab_size
    assert not special & set(ids.tolist())


def test_bytes_of_the_tokens_are_the_text(tokenizer):
    assert len(tokenizer.token_bytes) == tokenizer.vocab_size
    rows = tokenizer.encode(TEXTS).to_list()
    for text, ids in zip(decoded(tokenizer), rows, strict=True):
        joined = b"".join(tokenizer.token_bytes[ids]).decode()
        # Where words begin with a space, the first one's is not part of the text.
        assert joined in (text, f" {text}")
    assert tokenizer.token_bytes[tokenizer.special_ids["end"]] == b""


def test_decode_drops_padding_and_special_ids(tokenizer):
    row = tokenizer.encode(TEXTS[0]).numpy()
    padded = np.concatenate([[tokenizer.special_ids["end"]], row, [-1, -1]])
    assert tokenizer.decode(padded[None]).numpy()[0].decode() == decoded(tokenizer)[0]


def test_decode_refuses_ids_beyond_the_vocabulary(tokenizer):
    with pytest.raises(tf.errors.InvalidArgumentError):
        tokenizer.decode([[tokenizer.vocab_size]])


def test_save_and_load(tokenizer, tmp_path):
    tokenizer.save(tmp_path / "tokenizer")
    again = tokenizers.load(tmp_path / "tokenizer")
    assert type(again) is type(tokenizer) and again.kind == tokenizer.kind
    assert again.special_ids == tokenizer.special_ids
    assert again.encode(TEXTS).to_list() == tokenizer.encode(TEXTS).to_list()


def test_saved_model(tokenizer, tmp_path):
    module = tf.Module()
    module.tokenizer = tokenizer
    module.there_and_back = tf.function(
        lambda text: tokenizer.decode(tokenizer.encode(text)),
        input_signature=[tf.TensorSpec([None], tf.string)],
        autograph=False,
    )
    tf.saved_model.save(module, str(tmp_path / "saved"))
    loaded = tf.saved_model.load(str(tmp_path / "saved"))
    out = loaded.there_and_back(tf.constant(TEXTS)).numpy()
    assert [text.decode() for text in out] == decoded(tokenizer)


def test_any_bytes_are_taken(tokenizer):
    strange = [b"\xff\xfe\x00", b"a\xe2\x82", bytes(range(256))]
    ids = tokenizer.encode(strange)
    assert ids.shape[0] == 3
    tokenizer.decode(ids)
