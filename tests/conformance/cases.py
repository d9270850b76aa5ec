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
        random_output: Whether training draws random numbers.
    """

    make: Callable[..., keras.layers.Layer]
    x: np.ndarray = dataclasses.field(default_factory=FLOATS.copy)
    causal: bool = True
    random_output: bool = False


LAYERS = {
    "DecoderBlock": LayerCase(
        lambda **kw: layers.DecoderBlock(
            3,
            7,
            norm="rms_norm",
            activation="swiglu",
            rotary_base=100.0,
            output_initializer=keras.initializers.RandomNormal(stddev=0.1),
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
    "FeedForward": LayerCase(lambda **kw: layers.FeedForward(7, **kw)),
    "LSTM": LayerCase(
        lambda **kw: layers.LSTM(7, return_sequences=True, layer_norm=True, **kw)
    ),
    "LayerNorm": LayerCase(lambda **kw: layers.LayerNorm(**kw)),
    "LearnedPositions": LayerCase(
        lambda **kw: layers.LearnedPositions(V, 7, **kw), IDS
    ),
    "Linear": LayerCase(lambda **kw: layers.Linear(7, **kw)),
    "MultiHeadAttention": LayerCase(
        lambda **kw: layers.MultiHeadAttention(
            6, key_value_heads=2, rotary_base=100.0, window=4, **kw
        )
    ),
    "RMSNorm": LayerCase(lambda **kw: layers.RMSNorm(**kw)),
    "RecurrentBlock": LayerCase(
        lambda **kw: layers.RecurrentBlock(7, pre_norm=True, residual=True, **kw)
    ),
    "TokenEmbedding": LayerCase(lambda **kw: layers.TokenEmbedding(V, 7, **kw), IDS),
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
