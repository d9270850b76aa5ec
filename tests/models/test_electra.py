"""ELECTRA: names, what flows back to which weights, drawing, and its config."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_llm import models
from keras_llm.ops import masked_tokens
from tests.conformance.comparing import quick

RNG = np.random.default_rng(73)
B, T, V = 3, 7, 31
ELECTRA = models.ElectraConfig(
    vocab_size=V,
    max_positions=11,
    width=20,
    num_layers=1,
    num_heads=5,
    embedding_width=6,
    generator_fraction=0.4,
    dropout=0.0,
)
IDS = RNG.integers(2, V, (B, T)).astype("int32")
POSITIONS = np.array([[4, 0, 2], [6, 1, -1], [-1, -1, -1]], "int32")
ROWS = {
    "token_ids": IDS,
    "masked_ids": np.asarray(masked_tokens.put(IDS, POSITIONS, 0 * POSITIONS + 1)),
    "masked_positions": POSITIONS,
    "segment_ids": RNG.integers(0, 2, (B, T)).astype("int32"),
    "lengths": np.array([5, 7, 1], "int32"),
}


@pytest.fixture(scope="module")
def model():
    model = models.build(ELECTRA)
    for weight in model.weights:
        scale = 0.7 * weight.path.endswith("scale")
        weight.assign(RNG.normal(scale, 0.3, weight.shape))
    return model


@pytest.fixture(scope="module")
def run(model):
    """Returns the function from a batch to the outputs, out of training."""
    return quick(model)


def generator_loss(outputs):
    return masked_tokens.masked_token_loss(
        outputs["generator_logits"], ROWS["token_ids"], POSITIONS
    )[0]


def discriminator_loss(outputs):
    return masked_tokens.replaced_token_loss(
        outputs["discriminator_logits"],
        ROWS["token_ids"],
        outputs["corrupted_ids"],
        ROWS["lengths"],
    )[0]


def slopes(model, loss):
    """Returns the greatest derivative of a training loss by each weight's path."""
    weights = model.trainable_weights
    if keras.config.backend() == "jax":
        import jax

        def of_weights(values):
            others = [weight.value for weight in model.non_trainable_variables]
            outputs, _ = model.stateless_call(values, others, ROWS, training=True)
            return loss(outputs)

        found = jax.jit(jax.grad(of_weights))([weight.value for weight in weights])
    else:
        import tensorflow as tf

        values = [weight.value for weight in weights]
        with tf.GradientTape() as tape:
            value = loss(model(ROWS, training=True))
        found = tape.gradient(value, values, unconnected_gradients="zero")
    return {
        weight.path: float(np.abs(ops.convert_to_numpy(slope)).max())
        for weight, slope in zip(weights, found, strict=True)
    }


def test_the_discriminators_loss_moves_nothing_of_the_generator(model):
    by_path = slopes(model, discriminator_loss)
    own = {path for path in by_path if path.startswith("generator_")}
    own.add("token_embedding/output_bias")
    assert len(own) == 19
    assert {by_path[path] for path in own} == {0.0}
    assert all(by_path[path] > 0 for path in set(by_path) - own)


def test_the_generators_loss_moves_nothing_of_the_discriminator(model):
    by_path = slopes(model, generator_loss)
    own = ("block_", "embedding_projection", "discriminator_")
    assert {by_path[path] for path in by_path if path.startswith(own)} == {0.0}
    others = [path for path in by_path if not path.startswith(own)]
    assert all(by_path[path] > 0 for path in others)
    assert "token_embedding/embeddings" in others


def test_only_masked_tokens_are_replaced(model, run):
    for outputs in (run(ROWS), model(ROWS, training=True)):
        corrupted = np.asarray(outputs["corrupted_ids"])
        masked = np.asarray(ROWS["masked_ids"]) != IDS
        np.testing.assert_array_equal(corrupted[~masked], IDS[~masked])
        assert 0 <= corrupted.min() and corrupted.max() < V


def test_tokens_are_drawn_in_training_and_the_likeliest_otherwise(model, run):
    outputs = run(ROWS)
    likeliest = np.asarray(outputs["generator_logits"]).argmax(-1)
    expected = masked_tokens.put(IDS, POSITIONS, likeliest.astype("int32"))
    np.testing.assert_array_equal(outputs["corrupted_ids"], expected)
    drawn = [np.asarray(model(ROWS, training=True)["corrupted_ids"]) for _ in range(3)]
    assert len({ids.tobytes() for ids in drawn}) > 1


def test_the_generator_reads_the_masked_text_alone(run):
    """At places it is not asked about, the original must not leak to it."""
    leaked = {**ROWS, "token_ids": (IDS + 7) % V}
    first, second = (run(rows)["generator_logits"] for rows in (ROWS, leaked))
    np.testing.assert_array_equal(first, second)


def test_the_discriminator_is_a_bert_with_any_head(model, run):
    tagger = models.discriminator(model, head="tag", labels=("B", "I", "O"))
    assert tagger.config.architecture == "bert" and tagger.config.width == 20
    outputs = run(ROWS)
    rows = {
        "token_ids": np.asarray(outputs["corrupted_ids"]),
        "segment_ids": ROWS["segment_ids"],
        "lengths": ROWS["lengths"],
    }
    trunk = keras.Model(tagger.input, tagger.get_layer("final_norm").output)
    hidden = quick(trunk)(rows)
    x = model.get_layer("discriminator_transform")(hidden)
    x = model.get_layer("discriminator_head")(ops.gelu(x, approximate=False))
    np.testing.assert_allclose(
        x[..., 0], outputs["discriminator_logits"], rtol=1e-4, atol=1e-5
    )
    assert models.discriminator(model).config.head == "embed"
    with pytest.raises(ValueError, match="Did you mean `head`"):
        models.discriminator(model, heads="tag")


def test_both_read_the_same_embeddings(model):
    paths = [weight.path for weight in model.weights]
    assert len(paths) == len(set(paths))
    tables = [path for path in paths if path.endswith("embeddings")]
    assert tables == [
        f"{name}_embedding/embeddings" for name in ("token", "position", "segment")
    ]
    shapes = {weight.path: tuple(weight.shape) for weight in model.weights}
    assert shapes["generator_embedding_projection/kernel"] == (6, 8)
    assert shapes["embedding_projection/kernel"] == (6, 20)
    assert shapes["generator_head_transform/kernel"] == (8, 6)


def test_published_sizes_of_the_generator():
    small = models.ElectraConfig().generator
    assert (small.width, small.num_heads, small.inner_dim) == (64, 1, 256)
    base = models.ElectraConfig(
        width=768, num_heads=12, embedding_width=768, generator_fraction=1 / 3
    )
    sizes = base.generator
    assert (sizes.width, sizes.num_heads, sizes.inner_dim) == (256, 4, 1_024)
    assert (sizes.num_layers, sizes.table_width) == (12, 768)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"generator_fraction": 0.0}, "generator_fraction=0.0"),
        ({"generator_fraction": 1.5}, "generator_fraction=1.5"),
        ({"generator_fraction": float("nan")}, "generator_fraction=nan"),
        ({"generator_fraction": 0.7}, "generator_fraction=0.7.*14.*4 heads"),
        ({"num_heads": 3}, "num_heads=3"),
        ({"embedding_width": -1}, "embedding_width"),
        ({"dropout": 1.0}, "dropout"),
        ({"num_segments": 0}, "num_segments"),
        ({"head": "tag"}, "has no field `head`"),
    ],
)
def test_bad_configs_are_named(changes, message):
    with pytest.raises(ValueError, match=message):
        ELECTRA.replace(**changes)


def test_an_open_vocabulary_is_refused():
    with pytest.raises(ValueError, match="tokenizer"):
        models.build(ELECTRA.replace(vocab_size=0))
