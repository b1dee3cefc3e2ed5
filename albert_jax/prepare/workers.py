"""An ordered, lazy `map` over worker processes, which never outlive their parent."""

import collections
import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import connection

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextlib.contextmanager
def worker_pool(
    num_workers: int, initializer: Callable[..., None] | None = None, args: tuple = ()
) -> Iterator[Callable[[Callable, Iterable], Iterator]]:
    """Yields a `map` over worker processes: in order, lazy, with few items in flight.

    Args:
      num_workers: the number of processes; 1 works in this process.
      initializer: called once in every worker.
      args: the initializer's arguments.
    """
    if num_workers == 1:
        if initializer:
            initializer(*args)
        yield map
        return
    # Spawned instead of forked, because the caller may run threads (JAX, TFDS) that do not survive
    # a fork.
    pool = ProcessPoolExecutor(
        num_workers, multiprocessing.get_context("spawn"), _start_worker, (initializer, args)
    )

    def run(function: Callable, items: Iterable) -> Iterator:
        waiting: collections.deque = collections.deque()
        for item in items:
            with _signals_put_off():
                waiting.append(pool.submit(function, item))
            if len(waiting) > 2 * num_workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()

    try:
        yield run
    finally:
        pool.shutdown(cancel_futures=True)


@contextlib.contextmanager
def _signals_put_off() -> Iterator[None]:
    """Defers SIGINT and SIGTERM, which would leave a half-started worker behind."""
    if threading.current_thread() is not threading.main_thread():
        yield  # signals are handled in the main thread only
        return
    came: list[int] = []
    handlers = {s: signal.signal(s, lambda number, _: came.append(number)) for s in STOP_SIGNALS}
    # A worker inherits the mask, so Ctrl-C in a terminal does not end it before it is set up.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for number, handler in handlers.items():
            signal.signal(number, handler)
        for number in came[:1]:
            signal.raise_signal(number)


def _start_worker(initializer: Callable[..., None] | None, args: tuple) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the main process decides when workers stop
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
    threading.Thread(target=_follow_parent, daemon=True).start()
    if initializer:
        initializer(*args)


def _follow_parent() -> None:
    """Ends this worker when its parent process is gone, for whatever reason."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)
