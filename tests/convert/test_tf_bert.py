"""TensorFlow checkpoints of BERT, made up here, against what Transformers wrote."""

import json
import pathlib
import re

import numpy as np
import pytest
import safetensors.numpy
import tensorflow as tf

from keras_llm import convert, models
from keras_llm.core import CorruptFolderError

GOLDEN = pathlib.Path(__file__).parents[2] / "testdata" / "golden" / "bert"
# Fields that a config of the first release has.
FIELDS = (
    "vocab_size",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "max_position_embeddings",
    "type_vocab_size",
    "hidden_act",
    "hidden_dropout_prob",
    "attention_probs_dropout_prob",
    "initializer_range",
)
RENAMED = [
    (r"^cls\.predictions\.bias$", "cls.predictions.output_bias"),
    (r"LayerNorm\.weight$", "LayerNorm.gamma"),
    (r"LayerNorm\.bias$", "LayerNorm.beta"),
    (r"_embeddings\.weight$", "_embeddings"),
    (r"weight$", "kernel"),
    (r"\.layer\.(\d+)\.", r".layer_\1."),
]


def variables():
    """Returns the golden checkpoint's tensors as TensorFlow had them."""
    found = {}
    for name, values in safetensors.numpy.load_file(
        GOLDEN / "model.safetensors"
    ).items():
        if "position_ids" in name or "decoder" in name:
            continue
        for pattern, new in RENAMED:
            name = re.sub(pattern, new, name)
        found[name.replace(".", "/")] = values.T if name.endswith("kernel") else values
    width = found["bert/embeddings/LayerNorm/gamma"].shape[0]
    beside = {
        "bert/pooler/dense/kernel": np.ones((width, width), np.float32),
        "bert/pooler/dense/bias": np.ones(width, np.float32),
        "cls/seq_relationship/output_weights": np.ones((2, width), np.float32),
        "cls/seq_relationship/output_bias": np.ones(2, np.float32),
        "bert/embeddings/word_embeddings/adam_m": np.ones(3, np.float32),
        "global_step": np.array(7, np.int64),
    }
    return found | beside


def release(folder, tensors, **config):
    """Writes a folder as the first release was."""
    folder.mkdir()
    names = list(tensors)
    tf.raw_ops.SaveV2(
        prefix=str(folder / "part"),
        tensor_names=names,
        shape_and_slices=[""] * len(names),
        tensors=[tf.constant(tensors[name]) for name in names],
    )
    tf.raw_ops.MergeV2Checkpoints(
        checkpoint_prefixes=[str(folder / "part")],
        destination_prefix=str(folder / "bert_model.ckpt"),
        delete_old_dirs=False,
    )
    theirs = json.loads((GOLDEN / "config.json").read_text())
    values = {name: theirs[name] for name in FIELDS if name in theirs} | config
    (folder / "bert_config.json").write_text(json.dumps(values))
    return folder


def test_weights_are_those_of_transformers_file(tmp_path):
    source = release(tmp_path / "bert", variables())
    convert.import_folder(source, tmp_path / "model")
    convert.import_folder(GOLDEN, tmp_path / "other")
    ours, theirs = (
        safetensors.numpy.load_file(tmp_path / name / "model.safetensors")
        for name in ("model", "other")
    )
    assert set(ours) == set(theirs)
    assert all(np.array_equal(ours[name], theirs[name]) for name in ours)
    config = models.load_config(tmp_path / "model")
    assert (config.head, config.activation) == ("masked_lm", "gelu_tanh")
    other = models.load_config(tmp_path / "other")
    assert config.replace(activation="gelu", epsilon=other.epsilon) == other


def test_without_the_head_it_gives_vectors(tmp_path):
    tensors = {n: v for n, v in variables().items() if not n.startswith("cls/")}
    convert.import_folder(release(tmp_path / "bert", tensors), tmp_path / "model")
    assert models.load_config(tmp_path / "model").head == "embed"


@pytest.mark.parametrize(("piece", "lower"), [("whale", True), ("Whale", False)])
def test_capitals_in_the_vocabulary_say_how_text_is_read(tmp_path, piece, lower):
    source = release(tmp_path / "bert", variables())
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    (source / "vocab.txt").write_text("\n".join([*special, piece, "##s"]) + "\n")
    convert.import_folder(source, tmp_path / "model")
    tokenizer = models.load_tokenizer(tmp_path / "model")
    assert tokenizer.lower_case is lower
    assert list(tokenizer.encode(piece)) == [5]


def without(name):
    return {n: v for n, v in variables().items() if n != name}


KERNEL = "bert/encoder/layer_1/intermediate/dense/kernel"


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        (lambda: without(KERNEL), "Missing.*layer.1.intermediate.dense.weight"),
        (lambda: variables() | {"dense/kernel": np.ones((2, 2), np.float32)}, "left"),
        (lambda: variables() | {KERNEL: np.ones((3, 4), np.float32)}, "has shape"),
        (lambda: variables() | {KERNEL: np.ones((3, 4), np.int32)}, "int32"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path, tensors, message):
    source = release(tmp_path / "bert", tensors())
    with pytest.raises(CorruptFolderError, match=message):
        convert.import_folder(source, tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_damaged_files_are_typed_errors(tmp_path):
    source = release(tmp_path / "bert", variables())
    files = sorted(source.glob("bert_model.ckpt.*"))
    assert len(files) == 2
    rng = np.random.default_rng(0)
    convert.import_folder(source, tmp_path / "whole")
    weights = (tmp_path / "whole" / "model.safetensors").read_bytes()
    refused = 0
    for path in files:
        whole = path.read_bytes()
        for i in range(25):
            cut = rng.integers(len(whole))
            flipped = bytearray(whole)
            flipped[cut] ^= 1 << int(rng.integers(8))
            path.write_bytes(whole[:cut] if i % 2 else bytes(flipped))
            out = tmp_path / f"{path.suffix}{i}"
            try:
                convert.import_folder(source, out)
            except (CorruptFolderError, FileNotFoundError):
                refused += 1
            else:  # A byte that nothing reads: TensorFlow keeps sums of all others.
                assert (out / "model.safetensors").read_bytes() == weights
        path.write_bytes(whole)
    assert refused >= 45


def test_one_checkpoint_is_asked_for(tmp_path):
    source = release(tmp_path / "bert", variables())
    (source / "bert_model.ckpt.index").rename(source / "lost")
    with pytest.raises(convert.UnsupportedModelError, match="one TensorFlow checkp"):
        convert.import_folder(source, tmp_path / "model")
