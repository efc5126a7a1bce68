"""Jobs in several processes."""

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")


def map_jobs(
    function: Callable[..., T], jobs: Sequence[tuple[Any, ...]], *, workers: int
) -> Iterator[T]:
    """Yield ``function(*job)`` of each job, in order.

    Args:
        function: function of a module, with results that can be pickled.
        jobs: arguments of each call.
        workers: number of processes; with 1 the calls are made in this process.
    """
    if workers <= 1 or not jobs:
        yield from (function(*job) for job in jobs)
        return
    # fresh processes: a fork would copy the caller's threads in whatever state they are
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(workers, len(jobs)), mp_context=context) as pool:
        futures = [pool.submit(function, *job) for job in jobs]
        for future in futures:
            yield future.result()
