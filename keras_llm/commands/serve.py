r"""Serves an exported model over TensorFlow Serving's REST API.

The highest numeric folder below the base path is served; a new one takes over as
soon as it appears. SIGTERM finishes the requests that have begun, then ends.

Example: python scripts/serve.py --model_name=whale --model_base_path=exports/whale
    curl -d '{"instances": ["Call me"]}' \
    http://127.0.0.1:8501/v1/models/whale:predict
"""

from absl import app, flags

_MODEL_BASE_PATH = flags.DEFINE_string(
    "model_base_path", None, "Folder of version folders.", required=True
)
_MODEL_NAME = flags.DEFINE_string("model_name", "default", "Name in the URLs.")
_REST_API_HOST = flags.DEFINE_string(
    "rest_api_host", "127.0.0.1", "Address to listen at; 0.0.0.0 for every one."
)
_REST_API_PORT = flags.DEFINE_integer(
    "rest_api_port", 8501, "Port; 0 takes a free one, which the first line names."
)
_REST_API_TIMEOUT_IN_MS = flags.DEFINE_integer(
    "rest_api_timeout_in_ms", 30_000, "Milliseconds after which a request gets 504."
)
_REST_API_NUM_THREADS = flags.DEFINE_integer(
    "rest_api_num_threads", 0, "Requests that run at one time; 0 is one per core."
)
_FILE_SYSTEM_POLL_WAIT_SECONDS = flags.DEFINE_float(
    "file_system_poll_wait_seconds",
    1,
    "Seconds between looks for new versions; 0 never looks again.",
)
_ENABLE_MODEL_WARMUP = flags.DEFINE_bool(
    "enable_model_warmup", True, "Replay a version's warm-up requests."
)
_XLA_CPU_COMPILATION_ENABLED = flags.DEFINE_bool(
    "xla_cpu_compilation_enabled", False, "Accept models exported with --jit."
)
_MAX_WAITING_REQUESTS = flags.DEFINE_integer(
    "max_waiting_requests", 64, "Requests that may wait; one more gets 503."
)
_MAX_BATCH_ROWS = flags.DEFINE_integer("max_batch_rows", 64, "Rows of a request.")
_MAX_STRING_BYTES = flags.DEFINE_integer(
    "max_string_bytes", 2**20, "Bytes of one string, such as a prompt."
)
_MAX_BODY_BYTES = flags.DEFINE_integer(
    "max_body_bytes", 8 * 2**20, "Bytes of a request's body, inflated."
)
_MAX_BODY_BYTES_IN_FLIGHT = flags.DEFINE_integer(
    "max_body_bytes_in_flight", 64 * 2**20, "Bytes of all requests' bodies."
)


def main(argv: list[str]) -> None:
    """Serves until a signal ends it."""
    if len(argv) > 1:
        raise app.UsageError(f"Unexpected arguments: {argv[1:]}.")
    from keras_llm.serving import ServerOptions, serve

    serve(
        ServerOptions(
            model_base_path=_MODEL_BASE_PATH.value,
            model_name=_MODEL_NAME.value,
            rest_api_host=_REST_API_HOST.value,
            rest_api_port=_REST_API_PORT.value,
            rest_api_timeout_in_ms=_REST_API_TIMEOUT_IN_MS.value,
            rest_api_num_threads=_REST_API_NUM_THREADS.value,
            file_system_poll_wait_seconds=_FILE_SYSTEM_POLL_WAIT_SECONDS.value,
            enable_model_warmup=_ENABLE_MODEL_WARMUP.value,
            xla_cpu_compilation_enabled=_XLA_CPU_COMPILATION_ENABLED.value,
            max_waiting_requests=_MAX_WAITING_REQUESTS.value,
            max_batch_rows=_MAX_BATCH_ROWS.value,
            max_string_bytes=_MAX_STRING_BYTES.value,
            max_body_bytes=_MAX_BODY_BYTES.value,
            max_body_bytes_in_flight=_MAX_BODY_BYTES_IN_FLIGHT.value,
        )
    )
