"""What the conformance suite runs: one case for everything public.

To add a subject, add its case here; `test_coverage.py` fails until that is done,
and when a case has lost its subject.
"""

import dataclasses
from collections.abc import Callable

import keras
import numpy as np

from keras_llm import layers, models
from keras_llm.ops import sampling

B, T, D, V = 2, 5, 12, 31
RNG = np.random.default_rng(37)
FLOATS = RNG.normal(size=(B, T, D)).astype("float32")
IDS = RNG.integers(0, V, (B, T)).astype("int32")


@dataclasses.dataclass(frozen=True)
class LayerCase:
    """A layer and an input for it.

    Attributes:
        make: Returns the layer; takes `dtype` and the like.
        x: An input [B, T, ...].
        causal: Whether what comes later in a row changes nothing before it, as
            padding on the right must not.
        random_output: Whether the layer, made so, draws random numbers in training.
        call: Calls the layer; a layer of several inputs is given all of them.
    """

    make: Callable[..., keras.layers.Layer]
    x: np.ndarray = dataclasses.field(default_factory=FLOATS.copy)
    causal: bool = True
    random_output: bool = False
    call: Callable = lambda layer, x, **kw: layer(x, **kw)


def _of_memory(make):
    """Returns the case of a layer that looks into a memory, which is its input too."""
    call = lambda layer, x, **kw: layer(x, x, **kw)  # noqa: E731
    return LayerCase(make, causal=False, call=call)


LAYERS = {
    # Time is in the last two axes: see its own tests.
    "ALiBi": LayerCase(lambda **kw: layers.ALiBi(3, **kw), IDS, causal=False),
    "AdditiveAttention": _of_memory(lambda **kw: layers.AdditiveAttention(7, **kw)),
    "BatchNormPosterior": LayerCase(
        lambda **kw: layers.BatchNormPosterior(7, seed=1, **kw), random_output=True
    ),
    "BidirectionalLSTM": LayerCase(
        lambda **kw: layers.BidirectionalLSTM(7, return_sequences=True, **kw),
        causal=False,
    ),
    "CategoricalSample": LayerCase(
        lambda **kw: layers.CategoricalSample(**kw), random_output=True
    ),
    "CrossAttention": _of_memory(lambda **kw: layers.CrossAttention(3, **kw)),
    "DecoderBlock": LayerCase(
        lambda **kw: layers.DecoderBlock(
            3,
            7,
            norm="rms_norm",
            activation="swiglu",
            rotary_base=100.0,
            output_initializer=keras.initializers.RandomNormal(stddev=0.1),
            post_norm=True,
            attention={
                "use_bias": False,
                "query_key_norm": 1e-5,
                "rotary_scaling": (8.0, 1.0, 4.0, 11),
                "soft_cap": 3.0,
            },
            **kw,
        )
    ),
    "DocumentLayout": LayerCase(
        # The mask [T, T] is causal in another axis than time: see its own tests.
        lambda **kw: layers.DocumentLayout(3, window=2, **kw),
        IDS,
        causal=False,
    ),
    "Dropout": LayerCase(
        lambda **kw: layers.Dropout(0.5, seed=1, **kw), random_output=True
    ),
    "EncoderBlock": LayerCase(
        lambda **kw: layers.EncoderBlock(3, 7, **kw), causal=False
    ),
    "FeedForward": LayerCase(lambda **kw: layers.FeedForward(7, **kw)),
    "GaussianPosterior": LayerCase(
        lambda **kw: layers.GaussianPosterior(7, seed=1, **kw), random_output=True
    ),
    "LSTM": LayerCase(
        lambda **kw: layers.LSTM(7, return_sequences=True, layer_norm=True, **kw)
    ),
    "LayerNorm": LayerCase(lambda **kw: layers.LayerNorm(**kw)),
    "LearnedPositions": LayerCase(
        lambda **kw: layers.LearnedPositions(V, 7, **kw), IDS
    ),
    "Linear": LayerCase(lambda **kw: layers.Linear(7, **kw)),
    "MixtureOfExperts": LayerCase(
        lambda **kw: layers.MixtureOfExperts(3, 7, activation="swiglu", **kw)
    ),
    "MultiHeadAttention": LayerCase(
        lambda **kw: layers.MultiHeadAttention(
            6, key_value_heads=2, rotary_base=100.0, window=4, **kw
        )
    ),
    "MultiplicativeAttention": _of_memory(
        lambda **kw: layers.MultiplicativeAttention(**kw)
    ),
    # It makes one vector of a row, whose end counts as much as its beginning.
    "Pooling": LayerCase(lambda **kw: layers.Pooling("attention", **kw), causal=False),
    "RMSNorm": LayerCase(lambda **kw: layers.RMSNorm(**kw)),
    "RecurrentBlock": LayerCase(
        lambda **kw: layers.RecurrentBlock(7, pre_norm=True, residual=True, **kw)
    ),
    "RelativePositionBias": LayerCase(
        lambda **kw: layers.RelativePositionBias(3, **kw), IDS, causal=False
    ),
    "RowLayout": LayerCase(lambda **kw: layers.RowLayout(**kw), IDS),
    "TokenEmbedding": LayerCase(lambda **kw: layers.TokenEmbedding(V, 7, **kw), IDS),
    "WordDropout": LayerCase(
        lambda **kw: layers.WordDropout(0.5, 3, seed=1, **kw), IDS, random_output=True
    ),
}


class OwnMemory(keras.layers.Layer):
    """Lets a layer that looks into a memory look into what it is given."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def build(self, x_shape):
        self.layer.build(x_shape, x_shape)

    def call(self, x, training=False):
        return self.layer(x, x, training=training)


# For every layer that can drop values in training: how to make it do so, and how many
# masks one call then draws. (Layers that draw whatever the arguments say
# `random_output` in their case above.)
DRAWS = {
    "BidirectionalLSTM": (
        lambda: layers.BidirectionalLSTM(
            7, return_sequences=True, recurrent_dropout=0.5, seed=11
        ),
        2,
    ),
    "CrossAttention": (
        lambda: OwnMemory(layers.CrossAttention(3, dropout=0.5, seed=11)),
        1,
    ),
    "DecoderBlock": (lambda: layers.DecoderBlock(3, 7, dropout=0.5, seed=11), 3),
    "Dropout": (lambda: layers.Dropout(0.5, seed=11), 1),
    "EncoderBlock": (lambda: layers.EncoderBlock(3, 7, dropout=0.5, seed=11), 3),
    "FeedForward": (lambda: layers.FeedForward(7, dropout=0.5, seed=11), 1),
    "LSTM": (
        lambda: layers.LSTM(7, return_sequences=True, recurrent_dropout=0.5, seed=11),
        1,
    ),
    "MultiHeadAttention": (
        lambda: layers.MultiHeadAttention(6, dropout=0.5, seed=11),
        1,
    ),
    "RecurrentBlock": (
        lambda: layers.RecurrentBlock(7, dropout=0.5, recurrent_dropout=0.5, seed=11),
        2,
    ),
}

_SIZES = {"vocab_size": V, "max_positions": 23, "num_layers": 2, "separator_id": 0}
MODELS = {
    "gemma": models.GemmaConfig(
        **_SIZES,
        width=24,
        num_heads=6,
        key_value_heads=2,
        head_size=10,
        feed_forward_width=13,
        post_norm=True,
        score_divisor=7,
        score_soft_cap=3.0,
        logit_soft_cap=5.0,
        window=4,
        full_every=2,
    ),
    "gpt2": models.GPT2Config(**_SIZES, width=20, num_heads=5),
    "llama": models.LlamaConfig(
        **_SIZES, width=24, num_heads=6, key_value_heads=2, window=4
    ),
    "lstm_lm": models.LSTMLMConfig(
        vocab_size=V, num_layers=2, separator_id=0, embedding_width=7, units=11
    ),
}


@dataclasses.dataclass(frozen=True)
class ModelCase:
    """An architecture over a dict of named, right-padded inputs, and a batch.

    Attributes:
        config: The architecture's config.
        inputs: By name, arrays that lead with the batch: an even number of rows,
            among them a short one.
        outputs: By name, the shape that the functional model tells; where it gives
            a tensor and no dict, by the name "output".
        lengths_of: For each input and output with a time axis, the input that holds
            each row's real tokens along it. (A name may be both.)
        discrete: Outputs that a choice among ids decides: rounding may turn it, so
            mixed precision is compared on the others.
    """

    config: object
    inputs: dict[str, np.ndarray]
    outputs: dict[str, tuple[int | None, ...]]
    lengths_of: dict[str, str]
    discrete: tuple[str, ...] = ()

    @staticmethod
    def named(outputs) -> dict[str, np.ndarray]:
        """Returns a model's outputs as arrays by name."""
        if not isinstance(outputs, dict):
            outputs = {"output": outputs}
        return {name: np.asarray(value) for name, value in outputs.items()}

    def real(self, name, length) -> np.ndarray:
        """Returns bool [B, T]: which tokens of an input or output are real."""
        lengths = self.inputs[self.lengths_of[name]]
        return np.arange(length)[None] < lengths[:, None]


_LONGEST = 11
_ROWS = {
    "token_ids": RNG.integers(1, V, (4, _LONGEST)).astype("int32"),
    "segment_ids": RNG.integers(0, 2, (4, _LONGEST)).astype("int32"),
    "lengths": np.array([7, 11, 1, 5], "int32"),
}
_ROWS_OF = {"token_ids": "lengths", "segment_ids": "lengths"}
_ENCODER = {"vocab_size": V, "max_positions": 23, "num_layers": 1, "num_heads": 5}
_BERT = {**_ENCODER, "width": 20, "embedding_width": 7}


def _bert(output, **fields):
    """Returns the case of one head; its output is by token if it has three axes."""
    by_token = {"output": "lengths"} if len(output) == 3 else {}
    return ModelCase(
        models.BertConfig(**_BERT, **fields),
        _ROWS,
        {"output": output},
        {**_ROWS_OF, **by_token},
    )


def _lstm_classifier(**fields):
    config = models.LSTMClassifierConfig(
        vocab_size=V,
        embedding_width=7,
        units=11,
        labels=("a", "b", "c"),
        dropout=0.1,
        **fields,
    )
    inputs = {name: _ROWS[name] for name in ("token_ids", "lengths")}
    return ModelCase(config, inputs, {"output": (None, 3)}, {"token_ids": "lengths"})


def _text_vae(**fields):
    config = models.TextVAEConfig(
        vocab_size=V,
        latent_dim=3,
        width=20,
        num_heads=5,
        word_dropout=0.2,
        unknown_id=1,
        dropout=0.1,
        **fields,
    )
    inputs = {
        "source_ids": _ROWS["token_ids"],
        "source_lengths": _ROWS["lengths"],
        "token_ids": np.pad(_ROWS["token_ids"][:, :-1], ((0, 0), (1, 0))),
    }
    latent = dict.fromkeys(("kl", "mean", "log_variance", "z"), (None, 3))
    outputs = {"logits": (None, None, V), **latent}
    return ModelCase(config, inputs, outputs, {"source_ids": "source_lengths"})


def _encoder_decoder(config):
    inputs = {
        "source_ids": _ROWS["token_ids"],
        "source_lengths": _ROWS["lengths"],
        "token_ids": np.pad(_ROWS["token_ids"][:, :-1], ((0, 0), (1, 0))),
    }
    outputs = {"output": (None, None, V)}
    return ModelCase(config, inputs, outputs, {"source_ids": "source_lengths"})


# Architectures that are no causal language models; the name says which, and what
# of it.
PADDED_MODELS = {
    "bert_masked_lm": _bert((None, None, V)),
    "bert_classify": _bert(
        (None, 3), head="classify", labels=("a", "b", "c"), pooling="attention"
    ),
    "bert_answer": _bert((None, None, 2), head="answer"),
    "bert_embed": _bert((None, 20), head="embed", pooling="mean", normalize=True),
    "electra": ModelCase(
        models.ElectraConfig(
            **_ENCODER, width=30, embedding_width=7, generator_fraction=0.4
        ),
        {
            **_ROWS,
            "masked_ids": np.where(
                RNG.random((4, _LONGEST)) < 0.3, 3, _ROWS["token_ids"]
            ),
            "masked_positions": np.array(
                [[2, 6, -1], [10, 0, 4], [0, -1, -1], [-1, -1, -1]], "int32"
            ),
        },
        {
            "generator_logits": (None, None, V),
            "corrupted_ids": (None, None),
            "discriminator_logits": (None, None),
        },
        {
            **_ROWS_OF,
            "masked_ids": "lengths",
            "corrupted_ids": "lengths",
            "discriminator_logits": "lengths",
        },
        discrete=("corrupted_ids", "discriminator_logits"),
    ),
    "lstm_classifier_last": _lstm_classifier(pooling="last", num_layers=2),
    "lstm_classifier_max": _lstm_classifier(pooling="max", bidirectional=False),
    "lstm_seq2seq": _encoder_decoder(
        models.LSTMSeq2SeqConfig(
            vocab_size=V, embedding_width=7, units=10, attention="additive", dropout=0.1
        )
    ),
    "t5": _encoder_decoder(
        models.T5Config(
            **_ENCODER, width=20, head_size=3, feed_forward_width=13, dropout=0.1
        )
    ),
    "text_vae_lstm": _text_vae(),
    "text_vae_transformer": _text_vae(
        encoder="transformer",
        decoder="transformer",
        max_positions=23,
        posterior="batch_norm",
        tied=True,
    ),
}

# Arguments of each function of `ops.sampling`, every one batch-led but `step`.
_LOGITS = RNG.normal(0, 3, (B, V)).astype("float32")
_HALF, _FOUR = np.full(B, 0.5, "float32"), np.full(B, 4, "int32")
SAMPLERS = {
    "cutoff": (sampling.cutoff, (_LOGITS, _FOUR, _HALF, _HALF / 5)),
    "draw": (sampling.draw, (_LOGITS, np.full(B, -2.0, "float32"), _HALF)),
    "greedy": (sampling.greedy, (_LOGITS,)),
    "penalize_repetition": (
        sampling.penalize_repetition,
        (_LOGITS, RNG.random((B, V)) < 0.5, 4 * _HALF),
    ),
    "sample": (
        sampling.sample,
        (_LOGITS, _HALF, _FOUR, _HALF, _HALF / 5, _FOUR, np.int32(3)),
    ),
}
