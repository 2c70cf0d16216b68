"""Work on many processes and machines through Ray; imported only where a command is given `--ray`."""

from melo_cli.distributed.cluster import ClusterOptions
from melo_cli.distributed.training import ray_executors

__all__ = ["ClusterOptions", "ray_executors"]
