"""Imports TensorFlow without its announcements.

TensorFlow 2.21 writes several lines about the processor and about absent GPUs to
standard error, whatever `TF_CPP_MIN_LOG_LEVEL` says: its logging starts later.
"""

import logging as std_logging
import os
import sys
import tempfile

from absl import logging

_ANNOUNCEMENTS = (
    b"All log messages before absl::InitializeLog() is called",
    b"oneDNN custom operations are on",
    b"Could not find cuda drivers on your machine",
)
# Says nothing new after the driver was found to be absent; else it is news.
_NO_DRIVER = b"Could not find cuda drivers on your machine"
_NO_CUDA = b"failed call to cuInit"


def import_tensorflow() -> None:
    """Imports TensorFlow and looks for its devices; passes other messages on."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    sys.stderr.flush()
    terminal = os.dup(2)
    with tempfile.TemporaryFile() as caught:
        os.dup2(caught.fileno(), 2)
        try:
            import tensorflow as tf

            library = os.path.dirname(tf.__file__)
            logging.get_absl_handler().addFilter(
                lambda record: is_news(record, library)
            )
            tf.config.list_physical_devices()
        finally:
            sys.stderr.flush()
            os.dup2(terminal, 2)
            os.close(terminal)
            caught.seek(0)
            os.write(2, news(caught.read()))


def is_news(record, library: str) -> bool:
    """Returns whether to show a log record: TensorFlow also tells of its every file.

    Args:
        record: A `logging.LogRecord`.
        library: TensorFlow's folder.
    """
    remark = record.levelno < std_logging.WARNING
    return not (remark and record.pathname.startswith(library))


def news(text: bytes) -> bytes:
    r"""Returns `text` without the announcements.

    >>> news(b"I0 oneDNN custom operations are on. W\nW0 No space left.\n")
    b'W0 No space left.\n'
    """
    known = _ANNOUNCEMENTS + ((_NO_CUDA,) if _NO_DRIVER in text else ())
    lines = text.splitlines(keepends=True)
    return b"".join(line for line in lines if not any(k in line for k in known))
