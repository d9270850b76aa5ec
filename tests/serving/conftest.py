"""Small SavedModels, servers in processes of their own, and a client."""

import contextlib
import dataclasses
import functools
import http.client
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.forked import Forked

ROOT = pathlib.Path(__file__).parents[2]


def toy_module(tf, version: int):
    """Returns a module whose signatures try what the server must handle."""

    def spec(dtype, *shape):
        return tf.TensorSpec([None, *shape], dtype)

    class Toy(tf.Module):
        def __init__(self):
            super().__init__()
            self.slope = tf.Variable(0.5)

        @tf.function(input_signature=[spec(tf.float32)])
        def half(self, x):
            return {"y": x * self.slope + 3.0}

        @tf.function(input_signature=[spec(tf.string)])
        def echo(self, text):
            return {"text": text, "raw_bytes": text, "length": tf.strings.length(text)}

        @tf.function(
            input_signature=[
                spec(tf.bool),
                spec(tf.int32),
                spec(tf.int64, 2),
                spec(tf.uint8),
                spec(tf.float64),
                spec(tf.string),
            ]
        )
        def types(self, flag, count, pair, small, ratio, word):
            return {
                "flag": tf.logical_not(flag),
                "count": count + 1,
                "pair": pair,
                "small": small,
                "ratio": ratio,
                "word": word,
            }

        @tf.function(input_signature=[spec(tf.float32)])
        def guarded(self, x):
            check = tf.debugging.Assert(
                tf.reduce_all(x <= 100.0), ["`x` must be at most 100. Received:", x]
            )
            with tf.control_dependencies([check]):
                return {"y": tf.identity(x)}

        @tf.function(input_signature=[spec(tf.int32)])
        def spin(self, steps):
            # Long work in small ops, as decoding is.
            a = tf.while_loop(
                lambda i, a: i < tf.reduce_max(steps),
                lambda i, a: (i + 1, tf.tanh(a @ a)),
                [tf.constant(0), tf.eye(60)],
            )[1]
            return {"steps": steps + tf.cast(0.0 * tf.reduce_sum(a), tf.int32)}

        @tf.function(input_signature=[spec(tf.float32)])
        def which(self, x):
            return {"version": tf.fill(tf.shape(x), version)}

        @tf.function(input_signature=[spec(tf.float32)])
        def odd(self, x):
            return {"whole": tf.reduce_sum(x), "not_utf8": tf.fill([1], b"a\xff")}

        @tf.function(input_signature=[spec(tf.bfloat16)])
        def brief(self, x):
            return {"y": x}

    return Toy()


@pytest.fixture(scope="session")
def write_version(tmp_path_factory) -> Callable[[pathlib.Path, int], pathlib.Path]:
    """Returns a function that renames a complete version folder into place."""
    import numpy as np
    import tensorflow as tf

    from keras_llm.core.prediction_log import WARMUP_PATH, write_warmup

    made: dict[int, pathlib.Path] = {}

    def write(base: pathlib.Path, version: int) -> pathlib.Path:
        if version not in made:
            folder = tmp_path_factory.mktemp("made") / str(version)
            toy = toy_module(tf, version)
            names = ("echo", "types", "guarded", "spin", "which", "odd", "brief")
            signatures = {name: getattr(toy, name) for name in names}
            tf.saved_model.save(
                toy, folder, {"serving_default": toy.half, **signatures}
            )
            write_warmup(
                folder / WARMUP_PATH,
                [("", {"x": np.zeros(2, "f4")}), ("echo", {"text": np.array([b"a"])})],
            )
            made[version] = folder
        temporary = base / f".{version}.tmp"
        shutil.copytree(made[version], temporary)
        return temporary.rename(base / str(version))

    return write


class Anew(subprocess.Popen):
    """A script in a Python that is started, and torn down, for it alone."""

    def __init__(self, script, *arguments, stderr):
        self._stdout = tempfile.TemporaryFile()
        super().__init__(
            [sys.executable, script, *arguments],
            stdout=self._stdout,
            stderr=stderr,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )

    @property
    def output(self):
        """What the script has written to standard output by now."""
        return os.pread(self._stdout.fileno(), 1_000, 0).decode()


@dataclasses.dataclass
class Server:
    """A running server and a client for it."""

    process: Forked | Anew
    port: int
    base: pathlib.Path
    stderr: pathlib.Path

    def ask(
        self, path: str, body: Any = None, method: str | None = None, **headers: str
    ) -> tuple[int, Any, dict[str, str]]:
        """Returns status, parsed body and headers. Bytes are sent as they are."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        with contextlib.closing(connection):
            data = body
            if body is not None and not isinstance(body, bytes):
                data = json.dumps(body).encode()
            names = {name.replace("_", "-"): text for name, text in headers.items()}
            verb = method or ("GET" if body is None else "POST")
            connection.request(verb, path, data, names)
            reply = connection.getresponse()
            content = reply.read()
            found = {name.lower(): text for name, text in reply.getheaders()}
        if found.get("content-type") == "application/json":
            return reply.status, json.loads(content), found
        return reply.status, content.decode(), found

    def predict(self, body: Any, **headers: str) -> tuple[int, Any]:
        """Returns status and parsed body of a predict request."""
        return self.ask("/v1/models/toy:predict", body, **headers)[:2]

    def column(self, signature: str, **inputs: Any) -> tuple[int, Any]:
        """Returns status and outputs, or error, of a request in column format."""
        status, reply = self.predict({"signature_name": signature, "inputs": inputs})
        return status, reply.get("outputs", reply.get("error"))

    def versions(self) -> dict[str, dict[str, Any]]:
        """Returns the status of every version by its number."""
        listed = self.ask("/v1/models/toy")[1]["model_version_status"]
        return {entry["version"]: entry for entry in listed}


@contextlib.contextmanager
def running(
    base: pathlib.Path, *flags: str, start: type[Forked | Anew] = Forked
) -> Iterator[Server]:
    """Yields a server in a process of its own, ended by SIGTERM with success."""
    stderr = base.parent / f"{base.name}.stderr"
    with open(stderr, "w") as errors:
        process = start(
            ROOT / "scripts" / "serve.py",
            "--model_name=toy",
            f"--model_base_path={base}",
            "--rest_api_port=0",
            *flags,
            stderr=errors,
        )
    try:
        while not (line := process.output).endswith("\n") and process.poll() is None:
            time.sleep(0.01)
        assert line.startswith("Serving toy at http://127.0.0.1:"), stderr.read_text()
        port = int(line.split(":")[2].partition("/")[0])
        yield Server(process, port, base, stderr)
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=60) == 0, stderr.read_text()
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="session")
def server(tmp_path_factory, write_version) -> Iterator[Server]:
    """One server for all tests that leave it as it was."""
    base = tmp_path_factory.mktemp("served") / "toy"
    base.mkdir()
    write_version(base, 1).rename(base / "00000123")
    with running(
        base, "--max_body_bytes=1048576", "--max_string_bytes=5000"
    ) as started:
        yield started


@pytest.fixture(scope="session")
def start_server():
    """The context manager that runs a server of another model."""
    return running


@pytest.fixture(scope="session")
def start_server_anew():
    """The same, for tests of how a server ends."""
    return functools.partial(running, start=Anew)
