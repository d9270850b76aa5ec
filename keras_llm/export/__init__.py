"""One SavedModel, strings in and strings out, that stock TF Serving runs."""

from keras_llm.export.signatures import Servable
from keras_llm.export.verify import VerificationError, verify
from keras_llm.export.writer import DTYPES, export, from_model_folder

__all__ = [
    "DTYPES",
    "Servable",
    "VerificationError",
    "export",
    "from_model_folder",
    "verify",
]
