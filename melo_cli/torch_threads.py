"""How many threads torch works with, thread by thread of this process.

Every thread that works with several brings helpers of its own, for as long as it lives. Where all helpers
together are more than the processors, OpenMP puts them to sleep between two operations: then each step of a
model takes a third longer. So what needs no helpers has none.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import torch


def pool_of_one(name: str, threads: int) -> ThreadPoolExecutor:
    """An executor of one thread, in which torch works with so many."""
    return ThreadPoolExecutor(1, name, torch.set_num_threads, (threads,))


@contextmanager
def one_thread() -> Iterator[None]:
    """Within it torch works in the calling thread alone."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
