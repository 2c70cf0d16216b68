"""Work on many processes and machines through Ray; imported only where a command is given `--ray`."""

from melo_cli.distributed.asking import RayInference
from melo_cli.distributed.cluster import ClusterOptions
from melo_cli.distributed.reading import ray_readers
from melo_cli.distributed.session import RaySession, ray_session
from melo_cli.distributed.training import ray_executors

__all__ = ["ClusterOptions", "RayInference", "RaySession", "ray_executors", "ray_readers", "ray_session"]
