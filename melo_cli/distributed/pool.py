"""Hands tasks to Ray workers, and gives those of a worker that died to another one."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from melo_cli.distributed.cluster import WorkerPlan
from melo_cli.distributed.worker import Refusal, WorkerSpec, worker_class
from melo_cli.errors import ClusterError
from melo_cli.reporter import Reporter

_POLL_SECONDS = 0.5
_PATIENCE_SECONDS = 60.0
_TRIES = 5
"""Deaths at one task, or while workers start, after which chance is no explanation."""

OnLoss = Callable[[float], None]


@dataclass
class _Task:
    """A call of a worker's method.

    Attributes:
        number: what its result is asked for by.
        deaths: how many workers died at it.
    """

    number: int
    method: str
    arguments: tuple[Any, ...]
    deaths: int = 0


@dataclass
class _Seat:
    """The place of one worker; whoever dies in it is replaced.

    Attributes:
        actor: Ray's handle of the worker.
        pending: what the worker was asked for and has not answered; None where it is idle.
        task: the task that this is about; None while the worker starts.
        loss: the answer to how it goes on, asked for beside the task.
    """

    actor: Any
    pending: Any
    task: _Task | None = None
    loss: Any = None


@dataclass
class WorkerPool:
    """The workers of one run.

    Args:
        plan: how many, and what each has.
        spec: what they work on.
        reporter: hears of workers that died.
    """

    plan: WorkerPlan
    spec: WorkerSpec
    reporter: Reporter
    _seats: list[_Seat] = field(default_factory=list)
    _waiting: deque[_Task] = field(default_factory=deque)
    _results: dict[int, Any] = field(default_factory=dict)
    _failed_starts: int = 0

    def __post_init__(self) -> None:
        self._spec_ref = ray.put(self.spec)
        self._class = worker_class()
        self._seats = [_Seat(*self._start_worker()) for _ in range(self.plan.workers)]

    def close(self) -> None:
        """End all workers."""
        for seat in self._seats:
            ray.kill(seat.actor)

    def wait_for_one(self) -> None:
        """Wait until one worker is ready.

        Raises:
            ClusterError: the workers cannot start.
        """
        last = time.monotonic() + _PATIENCE_SECONDS
        warned = False
        while all(seat.pending is not None and seat.task is None for seat in self._seats):
            self._advance()
            if not warned and time.monotonic() > last:
                self.reporter.warn(f"no Ray worker is ready yet; melo waits for {self.plan}")
                warned = True

    def submit(self, number: int, method: str, *arguments: Any, first: bool = False) -> None:
        """Have a worker's method called, behind what is waiting, or `first`."""
        task = _Task(number, method, arguments)
        self._waiting.appendleft(task) if first else self._waiting.append(task)
        self._assign()

    def result(self, number: int, on_loss: OnLoss) -> Any:
        """Wait for the result of the task of this number, and forget it.

        Args:
            number: of a task that was submitted.
            on_loss: called now and then with the loss of a training step, nats a token.

        Raises:
            ClusterError: a worker refuses, or workers die at the task again and again.
        """
        while number not in self._results:
            if not self._advance():
                self._ask_losses(on_loss)
        return self._results.pop(number)

    def _advance(self) -> bool:
        """Take one answer, if one comes soon."""
        by_ref = {seat.pending: seat for seat in self._seats if seat.pending is not None}
        ready, _ = ray.wait(list(by_ref), num_returns=1, timeout=_POLL_SECONDS)
        for ref in ready:
            self._take(by_ref[ref])
        self._assign()
        return bool(ready)

    def _take(self, seat: _Seat) -> None:
        task, seat_ref = seat.task, seat.pending
        seat.task = seat.pending = None
        try:
            answer = ray.get(seat_ref)
        except RayTaskError:
            raise  # a fault of the work itself, which another worker would meet, too
        except RayError as error:
            self._replace(seat, task, error)
            return
        if isinstance(answer, Refusal):
            raise answer.error()
        if task is not None:
            self._results[task.number] = answer
        else:
            self._failed_starts = 0

    def _replace(self, seat: _Seat, task: _Task | None, error: RayError) -> None:
        """Start another worker in the place of one that died, and do its task again."""
        if task is not None:
            task.deaths += 1
            self._waiting.appendleft(task)
            self.reporter.warn("a Ray worker died; what it had in hand is done again")
        else:
            self._failed_starts += 1
        if _TRIES in (self._failed_starts, task.deaths if task is not None else 0):
            raise ClusterError(
                f"Ray workers died {_TRIES} times {'at the same work' if task else 'while they started'}, "
                f"the last one so: {str(error).strip().splitlines()[0]}",
                where="--ray",
                hint="fewer --workers leave more memory to each",
            ) from error
        with suppress(RayError):
            ray.kill(seat.actor)
        seat.loss = None
        seat.actor, seat.pending = self._start_worker()

    def _start_worker(self) -> tuple[Any, Any]:
        actor = self._class.options(
            num_cpus=self.plan.threads,
            num_gpus=self.plan.gpus,
            max_restarts=0,
            runtime_env={"env_vars": {"OMP_NUM_THREADS": str(self.plan.threads)}},
        ).remote()
        return actor, actor.open.remote(self._spec_ref)

    def _assign(self) -> None:
        for seat in self._seats:
            if seat.pending is None and self._waiting:
                seat.task = self._waiting.popleft()
                seat.pending = getattr(seat.actor, seat.task.method).remote(*seat.task.arguments)

    def _ask_losses(self, on_loss: OnLoss) -> None:
        for seat in self._seats:
            if seat.task is None:
                continue
            if seat.loss is None:
                seat.loss = seat.actor.loss.remote()
            elif ray.wait([seat.loss], timeout=0)[0]:
                with suppress(RayError):  # of a worker that died: its task tells
                    loss = ray.get(seat.loss)
                    if loss is not None:
                        on_loss(loss)
                seat.loss = None
