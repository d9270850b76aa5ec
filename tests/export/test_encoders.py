"""Exports of encoders: each head's signatures, proven and compared by hand."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_llm import export, models, tokenizers

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
LETTERS = "abcdefghijklmnopqrstuvwxyz"
WORDPIECE = tokenizers.WordPieceTokenizer(
    [*SPECIAL, *LETTERS, *(f"##{x}" for x in LETTERS), "whale", "the", ".", "é", "一"],
    strip_accents=False,
)
LABELS = ("B", "I", "O")
TEXTS = ["The white whale.", "", "Ab  é\tcd 一", "whales"]


def tiny(head, **changes):
    """Returns a BERT under a head, of weights that make a difference."""
    keras.utils.set_random_seed(5)
    labels = LABELS if head in ("classify", "tag") else ()
    config = models.BertConfig(
        vocab_size=70, width=12, num_layers=1, num_heads=3, max_positions=41,
        head=head, labels=labels, **changes,
    )  # fmt: skip
    model = models.build(config)
    for i, weight in enumerate(model.trainable_weights):
        weight.assign(weight + 0.3 * keras.random.normal(weight.shape, seed=i))
    return model


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Returns the function from a head to its model, its loaded export and folder."""
    made = {}

    def get(head):
        if head not in made:
            model = tiny(head)
            out = tmp_path_factory.mktemp(head) / "model" / "1"
            export.export(model, WORDPIECE, out)
            made[head] = model, tf.saved_model.load(out).signatures, out
        return made[head]

    return get


def ask(signatures, name, **inputs):
    answer = signatures[name](**{n: tf.constant(x) for n, x in inputs.items()})
    return {key: value.numpy() for key, value in answer.items()}


def output(model, first, second=()):
    """Returns what the model gives for one row alone, framed here by hand."""
    ids = [2, *first, 3, *([*second, 3] if len(second) else [])]
    segments = [0] * (len(first) + 2) + [1] * (len(ids) - len(first) - 2)
    rows = {"token_ids": [ids], "segment_ids": [segments], "lengths": [len(ids)]}
    return np.asarray(model({n: np.array(x, "int32") for n, x in rows.items()}))[0]


def softmax(x):
    powers = np.exp(np.float64(x) - np.max(x, -1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def ids_of(text):
    return WORDPIECE.encode(text).numpy().tolist()


HEADS = {
    "answer": "answer",
    "classify": "classify",
    "embed": "embed",
    "masked_lm": "fill_mask",
    "tag": "tag",
}


@pytest.mark.parametrize("head", HEADS)
def test_every_head_is_exported_and_proven(written, head):
    _, signatures, out = written(head)
    assert {"serving_default", "tokenize", HEADS[head]} <= set(signatures)
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["verified_answers"] >= 8
    card = (out / "README.md").read_text()
    assert "41 tokens" in card and "http://127.0.0.1:8501/v1/models/model" in card
    assert "Ishmael" not in card  # For any language: TEXT stands there.
    specs = signatures[HEADS[head]].structured_input_signature[1]
    nothing = {name: tf.constant([], tf.string) for name in specs}
    for value in signatures[HEADS[head]](**nothing).values():
        assert value.shape[0] == 0


def test_classify_is_the_softmax_of_a_row_alone(written):
    model, signatures, _ = written("classify")
    found = ask(signatures, "classify", text=TEXTS)
    for i, text in enumerate(TEXTS):
        expected = softmax(output(model, ids_of(text)))
        np.testing.assert_allclose(found["probabilities"][i], expected, atol=1e-5)
        assert found["label"][i].decode() == LABELS[expected.argmax()]
        assert found["num_tokens"][i] == len(ids_of(text)) + 2
    pairs = ask(signatures, "classify_pair", text=TEXTS, text_pair=["a b"] * 4)
    for i, text in enumerate(TEXTS):
        expected = softmax(output(model, ids_of(text), ids_of("a b")))
        np.testing.assert_allclose(pairs["probabilities"][i], expected, atol=1e-5)


def test_classify_cuts_what_is_too_long_and_says_so(written):
    model, signatures, _ = written("classify")
    found = ask(signatures, "classify", text=["a " * 45, "a"])
    assert found["left_out"].tolist() == [6, 0]
    assert found["num_tokens"].tolist() == [41, 3]
    expected = softmax(output(model, ids_of("a " * 39)))
    np.testing.assert_allclose(found["probabilities"][0], expected, atol=1e-5)


@pytest.mark.parametrize(
    ("head", "inputs", "named"),
    [
        ("embed", {"text": ["a " * 45]}, "`text`"),
        ("tag", {"text": ["a " * 45]}, "`text`"),
        ("answer", {"question": ["a"], "context": ["a " * 45]}, "together"),
        ("masked_lm", {"before": ["a"], "after": ["a " * 45]}, "together"),
    ],
)
def test_other_heads_refuse_what_is_too_long(written, head, inputs, named):
    _, signatures, _ = written(head)
    with pytest.raises(tf.errors.InvalidArgumentError, match=f"{named}.* 41 tokens"):
        ask(signatures, HEADS[head], **inputs)


def test_what_is_too_long_is_named_by_its_number(written):
    _, signatures, _ = written("embed")
    texts = ["a"] * 10 + ["a " * 45, "a"]
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"\[10\].*\[47\]"):
        ask(signatures, "embed", text=texts)


@pytest.mark.parametrize(
    ("head", "name", "inputs"),
    [
        ("classify", "classify_pair", {"text": ["a", "b"], "text_pair": ["c"]}),
        ("answer", "answer", {"question": ["a", "b"], "context": ["c"]}),
        ("masked_lm", "fill_mask", {"before": ["a", "b"], "after": ["c"]}),
    ],
)
def test_unlike_numbers_of_rows_are_refused(written, head, name, inputs):
    _, signatures, _ = written(head)
    with pytest.raises(tf.errors.InvalidArgumentError, match="as many rows as"):
        ask(signatures, name, **inputs)


@pytest.mark.parametrize(
    ("head", "name", "inputs"),
    [
        ("classify", "classify", {"text": "a"}),
        ("classify", "classify_pair", {"text": ["a"], "text_pair": [["b"]]}),
        ("masked_lm", "fill_mask", {"before": ["a"], "after": "b"}),
        ("tag", "tokenize", {"text": "a"}),
    ],
)
def test_what_is_no_column_is_refused_by_its_name(written, head, name, inputs):
    _, signatures, _ = written(head)
    wrong = next(n for n, v in inputs.items() if np.ndim(v) != 1)
    rule = f"`{wrong}` must have one value for each row. Received the shape"
    with pytest.raises(tf.errors.InvalidArgumentError, match=rule):
        ask(signatures, name, **inputs)


def test_embed_gives_each_text_its_own_vector(written):
    model, signatures, _ = written("embed")
    found = ask(signatures, "embed", text=TEXTS)["embedding"]
    for i, text in enumerate(TEXTS):
        np.testing.assert_allclose(found[i], output(model, ids_of(text)), atol=1e-5)


def test_the_answer_is_the_best_span_of_the_context(written):
    model, signatures, _ = written("answer")
    contexts = [*TEXTS, "whale 一一 " * 3, "x" * 12, "\xff\u2028é the"]
    found = ask(
        signatures, "answer", question=["the whale"] * len(contexts), context=contexts
    )
    for i, context in enumerate(contexts):
        asked, ids = ids_of("the whale"), ids_of(context)
        start, end = int(found["start"][i]), int(found["end"][i])
        whole = context.encode()
        assert found["text"][i] == whole[start:end]
        if not ids:
            assert (start, end, found["score"][i]) == (0, 0, 0.0)
            continue
        logits = np.float64(output(model, asked, ids))
        first = len(asked) + 2
        score, s, e = max(
            (logits[first + s, 0] + logits[first + e, 1], s, e)
            for s in range(len(ids))
            for e in range(s, min(len(ids), s + 30))
        )
        _, starts, ends = WORDPIECE.encode_with_offsets(context)
        assert (start, end) == (int(starts[s]), int(ends[e]))
        assert found["score"][i] == pytest.approx(score - logits[0].sum(), abs=1e-4)
    assert 0 <= found["start"].min() and (found["start"] <= found["end"]).all()


def test_tag_labels_the_words_of_a_text(written):
    model, signatures, _ = written("tag")
    found = ask(signatures, "tag", text=TEXTS)
    rows = ["The white whale .", "", "Ab é cd 一", "whales"]
    words = [row.encode().split() for row in rows]
    assert found["num_words"].tolist() == [len(row) for row in words]
    for i, text in enumerate(TEXTS):
        ids = ids_of(text)
        tokens = [WORDPIECE.tokens[k] for k in ids]
        opens = [j for j, token in enumerate(tokens) if not token.startswith("##")]
        logits = output(model, ids)[1:]
        for j, (word, place) in enumerate(zip(words[i], opens, strict=True)):
            start, end = found["starts"][i, j], found["ends"][i, j]
            assert text.encode()[start:end] == word
            p = softmax(logits[place])
            assert found["labels"][i, j].decode() == LABELS[p.argmax()]
            assert found["probabilities"][i, j] == pytest.approx(p.max(), abs=1e-5)
        assert (found["labels"][i, len(words[i]) :] == b"").all()
        assert (found["starts"][i, len(words[i]) :] == -1).all()


def test_fill_mask_ranks_the_tokens_between(written):
    model, signatures, _ = written("masked_lm")
    found = ask(
        signatures,
        "fill_mask",
        before=["the", "", "[MASK]"],
        after=["whale .", "", "a"],
    )
    for i, (before, after) in enumerate(
        (("the", "whale ."), ("", ""), ("[MASK]", "a"))
    ):
        left = ids_of(before)
        assert 4 not in left
        p = softmax(output(model, [*left, 4, *ids_of(after)])[len(left) + 1, :62])
        p[:5] = 0.0
        best = np.argsort(-p)[:10]
        assert found["token_ids"][i].tolist() == best.tolist()
        np.testing.assert_allclose(found["probabilities"][i], p[best], atol=1e-5)
        spoken = [WORDPIECE.tokens[k].removeprefix("##") for k in best]
        assert [token.decode() for token in found["tokens"][i]] == spoken


def test_fill_mask_reads_pieces_as_they_stand_in_running_text(tmp_path):
    lines = ["床前明月光", "疑是地上霜", "the white whale", "of the whales"] * 9
    pieces = tokenizers.train_sentencepiece(lines, 60, mask=True, extra_ids=3)
    config = models.BertConfig(
        vocab_size=pieces.vocab_size, width=12, num_layers=1, num_heads=3,
        max_positions=41,
    )  # fmt: skip
    keras.utils.set_random_seed(5)
    model = models.build(config)
    export.export(model, pieces, tmp_path / "1")
    signatures = tf.saved_model.load(tmp_path / "1").signatures
    befores, afters = ["床前明", "the", "the"], ["光", " whale", "s"]
    found = ask(signatures, "fill_mask", before=befores, after=afters)
    for i, (before, after) in enumerate(zip(befores, afters, strict=True)):
        left = pieces.encode(before).numpy().tolist()
        # What a row of running text holds behind the masked piece.
        space = after[0] == " "
        whole = pieces.encode(f"x{after}").numpy().tolist()
        right = pieces.encode(after, continues=True).numpy().tolist()
        assert pieces.token_bytes[right[0]].startswith(b" ") == space
        assert not space or whole[-len(right) :] == right
        end = pieces.end_id
        ids = [end, *left, 3, *right, end]
        rows = {
            "token_ids": [ids],
            "segment_ids": [[0] * len(ids)],
            "lengths": [len(ids)],
        }
        logits = np.asarray(model({n: np.array(x, "int32") for n, x in rows.items()}))
        p = softmax(logits[0, len(left) + 1])
        p[[0, 1, 2, 3, *pieces.sentinel_ids]] = 0.0
        p[pieces.token_bytes.tolist().index(b" ")] = 0.0  # It would be no word.
        best = np.argsort(-p)[:10]
        np.testing.assert_allclose(found["probabilities"][i], p[best], atol=1e-5)
        assert not set(found["token_ids"][i]) & {0, 1, 2, 3, *pieces.sentinel_ids}


def test_fill_mask_offers_no_piece_that_is_no_text(tmp_path):
    """SentencePiece's mark of a word's beginning decodes to nothing."""
    tokenizer = tokenizers.train_sentencepiece(["a bc d " * 9], 12, mask=True)
    pieces = tokenizer.decode(np.arange(tokenizer.vocab_size)[:, None]).numpy()
    (empty,) = set(np.flatnonzero(pieces == b"")) - {*tokenizer.special_ids.values()}
    config = models.BertConfig(
        vocab_size=tokenizer.vocab_size, width=6, num_layers=1, num_heads=2
    )
    model = models.build(config)
    # As likely as can be, it is no candidate still.
    bias = next(w for w in model.weights if w.path.endswith("output_bias"))
    bias.assign(np.eye(1, tokenizer.vocab_size, empty)[0] * 50)
    export.export(model, tokenizer, tmp_path / "1", verify=False)
    served = tf.saved_model.load(tmp_path / "1").signatures["fill_mask"]
    found = served(before=tf.constant(["a", ""]), after=tf.constant(["d", ""]))
    assert empty not in found["token_ids"].numpy()
    assert b"" not in found["tokens"].numpy()


def test_an_electras_discriminator_is_exported_like_a_bert(tmp_path):
    config = models.ElectraConfig(
        vocab_size=70, width=12, num_layers=1, num_heads=3, max_positions=41,
        embedding_width=8,
    )  # fmt: skip
    keras.utils.set_random_seed(5)
    pair = models.build(config)
    for i, weight in enumerate(pair.trainable_weights):
        weight.assign(weight + 0.3 * keras.random.normal(weight.shape, seed=i))
    model = models.discriminator(pair, pooling="mean")
    export.export(model, WORDPIECE, tmp_path / "1")
    signatures = tf.saved_model.load(tmp_path / "1").signatures
    found = ask(signatures, "embed", text=TEXTS)
    for i, text in enumerate(TEXTS):
        wanted = output(model, ids_of(text))
        np.testing.assert_allclose(found["embedding"][i], wanted, atol=1e-5)


def test_an_lstm_reads_the_texts_alone(tmp_path):
    keras.utils.set_random_seed(3)
    config = models.LSTMClassifierConfig(
        vocab_size=257, embedding_width=6, units=5, labels=LABELS
    )
    model = models.build(config)
    out = export.export(model, tokenizers.ByteTokenizer(), tmp_path / "lstm" / "1")
    found = ask(tf.saved_model.load(out).signatures, "classify", text=["abc", "", "z"])
    for i, text in enumerate((b"abc", b"", b"z")):
        ids = np.array([[*text, 0]], "int32")
        logits = model({"token_ids": ids, "lengths": np.array([len(text)])})
        expected = softmax(np.asarray(logits)[0])
        np.testing.assert_allclose(found["probabilities"][i], expected, atol=1e-5)


def test_what_cannot_be_exported_is_refused(tmp_path):
    plain = tokenizers.ByteTokenizer()
    config = models.BertConfig(
        vocab_size=257, width=4, num_layers=1, num_heads=1, max_positions=9
    )
    for head in ("answer", "tag"):
        labels = LABELS if head == "tag" else ()
        model = models.build(config.replace(head=head, labels=labels))
        with pytest.raises(ValueError, match="tell where each token is.*'byte'"):
            export.export(model, plain, tmp_path / "1")
    with pytest.raises(ValueError, match="the role 'mask'"):
        export.export(models.build(config), plain, tmp_path / "1")
    with pytest.raises(ValueError, match="jit=False"):
        export.export(tiny("embed"), WORDPIECE, tmp_path / "1", jit=True)
    narrow = models.build(config.replace(vocab_size=9, head="embed"))
    with pytest.raises(ValueError, match="for every id of its tokenizer"):
        export.export(narrow, WORDPIECE, tmp_path / "1")
