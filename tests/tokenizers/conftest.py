"""GPT-2's tokenizer and two independent ones to compare it with."""

import json
import pathlib

import pytest
import tiktoken
import tokenizers as reference_library

from keras_llm import tokenizers
from keras_llm.tokenizers import gpt2_files
from tests.eager_functions import eager_functions  # noqa: F401

GPT2 = pathlib.Path(__file__).parents[2] / "testdata" / "gpt2"


@pytest.fixture(scope="session")
def gpt2():
    return tokenizers.ByteBPETokenizer.from_gpt2_files(
        GPT2 / "encoder.json", GPT2 / "vocab.bpe"
    )


@pytest.fixture(scope="session")
def tokenizers_encode():
    """Encodes a list of texts by the `tokenizers` library, no special tokens."""
    model = reference_library.models.BPE.from_file(
        str(GPT2 / "encoder.json"), str(GPT2 / "vocab.bpe")
    )
    reference = reference_library.Tokenizer(model)
    split = reference_library.pre_tokenizers.ByteLevel
    reference.pre_tokenizer = split(add_prefix_space=False, use_regex=True)
    return lambda texts: [found.ids for found in reference.encode_batch(texts)]


@pytest.fixture(scope="session")
def tiktoken_encode():
    """Encodes a list of texts by the `tiktoken` library, no special tokens."""
    vocabulary = json.loads((GPT2 / "encoder.json").read_text())
    special = vocabulary.pop("<|endoftext|>")
    reference = tiktoken.Encoding(
        "gpt2",
        pat_str=(
            r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
        ),
        mergeable_ranks={gpt2_files.to_bytes(t): n for t, n in vocabulary.items()},
        special_tokens={"<|endoftext|>": special},
    )
    return lambda texts: [reference.encode_ordinary(text) for text in texts]
