"""The ways to merge, one file each, with its own settings: `METHODS` is all of them, the cheapest first."""

from __future__ import annotations

from collections.abc import Mapping

from melo_cli.exporting.merging.methods.auto import merge
from melo_cli.exporting.merging.methods.compile import Compile
from melo_cli.exporting.merging.methods.distill import Distill
from melo_cli.exporting.merging.methods.method import Merge, MergeMethod
from melo_cli.exporting.merging.methods.sum import Sum

METHODS: Mapping[str, type[MergeMethod]] = {method.name: method for method in (Sum, Compile, Distill)}

__all__ = ["METHODS", "Compile", "Distill", "Merge", "MergeMethod", "Sum", "merge"]
