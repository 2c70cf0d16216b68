"""`--ray` and what goes with it: the same options for every command whose work can be spread."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Annotated

import typer

from melo_cli.errors import ClusterError

if TYPE_CHECKING:
    from melo_cli.distributed import ClusterOptions

RayOption = Annotated[
    str | None,
    typer.Option(
        "--ray",
        metavar="ADDRESS",
        help="Work on a Ray cluster: local starts Ray on this machine, with all of its GPUs; auto finds the "
        "cluster that this machine belongs to; HOST:PORT is a head's. Needs the extra melo-cli[ray].",
    ),
]
WorkersOption = Annotated[
    int | None,
    typer.Option(
        "--workers",
        metavar="N",
        min=1,
        help="With --ray: processes that load the model. Default: one for each GPU, or for every four CPUs.",
    ),
]
GpusPerWorkerOption = Annotated[
    float | None,
    typer.Option(
        "--gpus-per-worker",
        metavar="SHARE",
        min=0,
        help="With --ray: GPUs of each worker; 0.5 lets two share one. Default: 1 where there are GPUs.",
    ),
]


def cluster_options(
    address: str | None, workers: int | None, gpus_per_worker: float | None
) -> ClusterOptions | None:
    """What the options ask for; None where all work is done in this process.

    Raises:
        ClusterError: Ray is not installed, or the options do not go together.
    """
    if address is None:
        for option, value in (("--workers", workers), ("--gpus-per-worker", gpus_per_worker)):
            if value is not None:
                raise ClusterError(f"{option} goes with --ray", where=option, hint="add --ray local")
        return None
    if find_spec("ray") is None:
        raise ClusterError("Ray is not installed", where="--ray", hint="pip install 'melo-cli[ray]'")
    if "://" in address:
        raise ClusterError(
            "Ray's client is not supported",
            where=f"--ray {address}",
            hint="run the command on a machine of the cluster, with --ray auto",
        )
    from melo_cli.distributed import ClusterOptions

    return ClusterOptions(address, workers, gpus_per_worker)
