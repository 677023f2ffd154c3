"""What the benchmarks measure with: one core, the spread of rounds, the memory of a tree of processes."""

from __future__ import annotations

import os
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psutil
from threadpoolctl import threadpool_limits

_LOOK_SECONDS = 0.2


def spread(values: list[float], digits: int = 2) -> str:
    """Median, and between which values the rounds lay."""
    return f"{statistics.median(values):,.{digits}f} ({min(values):,.{digits}f} – {max(values):,.{digits}f})"


def timed(action: Callable[[], object]) -> float:
    """Seconds."""
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


@contextmanager
def one_core() -> Iterator[None]:
    """This process, and those that it starts in the meantime, on one core with one thread of BLAS."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(cores)})
    try:
        with threadpool_limits(1):
            yield
    finally:
        os.sched_setaffinity(0, cores)


class PeakMemory:
    """The largest `of` the resident MiB of this process and its descendants, by name, while the context is open.

    Shared pages count in each process (RSS).
    """

    mebibytes = 0.0

    def __init__(self, of: Callable[[list[tuple[str, float]]], float]) -> None:
        self._of = of

    def __enter__(self) -> PeakMemory:
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        me = psutil.Process()
        while not self._stop.wait(_LOOK_SECONDS):
            found = []
            for process in [me, *me.children(recursive=True)]:
                try:
                    found.append((process.name(), process.memory_info().rss / 2**20))
                except psutil.Error:
                    continue
            self.mebibytes = max(self.mebibytes, self._of(found))
