"""The one kind of error that a client sees, and where it gets its status code."""

import enum
import re


class Code(enum.Enum):
    """gRPC's codes by number, each with the HTTP status that TF Serving gives it."""

    CANCELLED = (1, 499)
    UNKNOWN = (2, 500)
    INVALID_ARGUMENT = (3, 400)
    DEADLINE_EXCEEDED = (4, 504)
    NOT_FOUND = (5, 404)
    ALREADY_EXISTS = (6, 409)
    PERMISSION_DENIED = (7, 403)
    RESOURCE_EXHAUSTED = (8, 429)
    FAILED_PRECONDITION = (9, 400)
    ABORTED = (10, 409)
    OUT_OF_RANGE = (11, 400)
    UNIMPLEMENTED = (12, 501)
    INTERNAL = (13, 500)
    UNAVAILABLE = (14, 503)
    DATA_LOSS = (15, 500)
    UNAUTHENTICATED = (16, 401)

    @property
    def number(self) -> int:
        """The code's number in gRPC and in TensorFlow."""
        return self.value[0]

    @property
    def http_status(self) -> int:
        """The HTTP status of a reply with this code."""
        return self.value[1]


class RequestError(Exception):
    """A request that cannot be answered, with the text that its sender reads.

    Args:
        message: The reply's `error`.
        code: What kind of error it is; by default the sender's own fault.
        http_status: The status, where HTTP has one that fits better than the code's.
        retry_after: Seconds after which trying again is worth it.
    """

    def __init__(
        self,
        message: str,
        code: Code = Code.INVALID_ARGUMENT,
        http_status: int | None = None,
        retry_after: int | None = None,
    ):
        super().__init__(message)
        self.message = message
        self.code = code
        self.http_status = http_status or code.http_status
        self.retry_after = retry_after


_BY_NUMBER = {code.number: code for code in Code}
# What TensorFlow puts around the words of the op that failed.
_NOISE = re.compile(
    r"Graph execution error:\s*"
    r"|Detected at node .*?(?:<stack traces unavailable>\n?|\Z)"
    r"|\{\{function_node [^}]*\}\}\s*"
    r"|\s*\[\[\{\{node .*"
    r"|\s*\[Op:[^\]]*\]"
    r"|\s*\d+ successful operations\..*"
    r"|\(\d+\) [A-Z_ ]+:\s*",
    re.DOTALL,
)
_LONGEST = 2_000


def from_tensorflow(number: int, message: str) -> RequestError:
    r"""Returns what a client may know of a TensorFlow error.

    Names of nodes, devices and source files are cut off; what remains are the
    words of the op, such as those of a failed assertion.

    Args:
        number: `error_code` of a `tf.errors.OpError`.
        message: Its `message`.

    >>> error = from_tensorflow(3, "Graph execution error:\n\nassertion failed: "
    ...     "[too hot:] [99]\n\t [[{{node Assert}}]]")
    >>> error.message, error.http_status
    ('assertion failed: [too hot:] [99]', 400)
    """
    code = _BY_NUMBER.get(number, Code.UNKNOWN)
    words = _NOISE.sub("", message).strip()
    return RequestError(words[:_LONGEST] or code.name, code)
