"""Keras layers that work alone, on the TensorFlow and the JAX backend."""

from keras_llm.layers.attention import MultiHeadAttention
from keras_llm.layers.categorical_sample import CategoricalSample
from keras_llm.layers.cross_attention import CrossAttention
from keras_llm.layers.decoder_block import DecoderBlock
from keras_llm.layers.document_layout import DocumentLayout
from keras_llm.layers.dropout import Dropout
from keras_llm.layers.embeddings import LearnedPositions, TokenEmbedding
from keras_llm.layers.encoder_block import EncoderBlock
from keras_llm.layers.feed_forward import FeedForward
from keras_llm.layers.linear import Linear
from keras_llm.layers.lstm import LSTM
from keras_llm.layers.norms import LayerNorm, RMSNorm
from keras_llm.layers.pooling import Pooling
from keras_llm.layers.position_biases import (
    ALiBi,
    RelativePositionBias,
    check_buckets,
)
from keras_llm.layers.recurrent_block import RecurrentBlock
from keras_llm.layers.row_layout import RowLayout

__all__ = [
    "CategoricalSample",
    "ALiBi",
    "CrossAttention",
    "DecoderBlock",
    "DocumentLayout",
    "Dropout",
    "EncoderBlock",
    "FeedForward",
    "LSTM",
    "LayerNorm",
    "LearnedPositions",
    "Linear",
    "MultiHeadAttention",
    "Pooling",
    "RMSNorm",
    "RecurrentBlock",
    "RowLayout",
    "RelativePositionBias",
    "TokenEmbedding",
    "check_buckets",
]
