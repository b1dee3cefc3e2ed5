"""The pool keeps order, reads only a little ahead, and hands on errors."""

import os
import time

import pytest

from albert_jax.prepare.workers import worker_pool

_factor = 0


def set_factor(factor):
    global _factor
    _factor = factor


def slow_first(item):
    if item == 0:
        time.sleep(0.2)
    if item < 0:
        raise ValueError(f"item {item}")
    return item * _factor, os.getpid()


def counted(items, taken):
    for item in items:
        taken.append(item)
        yield item


@pytest.mark.parametrize("num_workers", [1, 2])
def test_worker_pool(num_workers):
    taken = []
    with worker_pool(num_workers, set_factor, (3,)) as run:
        results = run(slow_first, counted(range(100), taken))
        first, pid = next(results)
        assert (first, pid == os.getpid()) == (0, num_workers == 1)
        assert len(taken) <= 2 * num_workers + 1
        assert [value for value, _ in results] == [3 * i for i in range(1, 100)]
        with pytest.raises(ValueError, match="item -1"):
            list(run(slow_first, [1, -1, 1]))
        assert list(run(slow_first, [])) == []
