"""The ways to change a model's answers that `melo bench` compares, one file each."""

from __future__ import annotations

from collections.abc import Sequence

from melo_cli.bench.methods.in_context import InContext
from melo_cli.bench.methods.lookup import Lookup
from melo_cli.bench.methods.melo import Melo
from melo_cli.bench.methods.method import Method
from melo_cli.bench.methods.retrieval import Retrieval
from melo_cli.bench.methods.weights import other_editors
from melo_cli.errors import MeloError
from melo_cli.evaluation.baselines import BASELINES
from melo_cli.suggest import did_you_mean

_OWN = {method.name: method for method in (Melo(), Lookup(), InContext(), Retrieval())}
METHODS = (*_OWN, *BASELINES)
"""The names that `--methods` takes, in the order of a table's rows."""


def parse_methods(names: str, assignments: Sequence[str]) -> list[Method]:
    """Read `--methods` and `--method-set`.

    Args:
        names: with commas between.
        assignments: NAME.SETTING=VALUE of methods that have settings.

    Returns:
        The methods, each once, in the order of `METHODS`.

    Raises:
        MeloError: an unknown method or setting, or a value that does not fit.
    """
    wanted = [name.strip() for name in names.split(",") if name.strip()]
    for name in wanted:
        if name not in METHODS:
            hint = did_you_mean(name, METHODS) or f"known are {', '.join(METHODS)}"
            raise MeloError(f"{name!r} is not a method", where="--methods", hint=hint)
    others = other_editors([name for name in BASELINES if name in wanted], assignments)
    return [*(method for name, method in _OWN.items() if name in wanted), *others]


__all__ = ["METHODS", "Method", "parse_methods"]
