"""Checkpoints of other libraries: read into model folders, and written from them."""

from keras_llm.convert.exporting import Exported, export_folder
from keras_llm.convert.families import FAMILIES
from keras_llm.convert.family import UnsupportedModelError
from keras_llm.convert.hub_backbones import from_keras_hub, tokenizer_from_keras_hub
from keras_llm.convert.hub_writing import to_keras_hub
from keras_llm.convert.importing import import_folder, import_gguf

__all__ = [
    "FAMILIES",
    "Exported",
    "UnsupportedModelError",
    "export_folder",
    "from_keras_hub",
    "import_folder",
    "import_gguf",
    "to_keras_hub",
    "tokenizer_from_keras_hub",
]
