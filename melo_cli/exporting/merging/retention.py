"""Retention of a merge: base, routed and merged model are asked the same prompts."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import transformers
from transformers import PreTrainedModel

from melo_cli.calibration import SeenPrompts
from melo_cli.evaluation import answer_again, answer_probes, ask_anew, collect_probes, metrics
from melo_cli.evaluation.probes import ProbeSet
from melo_cli.exporting.merging.even_sample import even_sample
from melo_cli.reporter import Reporter
from melo_cli.runtime.loading import OpenProject, assemble

Figures = dict[str, dict[str, Any]]
_ROUTER = ("fired_edits", "fired_rephrases", "fired_unrelated", "fired_hard", "nearest_right")


def measure(opened: OpenProject, request: dict[str, Any], reporter: Reporter) -> Figures:
    """METRICS of `base`, `routed` and `merged`, the last as transformers alone loads it from its folder.

    Args:
        opened: the project, opened.
        request: `folder` of the merged checkpoint; `count`, the largest number of probes of each kind (None:
            all); `taught`, unrelated prompts that the merge learned from, which are left out.
        reporter: shows progress.
    """
    loaded = load_checkpoint(opened, Path(request["folder"]))
    return Retention(opened, request["count"], request["taught"], reporter).of(loaded)


class Retention:
    """Measures merges of one project. Base and routed model are asked only once.

    Args:
        opened: the project, opened.
        count: as in `measure`.
        taught: as in `measure`.
        reporter: shows progress.
    """

    def __init__(
        self, opened: OpenProject, count: int | None, taught: Collection[str], reporter: Reporter
    ) -> None:
        self._opened, self._reporter = opened, reporter
        # As in `melo eval`: a merge may have learned from what calibration has seen.
        seen = SeenPrompts(opened.project.key_map)
        probes = sample_probes(collect_probes(opened, reporter, seen=seen), count, taught)
        self._routed = answer_probes(opened, probes, reporter)

    def of(self, merged: PreTrainedModel) -> Figures:
        """METRICS of `base`, `routed` and `merged`, a model in memory."""
        opened = self._opened
        kind = opened.routed.base.kind
        # Beside the opened project, so that its own model stays as it is.
        other = assemble(opened.project, opened.recipe, replace(opened.routed.base, model=merged))
        answered = answer_again(other, self._routed, ask_anew, self._reporter)
        other.routed.tuner.unload()
        return {
            "base": metrics(self._routed, kind, edited=False),
            "routed": metrics(self._routed, kind, edited=True),
            # A merged model has no router: nothing fires in it.
            "merged": metrics(answered, kind, edited=True) | dict.fromkeys(_ROUTER),
        }


def load_checkpoint(opened: OpenProject, folder: Path) -> PreTrainedModel:
    """A checkpoint as transformers alone loads it, on the device and in the dtype of the opened base."""
    base = opened.routed.base
    auto_class = getattr(transformers, base.kind.auto_class)
    trusted = opened.recipe.model.trust_remote_code
    model = auto_class.from_pretrained(folder, trust_remote_code=trusted, dtype=base.model.dtype)
    placed: PreTrainedModel = model.eval().requires_grad_(False).to(base.model.device)
    return placed


def sample_probes(probes: ProbeSet, count: int | None, taught: Collection[str] = ()) -> ProbeSet:
    """An even sample of at most `count` probes of each kind, without those that were taught."""
    kinds = {kind.name: getattr(probes, kind.name) for kind in fields(probes)}
    kept = {name: [probe for probe in group if probe.prompt not in taught] for name, group in kinds.items()}
    if count is not None:
        kept = {name: even_sample(group, count) for name, group in kept.items()}
    return replace(probes, **kept)
