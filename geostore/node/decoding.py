"""Threads that decode: compiled decoders let go of the interpreter, so rasters of several groups go side by side."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


class Decoding:
    """The threads of one node, begun when there is work for several; 0 threads means one for each core."""

    def __init__(self, threads: int) -> None:
        self.threads = threads or os.cpu_count() or 1
        self._pool: ThreadPoolExecutor | None = None
        self._beginning = threading.Lock()

    def map(self, tasks: Sequence[Callable[[], T]]) -> Iterator[T]:
        """What each task gives, in order; the rest is not begun once one fails or the caller asks no further."""
        if min(self.threads, len(tasks)) < 2:
            for task in tasks:
                yield task()
            return
        pool = self._begun()
        begun = deque(pool.submit(task) for task in tasks)
        try:
            while begun:
                yield begun.popleft().result()
        finally:
            for future in begun:
                future.cancel()

    def _begun(self) -> ThreadPoolExecutor:
        with self._beginning:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(self.threads, thread_name_prefix="decode")
            return self._pool

    def close(self) -> None:
        """Let go of the threads."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
