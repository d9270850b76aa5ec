"""A bounded queue before a few threads: work is refused rather than piled up."""

import asyncio
import collections
import threading
from collections.abc import Callable
from typing import Any

from keras_llm.serving.errors import Code, RequestError


class Job:
    """One call that a worker thread will make; `future` gets what it returns."""

    def __init__(self, call: Callable[[], Any]):
        self.call: Callable[[], Any] = call
        self._loop = asyncio.get_running_loop()
        self.future: asyncio.Future[Any] = self._loop.create_future()

    def run(self) -> tuple[Any, Exception | None]:
        """Makes the call in this thread; returns its result or its error."""
        try:
            return self.call(), None
        except Exception as error:
            return None, error

    def deliver(self, result: Any, error: Exception | None) -> None:
        """Hands the outcome to the event loop."""
        try:
            self._loop.call_soon_threadsafe(self._finish, result, error)
        except RuntimeError:
            pass  # The loop is closed: nobody waits any more.

    def _finish(self, result: Any, error: Exception | None) -> None:
        if self.future.done():
            return
        if error is None:
            self.future.set_result(result)
        else:
            self.future.set_exception(error)


class WorkerPool:
    """Threads that take jobs in order.

    The threads are daemons: one that TensorFlow does not give back cannot keep the
    process from ending.

    Args:
        num_threads: Calls made at one time.
        max_waiting: Jobs that may wait for a thread; one more is refused.
    """

    def __init__(self, num_threads: int, max_waiting: int):
        self._max_waiting = max_waiting
        self._waiting: collections.deque[Job] = collections.deque()
        self._condition = threading.Condition()
        self._busy = 0
        self._num_threads = num_threads
        for i in range(num_threads):
            threading.Thread(target=self._work, name=f"worker-{i}", daemon=True).start()

    def submit(self, call: Callable[[], Any]) -> Job:
        """Queues a call, to be awaited by its `future` in the running event loop.

        Raises:
            RequestError: All threads are busy and the queue is full (503).
        """
        with self._condition:
            idle = self._num_threads - self._busy
            if not len(self._waiting) < self._max_waiting + idle:
                raise RequestError(
                    f"The server is busy: {len(self._waiting)} requests wait already. "
                    "Try again later.",
                    Code.UNAVAILABLE,
                    retry_after=1,
                )
            job = Job(call)
            self._waiting.append(job)
            self._condition.notify()
        return job

    def abandon(self, job: Job) -> None:
        """Takes a job out of the queue; one that runs already goes on unheard."""
        job.future.cancel()
        with self._condition:
            if job in self._waiting:
                self._waiting.remove(job)

    @property
    def idle(self) -> bool:
        """Whether no thread makes a call."""
        return not self._busy

    def _work(self) -> None:
        while True:
            with self._condition:
                while not self._waiting:
                    self._condition.wait()
                job = self._waiting.popleft()
                self._busy += 1
            outcome = job.run()
            # Before the client can know: it may send its next request at once.
            with self._condition:
                self._busy -= 1
            job.deliver(*outcome)
            del job, outcome  # Arrays and model are not kept until the next job.
