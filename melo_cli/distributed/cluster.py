"""Connects to a Ray cluster, or starts one on this machine, and plans the workers that fit it."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import ray

from melo_cli.errors import ClusterError

_LOCAL, _AUTO = "local", "auto"
_CONNECT_SECONDS = 10.0
_CPUS_A_WORKER = 4
_FEWEST = 2
_THREADS = "OMP_NUM_THREADS"


@dataclass(frozen=True)
class ClusterOptions:
    """The cluster that a user asks for.

    Attributes:
        address: `local` starts Ray on this machine, `auto` finds the cluster that this machine belongs to,
            anything else is the address of its head, as `host:port`.
        workers: how many; None takes one for each GPU, or without GPUs one for every four CPUs, two at least.
        gpus_per_worker: GPUs of each worker, or the share of one; None takes one where the cluster has GPUs
            and the recipe's device may be one.
    """

    address: str
    workers: int | None = None
    gpus_per_worker: float | None = None


@dataclass(frozen=True)
class WorkerPlan:
    """The workers of a run.

    Attributes:
        workers: how many.
        threads: CPUs that Ray keeps free for each worker, and threads that its torch uses.
        gpus: GPUs of each worker, or the share of one.
        device: what each loads the base model on. Ray shows a worker its own GPUs alone, the first as `cuda`.
    """

    workers: int
    threads: int
    gpus: float
    device: str

    def __str__(self) -> str:
        """In a few words."""
        gpus = f" and {self.gpus:g} of a GPU" if 0 < self.gpus < 1 else f" and {self.gpus:g} GPU"
        threads = f"{self.threads} thread{'s' if self.threads > 1 else ''}"
        each = f"{threads}{gpus if self.gpus else ''}"
        return f"{self.workers} worker{'s' if self.workers > 1 else ''} with {each} each"


@contextmanager
def connected(options: ClusterOptions) -> Iterator[None]:
    """Within it this process is connected to the cluster.

    Raises:
        ClusterError: there is no such cluster.
    """
    # Ray reports on its use to its makers where it is not told otherwise.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    own: dict[str, Any] = {}
    if options.address not in (_LOCAL, _AUTO):
        _require_answer(options.address)
    if options.address == _LOCAL:
        own = {"num_cpus": max(_cpus_here(), options.workers or 0), "include_dashboard": False}
    try:
        ray.init(address=options.address, log_to_driver=False, logging_level="error", **own)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise _no_cluster(options.address, error) from error
    try:
        yield
    finally:
        ray.shutdown()


def _require_answer(address: str) -> None:
    """Ray would wait for more than a minute, and then end the process."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        raise ClusterError(
            "an address is local, auto or HOST:PORT", where=f"--ray {address}", hint="the usual port is 6379"
        )
    try:
        socket.create_connection((host, int(port)), timeout=_CONNECT_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise _no_cluster(address, error) from error


def _no_cluster(address: str, error: Exception) -> ClusterError:
    return ClusterError(
        f"no Ray cluster answers there ({error})",
        where=f"--ray {address}",
        hint="start one with `ray start --head`, or use --ray local",
    )


def plan_workers(options: ClusterOptions, device: str) -> WorkerPlan:
    """The workers for the nodes that the cluster has now.

    Args:
        options: what the user asks for.
        device: `model.device` of the recipe.

    Raises:
        ClusterError: no worker fits the cluster.
    """
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return _plan(options, nodes, device, os.environ.get(_THREADS))


def _plan(
    options: ClusterOptions, nodes: Sequence[Mapping[str, float]], device: str, threads: str | None
) -> WorkerPlan:
    all_gpus = [node.get("GPU", 0.0) for node in nodes]
    gpus = options.gpus_per_worker
    if gpus is None:
        gpus = 1.0 if sum(all_gpus) and (device == "auto" or device.startswith("cuda")) else 0.0
    if gpus > 1 and gpus != int(gpus):
        raise ClusterError(
            f"{gpus:g} GPUs cannot be given to a worker",
            where="--gpus-per-worker",
            hint="name a whole number, or a share below 1",
        )
    if gpus and max(all_gpus, default=0.0) < gpus:
        raise ClusterError(
            f"no node of the cluster has {gpus:g} GPUs",
            where="--gpus-per-worker",
            hint="name fewer, or 0 to work on CPUs",
        )
    cpus = [int(node.get("CPU", 0)) for node in nodes]
    fitting = (
        sum(int(have / gpus + 1e-6) for have in all_gpus) if gpus else max(sum(cpus) // _CPUS_A_WORKER, 1)
    )
    workers = options.workers or (fitting if gpus else min(max(fitting, _FEWEST), max(sum(cpus), 1)))
    on = "cuda" if gpus else "mps" if device == "mps" else "cpu"
    return WorkerPlan(workers, _threads(threads, cpus, workers), gpus, on)


def _threads(asked: str | None, cpus: Sequence[int], workers: int) -> int:
    """As many as $OMP_NUM_THREADS says, else the most with which all workers find room; one at least."""
    if asked is not None and asked.isdecimal() and int(asked):
        return int(asked)
    most = max(cpus, default=1)
    return next((t for t in range(most, 1, -1) if sum(have // t for have in cpus) >= workers), 1)


def _cpus_here() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
