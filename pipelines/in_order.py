"""Work on several items at once, with the results in the items' order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

from pipelines.cores import usable_cores

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_order(function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """`function(item)` of each item, a thread per core: for work of libraries that leave the interpreter's lock.

    As many items are begun ahead as there are threads, and one more, so memory holds the results of as many. An error is raised
    where its item's result would stand.
    """
    threads, left = usable_cores(), iter(items)
    with ThreadPoolExecutor(threads) as pool:
        begun: deque[Future[Result]] = deque(
            pool.submit(function, item) for item in islice(left, threads + 1)
        )
        try:
            while begun:
                done = begun.popleft().result()
                begun.extend(pool.submit(function, item) for item in islice(left, 1))
                yield done
        finally:
            for future in begun:
                future.cancel()
