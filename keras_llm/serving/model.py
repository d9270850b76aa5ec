"""One version of a model: checked, loaded, warmed up, and asked for predictions."""

import importlib.util
import logging
import os
import pathlib
import weakref
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from keras_llm.core.allowed_ops import TF_TEXT_OPS, check_graph
from keras_llm.core.folders import check_manifest
from keras_llm.core.prediction_log import WARMUP_PATH, read_warmup
from keras_llm.serving.errors import Code, RequestError, from_tensorflow
from keras_llm.serving.tensors import TensorSpec

_log = logging.getLogger(__name__)

# Files of a version folder that are the operator's: the graph and the weights are not.
_EDITABLE = ("README.md", "batching_params.pbtxt", WARMUP_PATH)


class Signature(NamedTuple):
    """What a signature is called by, takes and gives, by the names of its tensors."""

    method_name: str
    inputs: dict[str, TensorSpec]
    outputs: dict[str, TensorSpec]
    input_tensors: dict[str, str]
    output_tensors: dict[str, str]


class Model:
    """A loaded SavedModel.

    It is run as TF Serving runs it: its graph in a session, signatures by their
    tensors' names. A session stops a run at its deadline, which a called function
    does not, and it never reads the file's description of Python objects.

    The session is closed when nothing refers to the model any more, so that a
    request that began on it also ends on it.

    Args:
        folder: The version's folder.
        version: Its number.
        allow_xla: Whether graphs that XLA must compile are accepted.
    """

    def __init__(self, folder: pathlib.Path, version: int, allow_xla: bool = False):
        if (folder / "manifest.json").exists():
            check_manifest(folder, _EDITABLE)
        _load_tf_text(check_graph(folder, allow_xla))
        self.version = version
        self._session, self._signature_defs = _load(folder)
        weakref.finalize(self, self._session.close)
        self.signatures = {
            name: _signature(definition)
            for name, definition in self._signature_defs.items()
            if not name.startswith("__")
        }

    def signature(self, name: str) -> Signature:
        """Returns a signature by its name.

        Raises:
            RequestError: There is none of that name.
        """
        if name not in self.signatures:
            raise RequestError(
                f'Serving signature name: "{name[:64]}" not found in signature def'
            )
        return self.signatures[name]

    def predict(
        self, name: str, inputs: Mapping[str, np.ndarray], timeout_ms: int = 0
    ) -> dict[str, np.ndarray]:
        """Runs a signature; blocks the calling thread.

        Args:
            name: The signature.
            inputs: Every input by name, of the signature's types and shapes.
            timeout_ms: TensorFlow stops the run after as long; 0 is never.

        Raises:
            RequestError: TensorFlow refused the inputs or failed.
        """
        import tensorflow as tf

        signature = self.signature(name)
        feeds = {signature.input_tensors[key]: inputs[key] for key in inputs}
        options = tf.compat.v1.RunOptions(timeout_in_ms=timeout_ms)
        try:
            return self._session.run(signature.output_tensors, feeds, options=options)
        except tf.errors.OpError as error:
            known = from_tensorflow(error.error_code, error.message)
            if known.http_status == Code.INTERNAL.http_status:
                _log.error("Signature %s failed: %s", name, error.message)
            raise known from None

    def warm_up(self, folder: pathlib.Path) -> int:
        """Replays the version's warm-up requests and returns how many there were.

        Raises:
            ValueError: A record cannot be read or fails.
        """
        path = folder / WARMUP_PATH
        if not path.exists():
            return 0
        requests = read_warmup(path)
        for i, request in enumerate(requests):
            try:
                self.predict(
                    request.signature_name or "serving_default", request.inputs
                )
            except (RequestError, KeyError, TypeError, ValueError) as error:
                raise ValueError(f"Warm-up request {i} failed: {error}.") from error
        return len(requests)

    def metadata(self) -> dict[str, Any]:
        """Returns the signatures as TF Serving's metadata has them."""
        from google.protobuf import json_format

        return {
            name: json_format.MessageToDict(
                definition,
                preserving_proto_field_name=True,
                always_print_fields_with_no_presence=True,
            )
            for name, definition in sorted(self._signature_defs.items())
        }


def _load(folder: pathlib.Path) -> tuple[Any, dict[str, Any]]:
    import tensorflow as tf

    v1 = tf.compat.v1
    # Warns that the loader is old; TF Serving's own is the same.
    tf.get_logger().setLevel(logging.ERROR)
    session = v1.Session(
        graph=tf.Graph(), config=v1.ConfigProto(allow_soft_placement=True)
    )
    try:
        with session.graph.as_default():
            meta_graph = v1.saved_model.load(session, ["serve"], os.fspath(folder))
    except BaseException:
        session.close()
        raise
    session.graph.finalize()
    return session, dict(meta_graph.signature_def)


def _signature(definition: Any) -> Signature:
    return Signature(
        method_name=definition.method_name,
        inputs={key: _spec(key, info) for key, info in definition.inputs.items()},
        outputs={key: _spec(key, info) for key, info in definition.outputs.items()},
        input_tensors={key: info.name for key, info in definition.inputs.items()},
        output_tensors={key: info.name for key, info in definition.outputs.items()},
    )


def _spec(name: str, info: Any) -> TensorSpec:
    import tensorflow as tf

    shape = None
    if not info.tensor_shape.unknown_rank:
        shape = tuple(None if d.size < 0 else d.size for d in info.tensor_shape.dim)
    # TensorFlow's own names of these two differ from NumPy's.
    dtype = tf.dtypes.as_dtype(info.dtype).name
    dtype = {"float32": "float", "float64": "double"}.get(dtype, dtype)
    return TensorSpec(name, dtype, shape)


def _load_tf_text(used_ops: frozenset[str]) -> None:
    """Loads tf_text's kernels for a graph that uses them.

    Its op libraries are loaded by themselves, since the Python package takes most of
    a second to import and nothing here calls it.
    """
    if not used_ops & TF_TEXT_OPS:
        return
    import tensorflow as tf

    spec = importlib.util.find_spec("tensorflow_text")
    if spec is None or spec.origin is None:
        raise ValueError(
            "The model uses ops of tensorflow-text, which is not installed. "
            f"Received: {', '.join(sorted(used_ops & TF_TEXT_OPS))}. Run `pip install "
            "tensorflow-text`."
        )
    for library in sorted(pathlib.Path(spec.origin).parent.glob("python/ops/_*.so")):
        tf.load_op_library(os.fspath(library))
