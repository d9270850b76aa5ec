"""BERT: names, sizes, heads, transfer, and the checks of its config."""

import numpy as np
import pytest

from keras_llm import models
from keras_llm.ops import masked_tokens
from tests.conformance.comparing import quick

RNG = np.random.default_rng(71)
B, T, V, D = 3, 7, 31, 20
BERT = models.BertConfig(
    vocab_size=V, max_positions=11, width=D, num_layers=1, num_heads=5, dropout=0.0
)
CLASSIFY = BERT.replace(head="classify", labels=("no", "maybe", "yes"))
ROWS = {
    "token_ids": RNG.integers(0, V, (B, T)).astype("int32"),
    "segment_ids": RNG.integers(0, 2, (B, T)).astype("int32"),
    "lengths": np.array([5, 7, 1], "int32"),
}
REAL = np.arange(T)[None] < ROWS["lengths"][:, None]


def built(config):
    """Returns a model whose weights are large enough to tell apart."""
    model = models.build(config)
    for weight in model.weights:
        scale = 0.7 * weight.path.endswith("scale")
        weight.assign(RNG.normal(scale, 0.3, weight.shape))
    return model


@pytest.fixture(scope="module")
def masked_lm():
    return built(BERT.replace(embedding_width=6))


@pytest.fixture(scope="module")
def logits(masked_lm):
    return np.asarray(quick(masked_lm)(ROWS))


@pytest.fixture(scope="module")
def hidden(masked_lm):
    """Returns the trunk's last states."""
    return np.asarray(quick(models.split_head(masked_lm)[0])(ROWS))


def weight_names(*names):
    return [f"{name}/{part}" for name in names for part in ("kernel", "bias")]


def test_weight_names_are_those_of_the_docs(masked_lm):
    """Model folders hold these names: changing one breaks every saved model."""
    norms = [
        f"{name}/{part}"
        for name in ("embedding_norm", "head_norm")
        for part in ("scale", "bias")
    ]
    block = weight_names(
        "attention/query_key_value",
        "attention/output",
        "feed_forward/inner",
        "feed_forward/output",
    )
    for name in ("attention_norm", "feed_forward_norm"):
        block += [f"{name}/scale", f"{name}/bias"]
    expected = {
        "token_embedding/embeddings",
        "token_embedding/output_bias",
        "position_embedding/embeddings",
        "segment_embedding/embeddings",
        *weight_names("embedding_projection", "head_transform"),
        *norms,
        *(f"block_0/{name}" for name in block),
    }
    assert {weight.path for weight in masked_lm.weights} == expected


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        (
            {"head": "classify", "labels": ("a", "b"), "pooling": "attention"},
            ["pooling/query", *weight_names("pooler", "head")],
        ),
        ({"head": "tag", "labels": ("a", "b")}, weight_names("head")),
        ({"head": "answer"}, weight_names("head")),
        ({"head": "embed", "pooling": "max"}, []),
    ],
)
def test_a_trained_trunk_goes_under_another_head(masked_lm, changes, names):
    target = models.build(masked_lm.config.replace(**changes))
    assert models.transfer_weights(masked_lm, target) == names
    source = {weight.path: np.asarray(weight) for weight in masked_lm.weights}
    for weight in target.weights:
        if weight.path not in names:
            np.testing.assert_array_equal(weight, source[weight.path])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_layers": 2}, "block_1/.*source has none"),
        ({"vocab_size": 37}, "token_embedding.*37.*of shape \\(31, 6\\)"),
        ({"embedding_width": None}, "token_embedding/embeddings"),
    ],
)
def test_a_trunk_that_does_not_fit_is_refused_whole(masked_lm, changes, message):
    target = models.build(masked_lm.config.replace(**changes, head="embed"))
    before = target.get_weights()
    with pytest.raises(ValueError, match=message):
        models.transfer_weights(masked_lm, target)
    for now, then in zip(target.get_weights(), before, strict=True):
        np.testing.assert_array_equal(now, then)


def test_split_head_projects_masked_tokens_alone(masked_lm, logits, hidden):
    _, project = models.split_head(masked_lm)
    positions = np.array([[4, 0], [6, -1], [0, -1]])
    found = np.asarray(project(masked_tokens.take(hidden, positions)))
    assert found.shape == (B, 2, V)
    for b, m in zip(*np.nonzero(positions >= 0), strict=True):
        np.testing.assert_allclose(
            found[b, m], logits[b, positions[b, m]], rtol=1e-4, atol=1e-5
        )
    flat = project(hidden[REAL])
    np.testing.assert_allclose(flat, logits[REAL], rtol=1e-4, atol=1e-5)


def test_only_a_masked_lm_head_is_split():
    with pytest.raises(ValueError, match="masked-LM.*head='embed'"):
        models.split_head(models.build(BERT.replace(head="embed")))


def test_it_writes_no_text(masked_lm):
    with pytest.raises(ValueError, match="next token.*'bert'.*lstm_lm"):
        models.decoder(masked_lm)


def test_bert_base_has_berts_size():
    config = models.BertConfig(vocab_size=30_522)
    width, inner = config.width, config.inner_dim
    block = 4 * width**2 + 2 * width * inner + 9 * width + inner
    tables = (30_522 + 512 + 2) * width + 2 * width
    assert tables + 12 * block + width**2 + width == 109_482_240  # With its pooler.
    small = models.build(CLASSIFY)
    block = 4 * D**2 + 2 * D * 4 * D + 9 * D + 4 * D
    expected = (V + 11 + 2) * D + 2 * D + block + D**2 + D + 3 * D + 3
    assert models.count_parameters(small) == expected


@pytest.mark.parametrize(
    "config", [CLASSIFY, BERT.replace(head="answer", embedding_width=6)]
)
def test_flops_are_six_per_matrix_weight_plus_attention(config):
    model = models.build(config)
    by_row = ("pooler", "head") if config.head == "classify" else ()
    matrices = [
        int(np.prod(weight.shape))
        for weight in model.trainable_weights
        if weight.path.endswith("kernel") and not weight.path.startswith(by_row)
    ]
    attention = 2 * 2 * T * D * config.num_layers  # q k and w v, per token.
    expected = 6 * sum(matrices) + 3 * attention
    assert models.flops_per_token(config, context=T) == expected


def test_the_order_of_tokens_and_their_segments_matter(masked_lm, logits):
    run = quick(masked_lm)
    other = np.asarray(run({**ROWS, "segment_ids": 1 - ROWS["segment_ids"]}))
    assert np.abs(other - logits)[REAL].max() > 0.01
    swapped = np.asarray(
        run({name: x[:, ::-1] if x.ndim > 1 else x for name, x in ROWS.items()})
    )
    assert np.abs(swapped[1, ::-1] - logits[1]).max() > 0.01


@pytest.mark.parametrize(
    ("pooling", "normalize"),
    [("max", False), ("attention", True)],
)
def test_an_embedding_is_the_pooled_trunk(masked_lm, hidden, pooling, normalize):
    model = models.build(
        masked_lm.config.replace(head="embed", pooling=pooling, normalize=normalize)
    )
    models.transfer_weights(masked_lm, model)
    reduce = np.max if pooling == "max" else np.mean  # Attention starts as the mean.
    rows = zip(np.float64(hidden), REAL, strict=True)
    expected = np.stack([reduce(x[real], axis=0) for x, real in rows])
    if normalize:
        expected /= np.linalg.norm(expected, axis=-1, keepdims=True)
    np.testing.assert_allclose(quick(model)(ROWS), expected, atol=1e-5)


@pytest.mark.parametrize("dtype", [None, "mixed_float16"])
def test_an_empty_row_embeds_as_zeros(dtype):
    model = models.build(BERT.replace(head="embed", normalize=True), dtype)
    rows = {**ROWS, "lengths": np.array([5, 0, 1], "int32")}
    vectors = np.asarray(quick(model)(rows))
    np.testing.assert_array_equal(vectors[1], np.zeros(D))
    np.testing.assert_allclose(np.linalg.norm(vectors[::2], axis=-1), 1, rtol=1e-3)


def test_no_answer_starts_or_ends_at_padding():
    logits = np.asarray(quick(built(BERT.replace(head="answer")))(ROWS))
    assert np.isfinite(logits).all()
    assert (logits[~REAL] == -1e9).all() and (logits[REAL] > -1e3).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_heads": 3}, "num_heads=3"),
        ({"num_heads": 0}, "num_heads"),
        ({"width": -20}, "width=-20"),
        ({"num_layers": 0}, "num_layers"),
        ({"max_positions": 0}, "max_positions"),
        ({"num_segments": 0}, "num_segments"),
        ({"embedding_width": 0}, "embedding_width"),
        ({"feed_forward_width": -1}, "feed_forward_width"),
        ({"vocab_size": -1}, "vocab_size"),
        ({"dropout": float("nan")}, "dropout"),
        ({"epsilon": -1.0}, "epsilon"),
        ({"head": "translate"}, "'masked_lm', 'classify'.*translate"),
        ({"pooling": "last"}, "'first', 'mean'.*last"),
        ({"labels": ("a", "b")}, "`labels`.*'classify' and 'tag'.*masked_lm"),
        ({"head": "tag", "labels": ("a", "b", "a")}, "differ"),
        ({"head": "tag", "pooling": "mean"}, "`pooling`.*'classify' and 'embed'"),
        ({"normalize": True}, "`normalize`.*'embed'"),
        ({"hed": "tag"}, "Did you mean `head`"),
    ],
)
def test_bad_configs_are_named(changes, message):
    with pytest.raises(ValueError, match=message):
        BERT.replace(**changes)


@pytest.mark.parametrize("head", ["classify", "tag"])
@pytest.mark.parametrize("labels", [(), ("only",)])
def test_missing_labels_are_refused_when_building(head, labels):
    with pytest.raises(ValueError, match=f"{head}.*two labels.*labels="):
        models.build(BERT.replace(head=head, labels=labels))


def test_an_open_vocabulary_is_refused():
    with pytest.raises(ValueError, match="tokenizer"):
        models.build(BERT.replace(vocab_size=0))


def test_a_head_over_other_labels_is_not_copied():
    """As many labels, but others: row i of the old head says nothing of label i."""
    config = models.BertConfig(
        vocab_size=13, width=6, num_layers=1, num_heads=2, head="tag", labels=("B", "O")
    )
    source = models.build(config)
    for labels, fresh in (
        (("B", "O"), []),
        (("NAME", "O"), ["head/kernel", "head/bias"]),
    ):
        target = models.build(config.replace(labels=labels))
        assert models.transfer_weights(source, target) == fresh
