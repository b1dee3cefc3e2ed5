"""Dynamic batching: everything is answered once, in batches that grow with the load."""

import asyncio
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from albert_jax.serve.batching import Batcher, OverloadedError


def run(main):
    return asyncio.run(main)


class Working:
    """A batcher at work, for the time of a context."""

    def __init__(self, batcher):
        self.batcher = batcher

    async def __aenter__(self):
        self.task = asyncio.create_task(self.batcher.work())
        return self.batcher

    async def __aexit__(self, *_):
        self.task.cancel()


@settings(max_examples=20, deadline=None)
@given(sizes=st.lists(st.integers(1, 9), min_size=1, max_size=40), max_batch=st.integers(1, 8))
def test_every_request_gets_its_own_result(sizes, max_batch):
    batches = []

    async def main():
        batcher = Batcher(
            lambda them: [2 * one for one in them], max_batch, 0.0, 100, batches.append
        )
        async with Working(batcher):
            return await asyncio.gather(*(batcher.submit(i, n) for i, n in enumerate(sizes)))

    assert run(main()) == [2 * i for i in range(len(sizes))]
    assert sum(batches) == sum(sizes)
    assert all(size <= max(max_batch, max(sizes)) for size in batches)


def test_requests_that_come_while_one_runs_make_one_batch():
    began, go_on, batches = threading.Event(), threading.Event(), []

    def work(requests):
        began.set()
        assert go_on.wait(10)
        batches.append(list(requests))
        return requests

    async def main():
        async with Working(Batcher(work, 32, 0.0, 100)) as batcher:
            first = asyncio.create_task(batcher.submit("first", 1))
            await asyncio.to_thread(began.wait, 10)
            others = [asyncio.create_task(batcher.submit(i, 1)) for i in range(9)]
            await asyncio.sleep(0)
            assert batcher.waiting == 9
            go_on.set()
            await asyncio.gather(first, *others)

    run(main())
    assert batches == [["first"], list(range(9))]


def test_too_many_are_refused_and_those_that_left_are_not_computed():
    began, go_on, seen = threading.Event(), threading.Event(), []

    def work(requests):
        began.set()
        assert go_on.wait(10)
        seen.extend(requests)
        return requests

    async def main():
        async with Working(Batcher(work, 1, 0.0, 2)) as batcher:
            running = asyncio.create_task(batcher.submit("running", 1))
            await asyncio.to_thread(began.wait, 10)
            waiting = [asyncio.create_task(batcher.submit(name, 1)) for name in ("left", "kept")]
            await asyncio.sleep(0)
            with pytest.raises(OverloadedError):
                await batcher.submit("more", 1)
            waiting[0].cancel()
            await asyncio.sleep(0)
            assert batcher.waiting == 1  # there is room again
            late = asyncio.create_task(batcher.submit("late", 1))
            await asyncio.sleep(0)
            go_on.set()
            found = await asyncio.gather(running, waiting[1], late)
            assert found == ["running", "kept", "late"]

    run(main())
    assert seen == ["running", "kept", "late"]


def test_a_failure_is_its_requests_own_and_work_goes_on():
    def work(requests):
        if "all" in requests:
            raise RuntimeError("all of them")
        return [ValueError("this") if one == "bad" else one for one in requests]

    async def main():
        async with Working(Batcher(work, 2, 0.05, 100)) as batcher:
            found = await asyncio.gather(
                batcher.submit("bad", 1), batcher.submit("good", 1), return_exceptions=True
            )
            with pytest.raises(RuntimeError, match="all of them"):
                await batcher.submit("all", 1)
            return found, await batcher.submit("later", 1)

    (bad, good), later = run(main())
    assert isinstance(bad, ValueError)
    assert (good, later) == ("good", "later")
