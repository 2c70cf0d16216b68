"""Hands tasks to Ray workers, and gives those of a worker that died to another one."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from melo_cli.distributed.cluster import WorkerPlan
from melo_cli.distributed.worker import Refusal, worker_class
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
        ticket: what its result is asked for by.
        deaths: how many workers died at it.
    """

    ticket: int
    method: str
    arguments: tuple[Any, ...]
    deaths: int = 0


@dataclass
class _Seat:
    """The place of one worker; whoever dies in it is replaced.

    Attributes:
        actor: Ray's handle of the worker.
        prepared: how many steps of preparation the worker has been asked for.
        pending: what the worker was asked for and has not answered; None where it is idle.
        task: the task that this is about; None for a step of preparation.
        loss: the answer to how it goes on, asked for beside the task.
    """

    actor: Any
    prepared: int = 0
    pending: Any = None
    task: _Task | None = None
    loss: Any = None


class WorkerPool:
    """The workers of one command.

    Args:
        plan: how many, and what each has.
        reporter: hears of workers that died.
    """

    def __init__(self, plan: WorkerPlan, reporter: Reporter) -> None:
        self.plan = plan
        self._reporter = reporter
        self._class = worker_class()
        self._steps: list[tuple[str, Any]] = []
        self._waiting: deque[_Task] = deque()
        self._results: dict[int, Any] = {}
        self._tickets = 0
        self._failed_starts = 0
        self._seats = [_Seat(self._start_worker()) for _ in range(plan.workers)]

    def close(self) -> None:
        """End all workers."""
        for seat in self._seats:
            ray.kill(seat.actor)

    def prepare(self, method: str, argument: Any) -> None:
        """Have a method called on each worker before its next task, and on each that takes another's place.

        Raises:
            ClusterError: no worker can do it.
        """
        self._steps.append((method, ray.put(argument)))
        self._assign()
        last = time.monotonic() + _PATIENCE_SECONDS
        warned = False
        while not any(seat.pending is None and seat.prepared == len(self._steps) for seat in self._seats):
            self._advance()
            if not warned and time.monotonic() > last:
                self._reporter.warn(f"no Ray worker is ready yet; melo waits for {self.plan}")
                warned = True

    def submit(self, method: str, *arguments: Any, first: bool = False) -> int:
        """Have a worker's method called, behind what is waiting, or `first`.

        Returns:
            The ticket by which `result` gives the result.
        """
        self._tickets += 1
        task = _Task(self._tickets, method, arguments)
        if first:
            self._waiting.appendleft(task)
        else:
            self._waiting.append(task)
        self._assign()
        return task.ticket

    def result(self, ticket: int, on_loss: OnLoss | None = None) -> Any:
        """Wait for a result, and forget it.

        Args:
            ticket: of `submit`.
            on_loss: called now and then with the loss of a training step, nats a token.

        Raises:
            ClusterError: a worker refuses, or workers die at the task again and again.
        """
        while ticket not in self._results:
            if not self._advance() and on_loss is not None:
                self._ask_losses(on_loss)
        return self._results.pop(ticket)

    def map(self, method: str, calls: Iterable[Any]) -> Iterable[Any]:
        """The results of many calls of a worker's method, in order, each as soon as those before it are
        there."""
        tickets = [self.submit(method, *arguments) for arguments in calls]
        return (self.result(ticket) for ticket in tickets)

    def _advance(self) -> bool:
        """Take one answer, if one comes soon."""
        by_ref = {seat.pending: seat for seat in self._seats if seat.pending is not None}
        ready, _ = ray.wait(list(by_ref), num_returns=1, timeout=_POLL_SECONDS)
        for ref in ready:
            self._take(by_ref[ref])
        self._assign()
        return bool(ready)

    def _take(self, seat: _Seat) -> None:
        task, pending = seat.task, seat.pending
        seat.task = seat.pending = None
        try:
            answer = ray.get(pending)
        except RayTaskError:
            raise  # a fault of the work itself, which another worker would meet, too
        except RayError as error:
            self._replace(seat, task, error)
            return
        if isinstance(answer, Refusal):
            raise answer.error()
        if task is not None:
            self._results[task.ticket] = answer
        else:
            self._failed_starts = 0

    def _replace(self, seat: _Seat, task: _Task | None, error: RayError) -> None:
        """Start another worker in the place of one that died, and do its task again."""
        if task is not None:
            task.deaths += 1
            self._waiting.appendleft(task)
            self._reporter.warn("a Ray worker died; what it had in hand is done again")
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
        seat.actor, seat.prepared, seat.loss = self._start_worker(), 0, None

    def _start_worker(self) -> Any:
        return self._class.options(
            num_cpus=self.plan.threads,
            num_gpus=self.plan.gpus,
            max_restarts=0,
            runtime_env={"env_vars": {"OMP_NUM_THREADS": str(self.plan.threads)}},
        ).remote()

    def _assign(self) -> None:
        """Give each idle worker its next step of preparation, or the next task."""
        for seat in self._seats:
            if seat.pending is not None:
                continue
            if seat.prepared < len(self._steps):
                method, argument = self._steps[seat.prepared]
                seat.prepared += 1
                seat.pending = getattr(seat.actor, method).remote(argument)
            elif self._waiting:
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
