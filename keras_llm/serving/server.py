"""The server's process: from options to a served model, and to its end."""

import asyncio
import contextlib
import dataclasses
import gc
import logging
import os
import pathlib
import signal
import socket
import sys
import time
from collections.abc import Iterator

import uvicorn

from keras_llm.core import checks
from keras_llm.core.config import Config
from keras_llm.serving.bodies import ByteBudget
from keras_llm.serving.model import Model
from keras_llm.serving.rest_api import ApiLimits, RestApi
from keras_llm.serving.tensors import Limits
from keras_llm.serving.versions import Versions
from keras_llm.serving.workers import WorkerPool

_log = logging.getLogger(__name__)
_MIB = 2**20


@dataclasses.dataclass(frozen=True, kw_only=True)
class ServerOptions(Config):
    """What to serve, where, and within which bounds.

    Where TF Serving has a flag for it, the field has the flag's name and default.
    """

    model_base_path: str
    model_name: str = "default"
    rest_api_host: str = "127.0.0.1"
    rest_api_port: int = 8501  # 0 takes a free one.
    rest_api_timeout_in_ms: int = 30_000
    rest_api_num_threads: int = 0  # Requests that run at one time; 0: one per core.
    file_system_poll_wait_seconds: float = 1  # 0 never looks again.
    enable_model_warmup: bool = True
    xla_cpu_compilation_enabled: bool = False
    max_waiting_requests: int = 64
    max_batch_rows: int = 64
    max_string_bytes: int = 1 * _MIB
    max_body_bytes: int = 8 * _MIB
    max_body_bytes_in_flight: int = 64 * _MIB  # Over all requests.

    def __post_init__(self):
        if not self.model_name or set(self.model_name) & set("/:"):
            raise ValueError(
                "`model_name` stands in URLs, so it must be neither empty nor hold "
                f"'/' or ':'. Received: model_name={self.model_name!r}."
            )
        checks.check_in_range("rest_api_port", self.rest_api_port, 0, 65_535)
        checks.check_not_negative("rest_api_num_threads", self.rest_api_num_threads)
        checks.check_not_negative(
            "file_system_poll_wait_seconds", self.file_system_poll_wait_seconds
        )
        checks.check_not_negative("max_waiting_requests", self.max_waiting_requests)
        for name in (
            "rest_api_timeout_in_ms",
            "max_batch_rows",
            "max_string_bytes",
            "max_body_bytes",
        ):
            checks.check_positive(name, getattr(self, name))
        if not self.max_body_bytes_in_flight >= self.max_body_bytes:
            raise ValueError(
                "`max_body_bytes_in_flight` must hold one body at least. Received: "
                f"max_body_bytes_in_flight={self.max_body_bytes_in_flight}, "
                f"max_body_bytes={self.max_body_bytes}. Raise the first."
            )


def serve(options: ServerOptions) -> None:
    """Serves a model until SIGTERM or SIGINT, then finishes what has begun.

    When the model is loaded and the port is open, one line on standard output says
    where: `Serving NAME at http://HOST:PORT/v1/models/NAME`.

    Raises:
        ValueError: The base path holds no version, or the highest cannot be loaded.
        OSError: The address cannot be bound.
    """
    versions = Versions(
        pathlib.Path(options.model_base_path),
        lambda folder, version: _load(folder, version, options),
    )
    versions.highest()  # Mistakes show before TensorFlow's seconds of import.
    listener = _bind(options.rest_api_host, options.rest_api_port)
    with contextlib.closing(listener):
        _import_tensorflow()
        versions.start()
        workers = WorkerPool(
            options.rest_api_num_threads or os.cpu_count() or 1,
            options.max_waiting_requests,
        )
        api = RestApi(
            options.model_name,
            versions,
            workers,
            ByteBudget(options.max_body_bytes_in_flight),
            ApiLimits(
                timeout_seconds=options.rest_api_timeout_in_ms / 1000,
                body_bytes=options.max_body_bytes,
                request=Limits(options.max_batch_rows, options.max_string_bytes),
            ),
        )
        if options.file_system_poll_wait_seconds:
            versions.watch(options.file_system_poll_wait_seconds)
        _Server(options, api).run(sockets=[listener])
    if not (versions.stop() and workers.idle):
        # A load, or a run beyond its deadline, is still inside TensorFlow. Python
        # cannot end such a thread, and would crash while it tears itself down.
        sys.stdout.flush()
        logging.shutdown()
        os._exit(0)


class _Server(uvicorn.Server):
    """uvicorn, which tells when it listens and ends a drain with success."""

    def __init__(self, options: ServerOptions, api: RestApi):
        super().__init__(
            uvicorn.Config(
                api.app(),
                http="h11",
                ws="none",
                lifespan="off",
                log_level="warning",
                log_config=None,
                access_log=False,
                server_header=False,
                # All requests have ended by their own deadlines before this.
                timeout_graceful_shutdown=options.rest_api_timeout_in_ms // 1000 + 5,
            )
        )
        self._options = options
        self._api = api

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        assert sockets
        host, port = sockets[0].getsockname()[:2]
        host = f"[{host}]" if ":" in host else host
        name = self._options.model_name
        print(f"Serving {name} at http://{host}:{port}/v1/models/{name}", flush=True)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Drains on a signal; uvicorn itself would end by raising it again."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._drain)
        yield

    def _drain(self) -> None:
        _log.info("Finishing the requests that have begun.")
        self._api.draining = True
        self.should_exit = True


def _import_tensorflow() -> None:
    """Imports TensorFlow and tells the garbage collector to leave it alone.

    Half a second, in which no request is answered, goes into each full collection
    otherwise; there is one after every change of version.
    """
    import tensorflow  # noqa: F401

    gc.collect()
    gc.freeze()


def _bind(host: str, port: int) -> socket.socket:
    """Returns a socket that has its port, but refuses connections until it listens."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # With the protocol named, asyncio turns off the delay of small packets.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise OSError(
            f"The address cannot be used: {error.strerror or error}. Received: "
            f"rest_api_host={host}, rest_api_port={port}. Choose another port, or 0 "
            "for a free one."
        ) from error
    return listener


def _load(folder: pathlib.Path, version: int, options: ServerOptions) -> Model:
    started = time.monotonic()
    model = Model(folder, version, options.xla_cpu_compilation_enabled)
    replayed = model.warm_up(folder) if options.enable_model_warmup else 0
    _log.info(
        "Loaded version %d in %.1f s with %d warm-up requests.",
        version,
        time.monotonic() - started,
        replayed,
    )
    return model
