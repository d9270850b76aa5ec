"""Configs, argument checks and whole-or-absent folders; no TensorFlow here."""

from keras_llm.core.config import Config, flattened, override
from keras_llm.core.folders import (
    CorruptFolderError,
    DiskFullError,
    check_absent,
    check_free_space,
    check_manifest,
    new_folder,
    read_json,
    read_manifest,
    write_json,
    write_manifest,
    write_text,
)
from keras_llm.core.metrics_file import read_metrics
from keras_llm.core.tensor_file import write_tensors

__all__ = [
    "Config",
    "CorruptFolderError",
    "DiskFullError",
    "check_absent",
    "check_free_space",
    "check_manifest",
    "flattened",
    "new_folder",
    "override",
    "read_json",
    "read_manifest",
    "read_metrics",
    "write_json",
    "write_manifest",
    "write_tensors",
    "write_text",
]
