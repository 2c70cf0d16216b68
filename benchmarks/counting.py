"""Operations, bytes and seconds of the parts of a run, and the rates that a machine reaches at best."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

Read = Callable[[], float]


def clock(*, alone: bool) -> Read:
    """The clock of a measurement.

    Args:
        alone: whether one thread does the work.

    Returns:
        Seconds of processor time if `alone`, so that other processes do not count; else of wall time.
    """
    return time.process_time if alone else time.perf_counter


class Bytes(TorchDispatchMode):
    """Counts the bytes that every operation reads and writes; views are free."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = func(*args, **(kwargs or {}))
        if not func.is_view:
            tensors = [leaf for leaf in tree_leaves((args, kwargs, given)) if isinstance(leaf, Tensor)]
            self.total += sum(tensor.nbytes for tensor in tensors)
        return given


class Parts:
    """What each named part of a run takes, at each time that it runs.

    Args:
        read: gives the running total of what is counted: seconds, operations or bytes.

    Attributes:
        taken: by part, one number for each time.
    """

    def __init__(self, read: Read) -> None:
        self._read = read
        self.taken: dict[str, list[float]] = defaultdict(list)

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Inside the `with` statement, what is counted belongs to this part and not to the part around it.

        Args:
            name: the part.
        """
        started, inside = self._read(), sum(map(sum, self.taken.values()))
        yield
        inside = sum(map(sum, self.taken.values())) - inside
        self.taken[name].append(self._read() - started - inside)


def operations_of(run: Callable[[Parts], object]) -> dict[str, list[float]]:
    """Floating-point operations of matrix products by part.

    Args:
        run: does the work, and names its parts.

    Returns:
        By part, one number for each time.
    """
    with FlopCounterMode(display=False) as mode:
        parts = Parts(mode.get_total_flops)
        run(parts)
    return parts.taken


def bytes_of(run: Callable[[Parts], object]) -> dict[str, list[float]]:
    """Bytes read and written by part.

    Args:
        run: does the work, and names its parts.

    Returns:
        By part, one number for each time.
    """
    with Bytes() as mode:
        parts = Parts(lambda: mode.total)
        run(parts)
    return parts.taken


def product_rate(now: Read) -> float:
    """The best of 20 matrix products `[1024, 1024] @ [1024, 1024]`, float32.

    Args:
        now: the clock, in seconds.

    Returns:
        Floating-point operations a second.
    """
    a = torch.randn(1024, 1024)
    return 2 * 1024**3 / min(_seconds(lambda: a @ a, now) for _ in range(20))


def copy_rate(now: Read) -> float:
    """The best of 10 copies of 64 MB.

    Args:
        now: the clock, in seconds.

    Returns:
        Bytes read and written a second.
    """
    a = torch.randn(2**24)
    b = torch.empty_like(a)
    return 2 * a.nbytes / min(_seconds(lambda: b.copy_(a), now) for _ in range(10))


def _seconds(work: Callable[[], object], now: Read) -> float:
    started = now()
    work()
    return now() - started
