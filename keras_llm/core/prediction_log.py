"""TF Serving's warm-up records: requests that a server replays before it serves.

They stand in `assets.extra/tf_serving_warmup_requests` of a SavedModel, a TFRecord
file of `tensorflow.serving.PredictionLog` messages. The few fields that are needed
are described here, with the published names and numbers, so that no package but
protobuf and TensorFlow takes part. A tensor stands in its message as serialised
bytes: on the wire a message field and a bytes field are the same.

TensorFlow is imported inside the functions.

Source: the protocol definitions of TensorFlow Serving, `apis/prediction_log.proto`,
`predict.proto` and `model.proto`,
https://github.com/tensorflow/serving/tree/master/tensorflow_serving/apis.
"""

import functools
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

# Where a SavedModel keeps its records, relative to the version folder.
WARMUP_PATH = "assets.extra/tf_serving_warmup_requests"
# TF Serving fails the whole load above this.
MAX_RECORDS = 1_000
_MAX_FILE_BYTES = 256 * 2**20

_BYTES, _MESSAGE, _STRING = 12, 11, 9  # Types of FieldDescriptorProto.
_OPTIONAL, _REPEATED = 1, 3
_PACKAGE = "tensorflow.serving"


class WarmupRequest(NamedTuple):
    """One request to replay: a signature and its inputs by name."""

    signature_name: str
    inputs: dict[str, np.ndarray]


def write_warmup(
    path: str | os.PathLike[str],
    requests: Sequence[tuple[str, Mapping[str, np.ndarray]]],
) -> None:
    """Writes warm-up records, making the parent folder.

    Args:
        path: The file to write, `WARMUP_PATH` below a version folder.
        requests: Pairs of a signature's name and its inputs by name; an input is
            anything that `tf.make_tensor_proto` takes.

    Raises:
        ValueError: There are more than 1,000 requests.
    """
    import tensorflow as tf

    if not len(requests) <= MAX_RECORDS:
        raise ValueError(
            f"TF Serving refuses a model with more than {MAX_RECORDS:,} warm-up "
            f"records. Received: {len(requests):,}. Write fewer."
        )
    pathlib.Path(path).parent.mkdir(parents=True, exist_ok=True)
    with tf.io.TFRecordWriter(os.fspath(path)) as writer:
        for signature_name, inputs in requests:
            log = _prediction_log_class()()
            request = log.predict_log.request
            request.model_spec.signature_name = signature_name
            for name, value in inputs.items():
                tensor = tf.make_tensor_proto(value)
                request.inputs[name] = tensor.SerializeToString(deterministic=True)
            writer.write(log.SerializeToString(deterministic=True))


def read_warmup(path: str | os.PathLike[str]) -> list[WarmupRequest]:
    """Reads the warm-up records that `write_warmup` or TF Serving's users wrote.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is damaged, too large, has more than 1,000 records or
            one that is not a predict request.
    """
    import tensorflow as tf

    size = os.path.getsize(path)
    if not size <= _MAX_FILE_BYTES:
        raise ValueError(
            f"A warm-up file may hold {_MAX_FILE_BYTES:,} bytes at most. Received: "
            f"{path} with {size:,} bytes."
        )
    requests: list[WarmupRequest] = []
    try:
        for record in tf.data.TFRecordDataset(os.fspath(path)).as_numpy_iterator():
            if len(requests) == MAX_RECORDS:
                raise ValueError(f"there are more than {MAX_RECORDS:,} records")
            requests.append(_read_record(record))
    except (ValueError, tf.errors.OpError) as error:
        why = "a damaged TFRecord" if isinstance(error, tf.errors.OpError) else error
        raise ValueError(
            f"Not a file of warm-up records: {path}, record {len(requests)} ({why})."
        ) from error
    return requests


def _read_record(record: bytes) -> WarmupRequest:
    import tensorflow as tf
    from google.protobuf.message import DecodeError
    from tensorflow.core.framework import tensor_pb2

    try:
        log = _prediction_log_class().FromString(record)
        if log.WhichOneof("log_type") != "predict_log":
            raise ValueError("only predict requests can be replayed")
        request = log.predict_log.request
        inputs = {
            name: tf.make_ndarray(tensor_pb2.TensorProto.FromString(value))
            for name, value in request.inputs.items()
        }
    except (DecodeError, TypeError) as error:
        raise ValueError(str(error)) from error
    return WarmupRequest(request.model_spec.signature_name, inputs)


@functools.cache
def _prediction_log_class() -> Any:
    """Returns the message class, in a pool of its own.

    The default pool may already hold TF Serving's full definitions.
    """
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    file = descriptor_pb2.FileDescriptorProto(
        name="keras_llm/prediction_log.proto", package=_PACKAGE, syntax="proto3"
    )
    _add_message(file, "ModelSpec", ("signature_name", 3, _STRING))
    request = _add_message(
        file,
        "PredictRequest",
        ("model_spec", 1, "ModelSpec"),
        ("inputs", 2, "PredictRequest.InputsEntry"),
    )
    request.field[1].label = _REPEATED
    entry = request.nested_type.add(name="InputsEntry")
    entry.options.map_entry = True
    _add_field(entry, "key", 1, _STRING)
    _add_field(entry, "value", 2, _BYTES)
    _add_message(file, "PredictLog", ("request", 1, "PredictRequest"))
    # The other kinds of log are bytes: all that matters is which one is there.
    log = _add_message(
        file,
        "PredictionLog",
        ("classify_log", 2, _BYTES),
        ("regress_log", 3, _BYTES),
        ("multi_inference_log", 4, _BYTES),
        ("session_run_log", 5, _BYTES),
        ("predict_log", 6, "PredictLog"),
        ("predict_streamed_log", 7, _BYTES),
    )
    log.oneof_decl.add(name="log_type")
    for field in log.field:
        field.oneof_index = 0
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    descriptor = pool.FindMessageTypeByName(f"{_PACKAGE}.PredictionLog")
    return message_factory.GetMessageClass(descriptor)


def _add_message(file: Any, name: str, *fields: tuple[str, int, int | str]) -> Any:
    message = file.message_type.add(name=name)
    for field_name, number, kind in fields:
        _add_field(message, field_name, number, kind)
    return message


def _add_field(message: Any, name: str, number: int, kind: int | str) -> None:
    field = message.field.add(name=name, number=number, label=_OPTIONAL)
    if isinstance(kind, str):
        field.type, field.type_name = _MESSAGE, f".{_PACKAGE}.{kind}"
    else:
        field.type = kind
