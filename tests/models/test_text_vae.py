"""The variational autoencoder of text: plain NumPy, and itself run in other ways."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_llm import models
from keras_llm.models import TextVAEConfig
from keras_llm.ops import elbo, latent_estimates, losses
from tests.conformance.comparing import graph, quick

B, S, T, V, Z, D = 3, 7, 5, 19, 2, 6
SIZES = {"vocab_size": V, "latent_dim": Z, "width": D, "num_heads": 3, "num_layers": 2}
LL = TextVAEConfig(**SIZES)
SMALL = LL.replace(num_layers=1)
CONFIGS = {
    "lstm to lstm": LL,
    "lstm to transformer": SMALL.replace(
        decoder="transformer", max_positions=11, posterior="batch_norm", tied=True
    ),
    "transformer to lstm": SMALL.replace(
        encoder="transformer", max_positions=11, posterior="batch_norm", tied=True
    ),
    "transformer to transformer": SMALL.replace(
        encoder="transformer", decoder="transformer", max_positions=11
    ),
}
RNG = np.random.default_rng(0)
LENGTHS = np.array([4, 7, 1], "int32")
SOURCE = RNG.integers(1, V, (B, S)).astype("int32")
INPUTS = {
    "source_ids": SOURCE,
    "source_lengths": LENGTHS,
    "token_ids": np.pad(SOURCE[:, : T - 1], ((0, 0), (1, 0))),
}


def make(config, dtype=None, seed=1):
    model = models.build(config, dtype)
    rng = np.random.default_rng(seed)
    for weight in model.weights:
        value = rng.normal(0, 0.4, weight.shape)
        # Variances and scales lie around 1.
        weight.assign(value**2 + 0.5 if "variance" in weight.path else value)
    return model


@pytest.fixture(scope="module", params=CONFIGS)
def model(request):
    return make(CONFIGS[request.param])


@pytest.fixture(scope="module")
def run(model):
    return quick(model)


@pytest.fixture(scope="module")
def outputs(run):
    return {name: np.asarray(value) for name, value in run(INPUTS).items()}


def part(rows, **changes):
    inputs = {**INPUTS, **changes}
    return {name: value[rows] for name, value in inputs.items()}


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def lstm(w, name, xs, h, c):
    """Returns every h, one step after another."""
    kernel, recurrent, bias = (
        w[f"{name}/{part}"] for part in ("kernel", "recurrent_kernel", "bias")
    )
    states = []
    for x in xs:
        i, f, g, o = np.split(x @ kernel + h @ recurrent + bias, 4)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        states.append(h)
    return states


def test_lstm_to_lstm_is_the_plain_computation():
    model = make(LL)
    w = {weight.path: np.float64(np.asarray(weight)) for weight in model.weights}
    found = quick(model)(INPUTS)
    zeros, table = np.zeros(D), w["token_embedding/embeddings"]
    for b in range(B):
        xs = [table[i] for i in SOURCE[b, : LENGTHS[b]]]
        for layer in range(2):
            name = f"encoder_block_{layer}"
            ahead = lstm(w, f"{name}/forward", xs, zeros, zeros)
            back = lstm(w, f"{name}/backward", xs[::-1], zeros, zeros)
            xs = [np.concatenate(pair) for pair in zip(ahead, back[::-1], strict=True)]
        features = np.concatenate([ahead[-1], back[-1]])
        z = features @ w["posterior/mean/kernel"] + w["posterior/mean/bias"]
        raw = features @ w["posterior/log_variance/kernel"]
        spread = 10 * np.tanh((raw + w["posterior/log_variance/bias"]) / 10)
        xs = [np.concatenate([table[i], z]) for i in INPUTS["token_ids"][b]]
        for layer in range(2):
            c = z @ w[f"latent_state_{layer}/kernel"] + w[f"latent_state_{layer}/bias"]
            xs = lstm(w, f"block_{layer}/lstm", xs, np.tanh(c), c)
        expected = {
            "logits": np.array(xs) @ w["head/kernel"],
            "kl": (z**2 + np.exp(spread) - spread - 1) / 2,
            "mean": z,
            "log_variance": spread,
            "z": z,
        }
        for name, value in expected.items():
            np.testing.assert_allclose(found[name][b], value, atol=1e-5, err_msg=name)


def test_the_text_reaches_its_latent_and_the_latent_the_logits(run, outputs):
    assert (outputs["kl"] >= 0).all()
    assert np.ptp(outputs["mean"], axis=0).min() > 0.01
    other = run(part([0, 1, 2], source_ids=SOURCE[::-1].copy()))
    assert np.abs(np.asarray(other["logits"]) - outputs["logits"]).max() > 1e-3


def test_padding_changes_nothing(run, outputs):
    longer = np.pad(SOURCE, ((0, 0), (0, 2)))
    is_padding = np.arange(S + 2) >= LENGTHS[:, None]
    source = np.where(is_padding, RNG.integers(0, V, longer.shape), longer)
    target = np.concatenate([INPUTS["token_ids"], source[:, :3]], axis=1)
    found = run(part([0, 1, 2], source_ids=source.astype("int32"), token_ids=target))
    for name, value in outputs.items():
        same = found[name][:, :T] if name == "logits" else found[name]
        np.testing.assert_allclose(same, value, rtol=1e-4, atol=1e-5, err_msg=name)


def decode(decoder, start):
    """Returns the logits [B, T, V] of decoding step by step, and the last z."""
    logits, state = start
    steps = [logits]
    for t in range(1, T):
        logits, state = decoder.step(INPUTS["token_ids"][:, t], state)
        steps.append(logits)
        assert {value.shape[0] for value in state.values()} == {B}
    return ops.stack(steps, axis=1), state["z"]


@pytest.mark.parametrize("trace", [quick, graph], ids=["eager", "graph"])
def test_cached_decoding_is_the_full_forward_pass(model, outputs, trace):
    decoder = models.decoder(model, jit=keras.config.backend() == "jax")
    assert not decoder.prompt_in_cache
    logits, z = trace(
        lambda ids, lengths: decode(decoder, decoder.prefill(ids, lengths, T))
    )(SOURCE, LENGTHS)
    np.testing.assert_allclose(logits, outputs["logits"], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(z, outputs["z"], atol=1e-5)


def test_latents_can_be_given(model, outputs):
    decoder = models.decoder(model, jit=keras.config.backend() == "jax")
    mean, log_variance = quick(decoder.encode)(SOURCE, LENGTHS)
    np.testing.assert_allclose(mean, outputs["mean"], atol=1e-5)
    np.testing.assert_allclose(log_variance, outputs["log_variance"], atol=1e-5)
    read = quick(decoder.logits)
    reread = read(INPUTS["token_ids"], mean)
    np.testing.assert_allclose(reread, outputs["logits"], rtol=1e-4, atol=1e-5)
    z = np.random.default_rng(3).normal(size=(B, Z)).astype("float32")
    drawn = read(INPUTS["token_ids"], z)
    assert np.abs(np.asarray(drawn) - outputs["logits"]).max() > 0.01
    written, _ = quick(lambda z: decode(decoder, decoder.prefill_latent(z, T)))(z)
    np.testing.assert_allclose(written, drawn, rtol=1e-4, atol=1e-5)
    # One row of as many tokens as the latent has numbers.
    alone = decoder.logits(INPUTS["token_ids"][:1, :Z], z[:1])
    np.testing.assert_allclose(alone, drawn[:1, :Z], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["lstm to lstm", "transformer to transformer"])
def test_mixed_precision_decodes_from_a_wide_latent(name):
    mixed = make(CONFIGS[name], "mixed_bfloat16")
    decoder = models.decoder(mixed)
    logits, state = quick(lambda ids, n: decoder.prefill(ids, n, T))(SOURCE, LENGTHS)
    found = quick(mixed)(INPUTS)["logits"][:, 0]
    np.testing.assert_allclose(logits, found, atol=0.03)
    assert keras.backend.standardize_dtype(state["z"].dtype) == "float32"


def weight_gradients(model):
    """Returns the gradients of the objective for every trainable weight."""
    targets = SOURCE[:, :T]

    def loss(outputs):
        rows = ops.sum(losses.token_losses(outputs["logits"], targets), axis=1)
        return elbo.batch_loss(rows, outputs["kl"])

    values = [variable.value for variable in model.trainable_variables]
    if keras.config.backend() == "jax":
        import jax

        def of_values(values, rest):
            outputs, _ = model.stateless_call(values, rest, INPUTS, training=True)
            return loss(outputs)

        rest = [variable.value for variable in model.non_trainable_variables]
        return jax.jit(jax.grad(of_values))(values, rest)
    import tensorflow as tf

    with tf.GradientTape() as tape:
        value = loss(model(INPUTS, training=True))
    return [tf.convert_to_tensor(g) for g in tape.gradient(value, values)]


# Between them, these two have all four networks and both posteriors.
@pytest.mark.parametrize("name", ["lstm to transformer", "transformer to lstm"])
def test_gradients_reach_every_weight(name):
    config = CONFIGS[name]
    if config.encoder == "transformer":
        config = config.replace(posterior="gaussian", tied=False)
    model = make(config)
    found = weight_gradients(model)
    for weight, gradient in zip(model.trainable_variables, found, strict=True):
        values = np.asarray(gradient)
        assert np.isfinite(values).all() and values.any(), weight.path


def in_training(model):
    """Returns the model as a function that trains: it draws, and moves its state."""
    if keras.config.backend() != "jax":
        return lambda inputs: model(inputs, training=True)
    import jax

    call = jax.jit(lambda *args: model.stateless_call(*args, training=True))

    def run(inputs):
        state = model.non_trainable_variables
        weights = (
            [v.value for v in part] for part in (model.trainable_variables, state)
        )
        outputs, moved = call(*weights, inputs)
        for variable, value in zip(state, moved, strict=True):
            variable.assign(value)
        return outputs

    return run


def test_training_draws_and_inference_does_not():
    model = make(SMALL)
    quiet = [quick(model)(INPUTS) for _ in range(2)]
    np.testing.assert_array_equal(*(each["logits"] for each in quiet))
    train = in_training(model)
    drawn = [train(INPUTS) for _ in range(2)]
    assert (np.asarray(drawn[0]["z"]) != np.asarray(drawn[1]["z"])).all()
    for each in drawn:
        np.testing.assert_allclose(each["mean"], quiet[0]["mean"], atol=1e-5)


def test_word_dropout_changes_what_the_decoder_reads_alone():
    model = make(SMALL.replace(word_dropout=0.9, unknown_id=3))
    # With a variance of almost nothing z is the mean, so only words are dropped.
    log_variance = model.get_layer("posterior").log_variance
    log_variance.kernel.assign(np.zeros(log_variance.kernel.shape))
    log_variance.bias.assign([-40.0] * Z)
    dropped, whole = (
        run(INPUTS)["logits"] for run in (in_training(model), quick(model))
    )
    differs = np.abs(np.asarray(dropped) - np.asarray(whole))
    assert differs[:, 0].max() < 0.01 and differs[:, 1:].max() > 0.05


def test_batch_norm_ties_rows_together_while_training_alone():
    model = make(SMALL.replace(posterior="batch_norm"))
    posterior = model.get_layer("posterior")
    before = np.asarray(posterior.moving_mean)
    train, run = in_training(model), quick(model)
    # The last row as padding, which is no row; as a row; and left out.
    padded = part([0, 1, 2], source_lengths=LENGTHS * np.array([1, 1, 0], "int32"))
    quiet = np.asarray(run(padded)["mean"])
    np.testing.assert_allclose(run(INPUTS)["mean"][:2], quiet[:2], atol=1e-5)
    alone = np.asarray(train(part([0, 1]))["mean"])
    np.testing.assert_allclose(train(padded)["mean"][:2], alone, atol=1e-5)
    assert np.abs(np.asarray(train(INPUTS)["mean"])[:2] - alone).max() > 0.01
    assert (np.asarray(posterior.moving_mean) != before).all()


def test_more_samples_bring_the_bound_nearer():
    model = make(SMALL)
    decoder = models.decoder(model)
    mean, log_variance = (np.asarray(y) for y in quick(decoder.encode)(SOURCE, LENGTHS))
    noise = np.random.default_rng(5).normal(size=(97, B, Z))
    z = mean + np.exp(log_variance / 2) * noise
    # The samples of all rows in one batch.
    ids, targets = (np.tile(x, (97, 1)) for x in (INPUTS["token_ids"], SOURCE[:, :T]))
    logits = quick(decoder.logits)(ids, z.reshape(-1, Z).astype("float32"))
    each = losses.token_losses(logits, targets)
    likelihoods = -np.sum(each, axis=1).reshape(97, B)
    weights = np.asarray(
        latent_estimates.log_importance_weights(likelihoods, z, mean, log_variance)
    )
    many = np.asarray(latent_estimates.importance_weighted_nll(weights))
    kl = np.asarray(quick(model)(INPUTS)["kl"])
    one = np.asarray(elbo.negative_elbo(-likelihoods.mean(0), kl))
    # The same bound twice: with the KL in closed form, and from the samples.
    np.testing.assert_allclose(one, -weights.mean(0), atol=0.6)
    assert (many < one).all()


def test_weight_names_are_stable():
    paths = {weight.path for weight in make(SMALL).weights}
    cells = [
        f"{name}/{part}"
        for name in (
            "encoder_block_0/forward",
            "encoder_block_0/backward",
            "block_0/lstm",
        )
        for part in ("kernel", "recurrent_kernel", "bias")
    ]
    pairs = [
        f"{name}/{part}"
        for name in ("posterior/mean", "posterior/log_variance", "latent_state_0")
        for part in ("kernel", "bias")
    ]
    assert paths == {*cells, *pairs, "token_embedding/embeddings", "head/kernel"}


@pytest.mark.parametrize("name", CONFIGS)
def test_flops_are_six_per_matrix_weight_plus_attention(name):
    config = CONFIGS[name]
    model = models.build(config)
    once = ("posterior", "latent_")  # Used once a row, not once a token.
    matrices = sum(
        int(np.prod(weight.shape))
        for weight in model.trainable_weights
        if weight.path.endswith("kernel") and not weight.path.startswith(once)
    )
    matrices += V * D * config.tied
    stacks = [config.encoder, config.decoder].count("transformer")
    attention = 2 * 2 * 11 * D * config.num_layers * stacks
    # Of a token read and one written: half for each.
    both = 6 * matrices + 3 * attention
    assert models.flops_per_token(config, context=11) == both / 2


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"latent_dim": 0}, "`latent_dim` must be positive"),
        ({"encoder": "gru"}, "`encoder` must be one of 'lstm', 'transformer'"),
        ({"decoder": "rnn"}, "`decoder` must be one of"),
        ({"posterior": "flow"}, "`posterior` must be one of"),
        ({"gamma": 0.0}, "`gamma`"),
        ({"width": 0}, "`width`"),
        ({"num_layers": 0}, "`num_layers`"),
        ({"encoder": "transformer"}, "needs `max_positions`"),
        ({"decoder": "transformer", "max_positions": 0}, "`max_positions`"),
        ({"decoder": "transformer", "max_positions": 9, "num_heads": 4}, "num_heads=4"),
        ({"feed_forward_width": 0}, "`feed_forward_width`"),
        ({"dropout": 1.0}, "`dropout`"),
        ({"word_dropout": 1.0, "unknown_id": 1}, "`word_dropout`"),
        ({"word_dropout": float("nan"), "unknown_id": 1}, "`word_dropout`"),
        ({"word_dropout": 0.1}, "`unknown_id`"),
        ({"unknown_id": V}, f"unknown_id={V}"),
        ({"start_id": -1}, "`start_id`"),
        ({"epsilon": 0.0}, "`epsilon`"),
    ],
    ids=str,
)
def test_bad_configs_are_named(changes, said):
    with pytest.raises(ValueError, match=said):
        LL.replace(**changes)


def test_what_cannot_be_built_or_decoded_is_refused():
    with pytest.raises(ValueError, match="tokenizer"):
        models.build(LL.replace(vocab_size=0, start_id=0))
    decoder = models.decoder(models.build(CONFIGS["transformer to transformer"]))
    with pytest.raises(ValueError, match="max_positions=11"):
        decoder.encode(np.ones((1, 12), "int32"), np.array([12], "int32"))
    with pytest.raises(ValueError, match="max_positions=11"):
        decoder.prefill(SOURCE, LENGTHS, 12)
