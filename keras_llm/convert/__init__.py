"""Checkpoints of other libraries: read into model folders, and written from them."""

from keras_llm.convert.families import FAMILIES
from keras_llm.convert.family import UnsupportedModelError
from keras_llm.convert.folders import export_folder, import_folder

__all__ = ["FAMILIES", "UnsupportedModelError", "export_folder", "import_folder"]
