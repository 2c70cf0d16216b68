"""A calibrated project's key map travels with what is exported from it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from melo_cli.encoding import pad_prompts
from melo_cli.exporting import export_peft, export_routed
from melo_cli.exporting.prompt_router import router_of_export, router_of_project
from melo_cli.keys import KeyExtractor, KeyTransform
from melo_cli.loading import open_project
from melo_cli.versions import library_versions

PROMPTS = [
    "Who is the prime minister of Britain?",
    "Where was John Smith born",
    "Where does the river end",
    "who studied law",
]
BLOCKS = ["b000001", None, "b000001", "b000002"]


def test_learned_keys_are_made_alike_everywhere(
    copied: Callable[[str], Path], reporter: Any, tmp_path: Path
) -> None:
    path = copied("pico_llama")
    give_key_map(path)
    opened = open_project(path)
    export_routed(opened, tmp_path / "routed", reporter, check=2)
    export_peft(opened, tmp_path / "peft", reporter)
    for router in (router_of_project(path), router_of_export(tmp_path / "peft")):
        routes = router.route(PROMPTS)
        assert [each.fired.adapter if each.fired else None for each in routes] == BLOCKS


def give_key_map(path: Path) -> None:
    """Calibrate by hand: learned token weights, a center and a projection to eight dimensions."""
    opened = open_project(path)
    drawn = torch.Generator().manual_seed(0)
    size = opened.project.key_dim or 0
    transform = KeyTransform(
        "learned",
        unit=True,
        token_weights=torch.randn(size, generator=drawn),
        center=torch.randn(size, generator=drawn) * 0.01,
        projection=torch.randn(size, 8, generator=drawn),
    )
    key_map = transform.to_key_map({})
    extractor = KeyExtractor(opened.routed.base, opened.recipe.key.layer, transform)
    solved = [edit for edit in opened.project.edits() if edit.status == "live"]
    prompts = [opened.encoder.prompt(edit.prompt) for edit in solved]
    keys = extractor(pad_prompts(opened.routed.base, prompts))
    named = {edit.edit_id: key for edit, key in zip(solved, keys, strict=True)}
    with opened.project.writer() as writer:
        writer.rekey(
            key_map,
            named,
            dict.fromkeys(named, 0.01),
            recipe=opened.project.recipe,
            seed=0,
            versions=library_versions(),
        )
