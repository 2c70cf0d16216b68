"""The tunings that melo carries for sentence encoders (`data/scope/tune.py` makes them)."""

from __future__ import annotations

from functools import cache

from safetensors import safe_open

from melo_cli.models.base_model import BaseModel
from melo_cli.scope.core.tuning import Tuning
from melo_cli.scope.corpus import scope_folder

FITS = "weights"
"""What a file says in its metadata: the fingerprint of the weights that it is made for."""


def tuning_of(base: BaseModel) -> Tuning:
    """The tuning of a base model's sentence encoder; one that changes nothing if melo carries none for it."""
    weights = base.encoder.fingerprint.get("weights") if base.encoder is not None else None
    return _carried().get(weights, Tuning()) if weights is not None else Tuning()


@cache
def _carried() -> dict[str, Tuning]:
    tunings = {}
    for path in sorted(scope_folder().glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (no mapping)
            tunings[file.metadata()[FITS]] = Tuning.from_arrays(arrays)
    return tunings
