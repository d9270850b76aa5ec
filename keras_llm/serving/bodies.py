"""Reading a request's body within bounds, before any of it is understood."""

import contextlib
import zlib
from collections.abc import Iterator

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from keras_llm.serving.errors import Code, RequestError

_CHUNK = 64 * 2**10


class ByteBudget:
    """How many bytes of requests may be held at one time, over all connections.

    Args:
        total_bytes: The budget.
    """

    def __init__(self, total_bytes: int):
        self._left = total_bytes

    @contextlib.contextmanager
    def share(self) -> Iterator["Share"]:
        """Yields one request's share; what it took is given back at the end."""
        share = Share(self)
        try:
            yield share
        finally:
            self._left += share.taken

    def take(self, count: int) -> None:
        """Takes `count` bytes.

        Raises:
            RequestError: They are not left; others must finish first (503).
        """
        if not count <= self._left:
            raise RequestError(
                "The server holds as many request bytes as it may. Try again later.",
                Code.UNAVAILABLE,
                retry_after=1,
            )
        self._left -= count


class Share:
    """What one request has taken from a budget."""

    def __init__(self, budget: ByteBudget):
        self._budget = budget
        self.taken = 0

    def take(self, count: int) -> None:
        """Takes `count` bytes more."""
        self._budget.take(count)
        self.taken += count


async def read_body(request: Request, share: Share, max_bytes: int) -> bytes:
    """Returns a request's body, inflated if it is in gzip.

    The size is known before memory is given to it: a declared length is checked
    before anything is read, and a gzip body is measured before it is inflated.

    Args:
        request: The request, of which nothing has been read.
        share: Takes the body's bytes from the budget of all requests.
        max_bytes: The limit for the body, as it comes and as inflated.

    Raises:
        RequestError: The body is larger (413), in an encoding other than gzip (415),
            or not in gzip although it says so (400).
    """
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("identity", "gzip", ""):
        raise RequestError(
            "A body may be sent as it is or in gzip. Received another "
            "Content-Encoding.",
            http_status=415,
        )
    declared = request.headers.get("content-length", "0")
    if declared.isdecimal() and not int(declared) <= max_bytes:
        raise _too_large(max_bytes)
    chunks: list[bytes] = []
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if not size <= max_bytes:
            raise _too_large(max_bytes)
        share.take(len(chunk))
        chunks.append(chunk)
    body = b"".join(chunks)
    if encoding != "gzip":
        return body
    share.take(await run_in_threadpool(inflated_size, body, max_bytes))
    return await run_in_threadpool(lambda: b"".join(_inflate(body)))


def inflated_size(body: bytes, max_bytes: int) -> int:
    """Returns the size of a gzip body's content, without keeping any of it.

    >>> import gzip
    >>> inflated_size(gzip.compress(b"a" * 1000), max_bytes=1000)
    1000
    """
    size = 0
    for chunk in _inflate(body):
        size += len(chunk)
        if not size <= max_bytes:
            raise _too_large(max_bytes)
    return size


def _inflate(body: bytes) -> Iterator[bytes]:
    """Yields the content of a gzip body, a bounded piece at a time."""
    member = None
    for start in range(0, len(body), _CHUNK):
        rest, more = body[start : start + _CHUNK], True
        while rest or more:
            member = member or zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
            try:
                piece = member.decompress(rest, _CHUNK)
            except zlib.error:
                raise RequestError("The body is not in gzip, as it says.") from None
            yield piece
            rest = member.unconsumed_tail
            # A full piece may have left more behind, in the decompressor itself.
            more = len(piece) == _CHUNK
            if member.eof:
                rest, more, member = member.unused_data, False, None
    if member is not None:
        raise RequestError("The gzip body ends too early.")


def _too_large(max_bytes: int) -> RequestError:
    return RequestError(
        f"A request's body may hold {max_bytes:,} bytes at most, inflated as well.",
        http_status=413,
    )
