"""Keras layers that work alone, on the TensorFlow and the JAX backend."""

from keras_llm.layers.attention import MultiHeadAttention
from keras_llm.layers.bidirectional_lstm import BidirectionalLSTM
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
from keras_llm.layers.memory_attention import (
    AdditiveAttention,
    MultiplicativeAttention,
)
from keras_llm.layers.mixture_of_experts import MixtureOfExperts
from keras_llm.layers.norms import LayerNorm, RMSNorm
from keras_llm.layers.pooling import Pooling
from keras_llm.layers.position_biases import (
    ALiBi,
    RelativePositionBias,
    check_buckets,
)
from keras_llm.layers.posterior import BatchNormPosterior, GaussianPosterior
from keras_llm.layers.recurrent_block import RecurrentBlock
from keras_llm.layers.row_layout import RowLayout
from keras_llm.layers.word_dropout import WordDropout

__all__ = [
    "ALiBi",
    "AdditiveAttention",
    "BatchNormPosterior",
    "BidirectionalLSTM",
    "CategoricalSample",
    "CrossAttention",
    "DecoderBlock",
    "DocumentLayout",
    "Dropout",
    "EncoderBlock",
    "FeedForward",
    "GaussianPosterior",
    "LSTM",
    "LayerNorm",
    "LearnedPositions",
    "Linear",
    "MixtureOfExperts",
    "MultiHeadAttention",
    "MultiplicativeAttention",
    "Pooling",
    "RMSNorm",
    "RecurrentBlock",
    "RelativePositionBias",
    "RowLayout",
    "TokenEmbedding",
    "WordDropout",
    "check_buckets",
]
