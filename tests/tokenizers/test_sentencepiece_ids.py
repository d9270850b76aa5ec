"""Ids and decoded text of SentencePiece models against the library."""

import io
import json
import random

import numpy as np
import pytest
import sentencepiece
import tensorflow as tf
from sentencepiece import sentencepiece_model_pb2

from keras_llm import tokenizers
from keras_llm.core.allowed_ops import check_graph
from tests import forked
from tests.tokenizers.generated import TESTDATA, UNRULY, books, strings

FOLDER = TESTDATA / "sentencepiece"
UNRULY_FOR_PIECES = [
    *UNRULY,
    *["▁", "<s>", "</s>", "<unk>", "<pad>", "<0x41>", "⁇", " ⁇ ", "<extra_id_0>"],
    *["ﾀﾞ", "ｶﾞ", "カ\u3099", "日本語", "です", "①", "㌔", "\u0300", "ÅÅ", "<sep>"],
]


def trained(**options):
    """Returns a model that the library trains on two poems' worth of text."""
    chapters = books()
    lines = chapters["moby_dick.txt"].split("\n")[:1_500]
    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines + chapters["tang_poems.txt"].split("\n")[:50]),
        model_writer=written,
        vocab_size=900,
        character_coverage=0.98,
        minloglevel=2,
        **options,
    )
    return written.getvalue()


MODELS = {
    "English unigram": lambda: (FOLDER / "botchan_en_unigram_1000.model").read_bytes(),
    "English BPE": lambda: (FOLDER / "botchan_en_bpe_1000.model").read_bytes(),
    "Japanese unigram": lambda: (FOLDER / "kyoto_ja_unigram_8000.model").read_bytes(),
    "unigram, bytes": lambda: trained(model_type="unigram", byte_fallback=True),
    "BPE, bytes, as it stands": lambda: trained(
        model_type="bpe",
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        allow_whitespace_only_pieces=True,
    ),
    "BPE across spaces": lambda: trained(
        model_type="bpe", split_by_whitespace=False, add_dummy_prefix=False
    ),
    "unigram without a prefix": lambda: trained(
        model_type="unigram", remove_extra_whitespaces=False, add_dummy_prefix=False
    ),
    "BPE with symbols": lambda: trained(
        model_type="bpe",
        user_defined_symbols=["<sep>", "ha"],
        control_symbols=["<ctl>"],
        pad_id=3,
        unk_surface="?",
    ),
}


@pytest.fixture(scope="module", params=MODELS)
def pair(request):
    """A tokenizer, and the library's of the same model."""
    model = MODELS[request.param]()
    library = sentencepiece.SentencePieceProcessor(model_proto=model)
    return tokenizers.SentencePieceTokenizer(model), library


def check(pair, texts):
    """Compares ids; where they differ, both divisions must be equally probable.

    Returns:
        How many texts were divided otherwise than by the library.
    """
    ours, library = pair
    others = 0
    found, expected = ours.encode(texts).to_list(), library.encode(texts)
    for text, row, other in zip(texts, found, expected, strict=True):
        if row != other:
            scores = [sum(map(library.get_score, ids)) for ids in (row, other)]
            assert ours.model_type == "unigram", repr(text)
            assert len(row) == len(other) and sorted(row) == sorted(other), repr(text)
            np.testing.assert_allclose(*scores, rtol=1e-12)
            others += 1
    return others


def test_generated_strings(pair):
    texts = strings(10_000, UNRULY_FOR_PIECES)
    assert check(pair, texts) <= 10
    mine = [piece for piece in pair[0].token_bytes if piece]
    rng = random.Random(5)
    texts = [b"".join(rng.choices(mine, k=rng.randrange(9))) for _ in range(2_000)]
    check(pair, [text.decode(errors="replace") for text in texts])


@pytest.mark.parametrize("name", books())
def test_books_by_line(pair, name):
    assert check(pair, books()[name].split("\n")[:6_000]) <= 3


def test_a_long_text(pair):
    book = books()["moby_dick.txt"]
    check(pair, [book[:30_000], book[:30_000].replace(" ", "")])


def test_decoded_text_is_that_of_the_library(pair):
    ours, library = pair
    rng = random.Random(1)
    silent = [n for n, piece in enumerate(ours.token_bytes) if piece in (b"", b" ")]
    rows = library.encode(strings(2_000, UNRULY_FOR_PIECES))
    for most in (len(silent), 30, ours.vocab_size):
        choice = [*silent, *range(most)]
        rows += [rng.choices(choice, k=rng.randrange(9)) for _ in range(1_500)]
    # Where the library writes U+FFFD for a byte, ours gives the byte.
    decoded = ours.decode(tf.ragged.constant(rows, dtype=tf.int32)).numpy()
    for row, text in zip(rows, decoded, strict=True):
        expected = library.decode(row)
        if "\ufffd" not in expected:
            assert text.decode() == expected, row
    assert ours.decode([-1, *rows[0], -1]).numpy().decode() == library.decode(rows[0])


def test_any_bytes_give_the_ids_of_the_library(pair):
    ours, library = pair
    rng = random.Random(9)
    texts = [b"\xff", b"caf\xc3", b"\xe2\x82 x", b"a\x80b", b"\xed\xa0\x80 x", b"\0\0a"]
    texts += [rng.randbytes(rng.randrange(20)) for _ in range(500)]
    assert ours.encode(texts).to_list() == library.encode(texts)


def with_pieces(model, *changes):
    """Returns the model with the pieces at these ids renamed and retyped."""
    proto = sentencepiece_model_pb2.ModelProto.FromString(model)
    for number, piece, kind in changes:
        proto.pieces[number].piece = piece
        proto.pieces[number].type = kind
    return proto.SerializeToString()


def test_sentinels_are_added_behind_the_pieces():
    model = MODELS["English BPE"]()
    plain = tokenizers.SentencePieceTokenizer(model)
    ours = tokenizers.SentencePieceTokenizer(model, extra_ids=100)
    assert plain.vocab_size == 1_000 and plain.sentinel_ids == ()
    assert ours.vocab_size == 1_100
    assert ours.sentinel_ids == tuple(range(1_099, 999, -1))
    text = "a<extra_id_0> whale<extra_id_99></s>"
    ids = ours.encode(text).numpy().tolist()
    assert ids == plain.encode(text).numpy().tolist()
    assert max(ids) < 1_000 and ours.end_id not in ids
    whale = ours.encode("whale").numpy().tolist()
    joined = [ours.sentinel_ids[0], *whale, ours.sentinel_ids[1], ours.end_id]
    assert ours.decode(joined).numpy() == b"whale"
    with pytest.raises(tf.errors.InvalidArgumentError, match="below 1100"):
        ours.decode([1_100])


@pytest.mark.parametrize("kind", [3, 4], ids=["control", "user-defined"])
def test_sentinels_of_the_model_never_come_from_text(kind):
    model = MODELS["English unigram"]()
    sentinels = [(10, "<extra_id_1>", kind), (11, "<extra_id_0>", kind)]
    ours = tokenizers.SentencePieceTokenizer(with_pieces(model, *sentinels))
    assert ours.sentinel_ids == (11, 10)
    assert not {10, 11} & set(ours.encode("a <extra_id_0> b<extra_id_1>").numpy())
    assert ours.decode([11, *ours.encode("whale").numpy(), 10]).numpy() == b"whale"
    with pytest.raises(ValueError, match="has 2 of its own"):
        tokenizers.SentencePieceTokenizer(ours.model, extra_ids=3)
    gap = with_pieces(model, (10, "<extra_id_1>", kind))
    with pytest.raises(ValueError, match="without a gap"):
        tokenizers.SentencePieceTokenizer(gap)


@pytest.mark.parametrize("name", MODELS)
def test_the_rest_of_a_text_goes_on_where_the_first_part_ended(name):
    """Cut between two pieces, a text has the ids of its halves side by side."""
    ours, rng = tokenizers.SentencePieceTokenizer(MODELS[name]()), random.Random(3)
    cuts = 0
    for line in [
        *books()["moby_dick.txt"].split("\n")[50:90],
        "床前明月光，疑是地上霜。",
    ]:
        ids = ours.encode(" ".join(line.split())).numpy()
        if len(ids) < 3 or ours.special_ids["unk"] in ids:
            continue
        at = rng.randrange(1, len(ids))
        rest = ours.decode(ids[at:], continues=True).numpy()
        if tokenizers.repair_utf8([rest])[0] != rest:
            continue  # Cut within a character.
        found = ours.encode(rest, continues=True).numpy()
        np.testing.assert_array_equal(found, ids[at:])
        cuts += 1
    assert cuts > 10
    ids = ours.encode("a whale").numpy()
    first = len(ours.encode("a"))
    np.testing.assert_array_equal(ours.encode(" whale", continues=True), ids[first:])
    assert ours.encode(["", "a"], continues=True).row_lengths()[0] == 0


def test_what_masks_never_comes_from_text():
    model = with_pieces(MODELS["English unigram"](), (10, "[MASK]", 3))
    ours = tokenizers.SentencePieceTokenizer(model)
    assert ours.special_ids["mask"] == 10
    assert 10 not in ours.encode("a [MASK] b[MASK]").numpy()
    assert ours.decode([*ours.encode("white").numpy(), 10]).numpy() == b"white"
    # A user's own symbol is an ordinary piece, as the library has it.
    model = with_pieces(MODELS["English unigram"](), (10, "[MASK]", 4))
    ours = tokenizers.SentencePieceTokenizer(model)
    assert "mask" not in ours.special_ids and 10 in ours.encode("a [MASK]").numpy()


def test_roles_of_special_ids():
    ours = tokenizers.SentencePieceTokenizer(MODELS["BPE with symbols"]())
    assert ours.special_ids == {"unk": 0, "bos": 1, "end": 2, "pad": 3}
    assert ours.decode([1, 0, 2, 3]).numpy() == b"?"
    assert not {1, 2, 3} & set(ours.encode("<s></s><pad><ctl>").numpy())


def test_two_models_side_by_side_in_one_graph_and_in_a_fresh_process(tmp_path):
    module = tf.Module()
    texts = ["the white whale", "日本語です", "", "  a\0b \n"]
    expected = []
    signatures = {}
    for number, name in enumerate(("English unigram", "English BPE")):
        # Not an attribute of the module: the graph alone holds the model.
        ours = tokenizers.SentencePieceTokenizer(MODELS[name]())
        expected.append(ours.encode(texts).to_tensor(-1).numpy().tolist())

        def encode(text, ours=ours):
            ids = ours.encode(text)
            return {"ids": ids.to_tensor(-1), "text": ours.decode(ids)}

        signatures[f"encode_{number}"] = tf.function(
            encode,
            input_signature=[tf.TensorSpec([None], tf.string, "text")],
            autograph=False,
        )
    tf.saved_model.save(module, str(tmp_path / "1"), signatures=signatures)
    assert "SentencepieceOp" in check_graph(tmp_path / "1")
    (tmp_path / "1").rename(tmp_path / "moved")
    code = f"""
import json, sys
import tensorflow as tf
import tensorflow_text
loaded = tf.saved_model.load({str(tmp_path / "moved")!r})
found = [
    loaded.signatures[name](text=tf.constant({texts!r}))["ids"].numpy().tolist()
    for name in ("encode_0", "encode_1", "encode_0")
]
assert "keras_llm" not in sys.modules
print(json.dumps(found))
"""
    (tmp_path / "ask.py").write_text(code)
    done = forked.run(tmp_path / "ask.py", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [*expected, expected[0]]


def test_what_is_no_whole_model_is_refused(tmp_path):
    model = MODELS["English unigram"]()
    for size in (0, 1, 1_000, len(model) // 2, len(model) - 1_000):
        (tmp_path / "cut.model").write_bytes(model[:size])
        with pytest.raises(ValueError, match="cut.model: .*Was the file cut short"):
            tokenizers.SentencePieceTokenizer.from_file(tmp_path / "cut.model")
    with pytest.raises(ValueError, match="cut short"):
        tokenizers.SentencePieceTokenizer(b"no model at all")


def test_models_that_cannot_be_served_are_refused():
    for kind in ("word", "char"):
        with pytest.raises(ValueError, match="unigram or bpe"):
            tokenizers.SentencePieceTokenizer(
                trained(model_type=kind, hard_vocab_limit=False)
            )
    with pytest.raises(ValueError, match="unk_id and eos_id"):
        tokenizers.SentencePieceTokenizer(trained(model_type="bpe", eos_id=-1))
    model = MODELS["English BPE"]()
    with pytest.raises(ValueError, match="there once"):
        tokenizers.SentencePieceTokenizer(with_pieces(model, (20, "s", 1)))
    proto = sentencepiece_model_pb2.ModelProto.FromString(model)
    proto.denormalizer_spec.precompiled_charsmap = b"x"
    with pytest.raises(ValueError, match="no denormaliser"):
        tokenizers.SentencePieceTokenizer(proto.SerializeToString())
    for extra_ids in (-1, 1_001, 1.0, True, None):
        with pytest.raises(ValueError, match="from 0 to 1000"):
            tokenizers.SentencePieceTokenizer(model, extra_ids=extra_ids)
