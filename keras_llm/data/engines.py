"""What runs a function over many parts of a corpus: this process, others, or Dask.

An engine is a context manager; `map` gives the results in the order of the items,
whichever is done first, so that what is written does not depend on the engine. The
functions and items travel to other processes by pickle, and read and write files that
every one of them must see under the same path.
"""

import concurrent.futures
import multiprocessing
import types
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol, Self

from keras_llm.core import checks


class Engine(Protocol):
    """Runs a function over items, in order."""

    def __enter__(self) -> Self:
        """Starts what runs them."""

    def __exit__(self, *error: object) -> None:
        """Ends it."""

    def map(
        self, function: Callable[[Any], Any], items: Iterable[Any]
    ) -> Iterator[Any]:
        """Yields function(item) in the order of the items; the first error ends it."""


class Local:
    """This machine.

    Args:
        processes: How many; 1 stays in this process.

    Raises:
        ValueError: `processes` is below 1.

    >>> with Local() as engine:
    ...     list(engine.map(abs, [-2, 1]))
    [2, 1]
    """

    def __init__(self, processes: int = 1):
        checks.check_positive("processes", processes)
        self._processes = processes
        self._pool: concurrent.futures.ProcessPoolExecutor | None = None

    def __enter__(self) -> Self:
        if self._processes > 1:
            # Not forked: TensorFlow's threads do not survive that.
            self._pool = concurrent.futures.ProcessPoolExecutor(
                self._processes, multiprocessing.get_context("spawn")
            )
        return self

    def __exit__(self, *error: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None

    def map(
        self, function: Callable[[Any], Any], items: Iterable[Any]
    ) -> Iterator[Any]:
        """Yields function(item) in the order of the items."""
        return (
            map(function, items)
            if self._pool is None
            else self._pooled(function, items)
        )

    def _pooled(self, function, items):
        assert self._pool is not None
        try:
            yield from self._pool.map(function, items)
        except concurrent.futures.process.BrokenProcessPool as error:
            raise RuntimeError(
                "A process that worked on the corpus was ended from outside, most "
                f"often for want of memory. Received: {self._processes} processes. "
                "Run fewer of them, or free some memory."
            ) from error


class Dask:
    """Dask: processes of its own on this machine, or a cluster that is running.

    Args:
        scheduler: Address of a cluster's scheduler, such as "tcp://10.0.0.1:8786",
            whose workers have this package; None for a cluster on this machine.
        processes: Workers of the latter.

    Raises:
        ImportError: Dask is not installed.
        OSError: No scheduler answers.
    """

    def __init__(self, scheduler: str | None = None, processes: int = 2):
        checks.check_positive("processes", processes)
        self._scheduler, self._processes = scheduler, processes
        self._client: Any = None

    def __enter__(self) -> Self:
        distributed = _imported_distributed()
        if self._scheduler is None:
            self._client = distributed.Client(
                n_workers=self._processes,
                threads_per_worker=1,
                dashboard_address="127.0.0.1:0",
            )
        else:
            try:
                self._client = distributed.Client(self._scheduler, timeout="30s")
            except (OSError, ValueError) as error:
                raise OSError(
                    "The scheduler of a running Dask cluster is wanted, such as "
                    f"tcp://10.0.0.1:8786. Received: {self._scheduler}, which did not "
                    f"answer in 30 s ({error}). Start one with `dask scheduler`."
                ) from error
        return self

    def __exit__(self, *error: object) -> None:
        self._client.close()
        self._client = None

    def map(
        self, function: Callable[[Any], Any], items: Iterable[Any]
    ) -> Iterator[Any]:
        """Yields function(item) in the order of the items."""
        # Pure work may be run again where a worker is lost: files are replaced whole.
        futures = self._client.map(function, list(items), pure=False)
        for future in futures:
            yield future.result()


def _imported_distributed() -> types.ModuleType:
    try:
        import distributed
    except ImportError:
        raise ImportError(
            "This engine is Dask. Received: engine=dask, without it. Install it: "
            "pip install 'keras_llm[corpus]'."
        ) from None
    return distributed
