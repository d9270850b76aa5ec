"""From text files to batches of token ids.

    documents -> token stream -> rows of `context` + 1 tokens -> batches

Each document is written `[end] tokens…`: the separator opens it, so a row needs no
further input to tell documents apart.
"""

from keras_llm.data.batches import (
    TrainingBatches,
    ValidationBatches,
    training_batches,
    validation_batches,
)
from keras_llm.data.config import DataConfig, DataError, TextConfig
from keras_llm.data.corpus import load_splits, load_tokens, prepared_folder
from keras_llm.data.documents import read_documents
from keras_llm.data.engines import Dask, Engine, Local
from keras_llm.data.example_batches import (
    EncodedExamples,
    ExampleBatches,
    ValidationExamples,
)
from keras_llm.data.examples import (
    Example,
    place_of,
    read_examples,
    split_examples,
)
from keras_llm.data.masking import TokenMasking
from keras_llm.data.prepared import PreparedCorpus, is_prepared
from keras_llm.data.preparing import PreparedSummary, prepare
from keras_llm.data.row_batches import EndlessBatches, FiniteBatches, Transform
from keras_llm.data.sources import find_files
from keras_llm.data.span_corruption import SpanCorruption
from keras_llm.data.token_store import (
    CorruptRecordError,
    MemoryTokens,
    TokenCounts,
    TokenStore,
)

__all__ = [
    "CorruptRecordError",
    "Dask",
    "DataConfig",
    "DataError",
    "EncodedExamples",
    "EndlessBatches",
    "Engine",
    "Example",
    "ExampleBatches",
    "FiniteBatches",
    "Local",
    "MemoryTokens",
    "PreparedCorpus",
    "PreparedSummary",
    "SpanCorruption",
    "TextConfig",
    "TokenCounts",
    "TokenMasking",
    "TokenStore",
    "TrainingBatches",
    "Transform",
    "ValidationBatches",
    "ValidationExamples",
    "find_files",
    "is_prepared",
    "load_splits",
    "load_tokens",
    "place_of",
    "prepare",
    "prepared_folder",
    "read_documents",
    "read_examples",
    "split_examples",
    "training_batches",
    "validation_batches",
]
