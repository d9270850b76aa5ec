"""Counts and latencies in Prometheus' text format, under TF Serving's names."""

import bisect
import collections
import itertools
import threading

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_COUNT = ":tensorflow:serving:request_count"
_LATENCY = ":tensorflow:serving:request_latency"
# Microseconds, each 1.8 times the one before, from 10 microseconds to 16 minutes.
_BOUNDS = [10 * 1.8**i for i in range(32)]


class Metrics:
    """What the server has answered since it started, for one model.

    Args:
        model_name: The label of every figure.
    """

    def __init__(self, model_name: str):
        escaped = model_name.replace("\\", "\\\\").replace('"', '\\"')
        self._model = f'model_name="{escaped}"'
        self._lock = threading.Lock()
        self._counts: collections.Counter[str] = collections.Counter()
        self._buckets = [0] * (len(_BOUNDS) + 1)
        self._sum = 0.0

    def observe(self, status: str, seconds: float) -> None:
        """Counts one answered request, by the name of its code, such as "OK"."""
        microseconds = seconds * 1e6
        with self._lock:
            self._counts[status] += 1
            self._buckets[bisect.bisect_left(_BOUNDS, microseconds)] += 1
            self._sum += microseconds

    def text(self) -> str:
        """Returns the figures as Prometheus reads them."""
        with self._lock:
            counts, total = sorted(self._counts.items()), self._sum
            cumulative = list(itertools.accumulate(self._buckets))
        labels = f'{self._model},API="Predict",entrypoint="REST"'
        bounds = [*(f"{bound:.6g}" for bound in _BOUNDS), "+Inf"]
        return "\n".join(
            [
                f"# TYPE {_COUNT} counter",
                *(
                    f'{_COUNT}{{{self._model},status="{status}"}} {count}'
                    for status, count in counts
                ),
                f"# TYPE {_LATENCY} histogram",
                *(
                    f'{_LATENCY}_bucket{{{labels},le="{bound}"}} {count}'
                    for bound, count in zip(bounds, cumulative, strict=True)
                ),
                f"{_LATENCY}_sum{{{labels}}} {total:.0f}",
                f"{_LATENCY}_count{{{labels}}} {cumulative[-1]}",
                "",
            ]
        )
