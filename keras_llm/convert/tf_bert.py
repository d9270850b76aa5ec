"""TensorFlow checkpoints of BERT, as they were first released.

A folder holds `bert_config.json`, `vocab.txt` and one checkpoint: `NAME.index` with its
`NAME.data-…`. It is read as the checkpoint of Transformers that it would be.
"""

import pathlib
import re
from collections.abc import Collection
from typing import Any

import numpy as np

from keras_llm.convert import fitting, wordpiece_files
from keras_llm.convert.families import family_of
from keras_llm.convert.family import UnsupportedModelError
from keras_llm.convert.safetensors_folder import plain_file
from keras_llm.convert.tokenizer_files import check_ids
from keras_llm.core import CorruptFolderError, read_json
from keras_llm.tokenizers import WordPieceTokenizer

CONFIG = "bert_config.json"
_VOCABULARY = "vocab.txt"
_MASKED_LM = "cls/predictions/transform/dense/kernel"
# What training kept beside the weights.
_TRAINING = r"global_step|.*/adam_[mv]|.*/Adam(_1)?|beta[12]_power|_CHECKPOINTABLE.*"


def is_tf_bert(root: pathlib.Path) -> bool:
    """Returns whether a folder is such a release."""
    return (root / CONFIG).exists() and not (root / "config.json").exists()


def import_tf_bert(
    root: pathlib.Path,
    out: Any,
    ignored_fields: Collection[str] = (),
    with_tokenizer: bool = True,
) -> None:
    """Reads a release and writes a model folder: head "masked_lm", or else "embed".

    "gelu" in the config is the tanh approximation, as in the code of the release.

    Raises:
        UnsupportedModelError: The config asks for what ours does not do.
        core.CorruptFolderError: A file is malformed, a tensor is missing, left over,
            or of another shape than the config says.
    """
    values = read_json(plain_file(root, CONFIG))
    if not isinstance(values, dict):
        raise CorruptFolderError(f"{root / CONFIG} must hold a JSON object.")
    tensors = _Tensors(_prefix_of(root))
    head = "BertForMaskedLM" if tensors.has_masked_lm else "BertModel"
    values = {"model_type": "bert", "architectures": [head], **values}
    if values.get("hidden_act", "gelu") == "gelu":
        values["hidden_act"] = "gelu_new"
    family = family_of(values)
    config = family.read_config(values, ignored_fields)
    tokenizer = None
    if with_tokenizer and (root / _VOCABULARY).exists():
        tokenizer = _tokenizer(plain_file(root, _VOCABULARY))
        check_ids(tokenizer, config.vocab_size, root)
    fitting.write_model(tensors, family, config, out, tokenizer)


class _Tensors:
    """The variables of a checkpoint under Transformers' names, read one at a time."""

    def __init__(self, prefix: pathlib.Path):
        import tensorflow as tf

        self._prefix = prefix
        try:
            self._reader = tf.train.load_checkpoint(str(prefix))
            shapes = self._reader.get_variable_to_shape_map()
            self._types = self._reader.get_variable_to_dtype_map()
        except _errors() as error:
            raise CorruptFolderError(
                f"{prefix}.index is no readable checkpoint: {error}."
            ) from error
        own = [name for name in shapes if not re.fullmatch(_TRAINING, name)]
        self.has_masked_lm = _MASKED_LM in own
        self._names = {_renamed(name, self.has_masked_lm): name for name in own}
        self.shapes = {
            name: tuple(shapes[theirs][:: -1 if _is_kernel(theirs) else 1])
            for name, theirs in self._names.items()
        }

    def check_readable(self, name: str) -> None:
        """Raises CorruptFolderError unless a variable is of floats."""
        dtype = self._types[self._names[name]]
        if not dtype.is_floating:
            raise CorruptFolderError(
                f"The variable {self._names[name]!r} must be of a float type. "
                f"Received: {dtype.name}."
            )

    def read(self, name: str) -> np.ndarray:
        """Returns a tensor in float32, laid as Transformers has it."""
        theirs = self._names[name]
        try:
            values = self._reader.get_tensor(theirs).astype(np.float32)
        except _errors() as error:
            raise CorruptFolderError(
                f"{self._prefix}.data is damaged at {theirs!r}: {error}."
            ) from error
        return values.T if _is_kernel(theirs) else values


def _errors() -> tuple[type[Exception], ...]:
    """Returns what TensorFlow's reader raises of a damaged file."""
    import tensorflow as tf

    return tf.errors.OpError, IndexError, RuntimeError, ValueError


def _is_kernel(name: str) -> bool:
    return name.endswith("/kernel")


def _renamed(name: str, with_head: bool) -> str:
    """Returns Transformers' name of a variable.

    >>> _renamed("bert/encoder/layer_3/output/LayerNorm/gamma", True)
    'bert.encoder.layer.3.output.LayerNorm.weight'
    """
    if name == "cls/predictions/output_bias":
        return "cls.predictions.bias"
    name = re.sub(r"/(kernel|gamma)$", "/weight", name)
    name = re.sub(r"/beta$", "/bias", name)
    name = re.sub(r"_embeddings$", "_embeddings/weight", name)
    name = re.sub(r"layer_(\d+)", r"layer/\1", name).replace("/", ".")
    # Their class without a head names the trunk's tensors without its prefix.
    return name if with_head else name.removeprefix("bert.")


def _prefix_of(root: pathlib.Path) -> pathlib.Path:
    """Returns the path of the one checkpoint of a folder, without its endings."""
    found = sorted(root.glob("*.index"))
    if len(found) != 1:
        raise UnsupportedModelError(
            "A release of BERT holds one TensorFlow checkpoint, NAME.index with its "
            f"NAME.data files. Received: {[path.name for path in found]} in {root}."
        )
    plain_file(root, found[0].name)
    prefix = found[0].with_suffix("")
    for path in root.glob(f"{prefix.name}.data-*"):
        plain_file(root, path.name)
    return prefix


def _tokenizer(path: pathlib.Path) -> WordPieceTokenizer:
    """Reads the vocabulary; one without capitals is of lower-cased text."""
    tokens = path.read_text("utf-8", "replace").splitlines()
    words = (token for token in tokens if not re.fullmatch(r"\[.*\]", token))
    has_capitals = any(token != token.lower() for token in words)
    return wordpiece_files.from_vocabulary(path, {"do_lower_case": not has_capitals})
