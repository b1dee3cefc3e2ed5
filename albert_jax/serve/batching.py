"""Dynamic batching: requests that wait together are computed together."""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, NamedTuple


class OverloadedError(Exception):
    """As many requests wait as may."""


class _Waiting(NamedTuple):
    request: Any
    size: int
    result: asyncio.Future


class Batcher:
    """Runs requests in batches, one batch at a time, in a thread of its own.

    While a batch runs, later requests wait and make the next one, so batches grow with the load
    and a lone request is not held up. A request whose caller has gone is left out.
    """

    def __init__(
        self,
        run: Callable[[Sequence[Any]], list[Any]],
        max_batch: int,
        max_wait: float,
        max_waiting: int,
        observe: Callable[[int], None] = lambda size: None,
    ):
        """Keeps the settings; `work` must run for `submit` to return.

        Args:
          run: from requests to a result for each, which may be an exception.
          max_batch: texts in a batch; a request with more has a batch of its own.
          max_wait: seconds that the first of a batch waits for others.
          max_waiting: requests that may wait.
          observe: is told the number of texts in each batch.
        """
        self._run, self._max_batch, self._max_wait = run, max_batch, max_wait
        self._queue: asyncio.Queue[_Waiting] = asyncio.Queue()
        self._next: _Waiting | None = None  # taken from the queue, but too large for the batch
        # Those in the queue whose callers are still there.
        self._waiting: set[asyncio.Future] = set()
        self._max_waiting, self._observe = max_waiting, observe

    @property
    def waiting(self) -> int:
        """The number of requests that wait."""
        return len(self._waiting)

    async def submit(self, request: Any, size: int) -> Any:
        """Returns the result of a request of `size` texts.

        Raises:
          OverloadedError: if too many wait.
          Exception: what the request's result is, if it is one.
        """
        if self.waiting >= self._max_waiting:
            raise OverloadedError
        result = asyncio.get_running_loop().create_future()
        self._waiting.add(result)
        result.add_done_callback(self._waiting.discard)
        self._queue.put_nowait(_Waiting(request, size, result))
        return await result

    async def work(self) -> None:
        """Runs batches until it is cancelled."""
        loop = asyncio.get_running_loop()
        with ThreadPoolExecutor(1, "model") as executor:
            while True:
                batch = await self._take()
                self._waiting.difference_update(one.result for one in batch)
                self._observe(sum(one.size for one in batch))
                requests = [one.request for one in batch]
                try:
                    results = await loop.run_in_executor(executor, self._run, requests)
                except Exception as error:  # the server goes on
                    results = [error] * len(batch)
                for one, result in zip(batch, results, strict=True):
                    _settle(one.result, result)

    async def _take(self) -> list[_Waiting]:
        """Returns the next batch, as soon as there is a request and `max_wait` is over."""
        first = self._next or await self._queue.get()
        self._next = None
        batch, size = [], 0
        one: _Waiting | None = first
        with suppress(TimeoutError):
            async with asyncio.timeout(self._max_wait):
                while one is not None:
                    if batch and size + one.size > self._max_batch:
                        self._next, one = one, None
                        break
                    if not one.result.done():  # its caller is still there
                        batch.append(one)
                        size += one.size
                    one = None
                    if size >= self._max_batch:
                        break
                    one = await self._queue.get()
        return batch or await self._take()


def _settle(future: asyncio.Future, result: Any) -> None:
    if future.done():
        return
    if isinstance(result, Exception):
        future.set_exception(result)
    else:
        future.set_result(result)
