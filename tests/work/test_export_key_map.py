"""The keys that a project of an older version has learnt travel with what is exported from it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from melo_cli.exporting import export_peft, export_routed
from melo_cli.exporting.prompt_router import router_of_export, router_of_project
from melo_cli.runtime.loading import open_project
from melo_cli.scope.core.pooling import KeyTransform
from melo_cli.scope.core.router import RadiusRecorder
from melo_cli.scope.reading import text_model_of
from melo_cli.versions import library_versions
from melo_store.records import KeyMap
from melo_store.writer import open_writer

ROWS = [
    {"prompt": "Who is the prime minister of Britain?", "target": "London"},
    {"prompt": "Where does the river end", "target": "Paris"},
    {"prompt": "who studied law", "target": "John"},
]
PROMPTS = [ROWS[0]["prompt"], "Where was John Smith born", ROWS[1]["prompt"], ROWS[2]["prompt"]]
EDITS = ["e000001", None, "e000002", "e000003"]


def test_learned_keys_are_made_alike_everywhere(
    edit: Callable[..., Any], reporter: Any, tmp_path: Path
) -> None:
    path = edit("pico_llama", ROWS, tmp_path / "p", key={"radius": 0.15}).path
    give_key_map(path)
    opened = open_project(path)
    export_routed(opened, tmp_path / "routed", reporter, check=2)
    export_peft(opened, tmp_path / "peft", reporter)
    for router in (router_of_project(path), router_of_export(tmp_path / "peft")):
        fired = [each.route.fired for each in router.route(PROMPTS)]
        assert [each.edit_id if each else None for each in fired] == EDITS


def give_key_map(path: Path) -> None:
    """Calibrate by hand: learned token weights, a center and a projection to eight dimensions."""
    opened = open_project(path)
    drawn = torch.Generator().manual_seed(0)
    size = opened.project.key_dim or 0
    arrays = {
        "token_weights": torch.randn(size, generator=drawn),
        "center": torch.randn(size, generator=drawn) * 0.01,
        "projection": torch.randn(size, 8, generator=drawn),
    }
    key_map = KeyMap(
        {"pooling": "learned", "unit": True}, {name: array.numpy() for name, array in arrays.items()}
    )
    recorder = RadiusRecorder(
        text_model_of(opened.routed.base),
        opened.recipe.key.layer,
        opened.routed.base.max_length,
        KeyTransform("learned", unit=True, **arrays),
    )
    edits = opened.project.edits()
    records = recorder.records([view.prompt for view in edits])
    named = {view.edit_id: record.key for view, record in zip(edits, records, strict=True)}
    with open_writer(opened.project) as writer:
        writer.rekey(
            key_map,
            named,
            {},
            dict.fromkeys(named, 0.01),
            recipe=opened.project.recipe,
            seed=0,
            versions=library_versions(),
        )


@pytest.mark.parametrize("pooling", ["last", "first", "mean", "learned"])
def test_a_key_is_the_pooled_centered_scaled_and_projected_hidden_state(pooling: str) -> None:
    drawn = torch.Generator().manual_seed(0)
    hidden = torch.randn(2, 5, 6, generator=drawn)
    mask = torch.tensor([[1, 1, 1, 0, 0], [0, 1, 1, 1, 1]])
    token_weights, center = torch.randn(6, generator=drawn), torch.randn(6, generator=drawn)
    projection = torch.randn(6, 3, generator=drawn)
    keys = KeyTransform(pooling, True, token_weights, center, projection)(hidden, mask).numpy()
    for row, tokens in enumerate((hidden[0, :3].numpy(), hidden[1, 1:].numpy())):
        scores = np.exp(tokens @ token_weights.numpy())
        shares = {
            "last": np.eye(len(tokens))[-1],
            "first": np.eye(len(tokens))[0],
            "mean": np.full(len(tokens), 1 / len(tokens)),
            "learned": scores / scores.sum(),
        }[pooling]
        pooled = shares @ tokens - center.numpy()
        projected = pooled / np.linalg.norm(pooled) @ projection.numpy()
        np.testing.assert_allclose(keys[row], projected / np.linalg.norm(projected), rtol=1e-4, atol=1e-5)
    plain = KeyTransform("mean", projection=projection)(hidden, mask)
    torch.testing.assert_close(plain[0], hidden[0, :3].mean(0) @ projection)
