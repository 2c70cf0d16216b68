"""The router that travels with an export: keys by the formula, routes as the store's index gives them."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from melo_cli.exporting.standalone.exact_router import KeyMap, Router
from store.project import Project
from store.records import BaseReference, LoraSlice, NewEdit, edit_id

VERSIONS = {"melo-cli": "0.1.0"}


def project_of(path: Path, keys: np.ndarray[Any, Any], labels: list[int], radii: list[float]) -> Project:
    """A project of one edit a key, in two batches; every fourth is one that the base has right."""
    project = Project.create(
        path, name="p", base=BaseReference("m", None, {}), recipe={}, seed=0, versions=VERSIONS
    )
    piece = LoraSlice(np.ones((1, 2), np.float32), np.ones((2, 1), np.float32), 1.0)
    edits = [
        NewEdit(
            f"prompt {place}",
            "x",
            label=(label,),
            key=key,
            radius=radius,
            **({"block": "new"} if place % 4 else {"status": "already_right"}),  # type: ignore[arg-type]
        )
        for place, (key, label, radius) in enumerate(zip(keys, labels, radii, strict=True))
    ]
    half = len(edits) // 2
    with project.writer() as writer:
        for batch in (edits[:half], edits[half:]):
            if batch:
                writer.stage(batch, {"new": {"w": piece}}).commit(recipe={}, seed=0, versions=VERSIONS)
    return Project.open(path)


def router_of(project: Project) -> Router:
    clusters = project.clusters()
    neurons = [
        {"edit_id": edit_id(number), "adapter": project.edit(edit_id(number)).block, "cluster": each.number}
        for each in clusters
        for number in each.members
    ]
    keys = np.stack([np.asarray(project.edit(row["edit_id"]).record.key) for row in neurons])  # type: ignore[arg-type]
    table = {
        "key": {"layer": "w", "pooling": "mean", "unit": False},
        "clusters": [{"cluster": each.number, "radius": each.radius} for each in clusters],
        "neurons": neurons,
    }
    centers = np.stack([each.center for each in clusters])
    return Router(table, {"keys": torch.tensor(keys), "centers": torch.tensor(centers)})


@settings(max_examples=25)
@given(seed=st.integers(0, 2**31), count=st.integers(1, 14), offset=st.sampled_from([0.0, 1000.0]))
def test_routes_are_those_of_the_store(seed: int, count: int, offset: float) -> None:
    drawn = np.random.default_rng(seed)
    # On a grid, so that keys coincide, tie, and lie on the very edge of balls.
    keys = (drawn.integers(0, 4, (count, 3)) + offset).astype(np.float32)
    labels = drawn.integers(0, 3, count).tolist()
    radii = drawn.choice([0.0, 0.5, 1.0, 2.0], count).tolist()
    with tempfile.TemporaryDirectory() as place:
        project = project_of(Path(place) / "p", keys, labels, radii)
        asked = np.concatenate([keys, keys + np.float32(0.5), (drawn.integers(0, 4, (9, 3)) + offset)])
        asked = asked.astype(np.float32)
        expected = [
            (route.fired.edit_id, route.fired.block) if route.fired else None
            for route in project.lookup(asked)
        ]
        found = router_of(project).route(asked)
    assert [(each.edit_id, each.adapter) if each else None for each in found] == expected


@pytest.mark.parametrize("pooling", ["last", "first", "mean", "learned"])
def test_a_key_is_the_pooled_centered_scaled_and_projected_hidden_state(pooling: str) -> None:
    drawn = torch.Generator().manual_seed(0)
    hidden = torch.randn(2, 5, 6, generator=drawn)
    mask = torch.tensor([[1, 1, 1, 0, 0], [0, 1, 1, 1, 1]])
    token_weights, center = torch.randn(6, generator=drawn), torch.randn(6, generator=drawn)
    projection = torch.randn(6, 3, generator=drawn)
    keys = KeyMap(pooling, True, token_weights, center, projection)(hidden, mask).numpy()
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
    plain = KeyMap("mean", projection=projection)(hidden, mask)
    torch.testing.assert_close(plain[0], hidden[0, :3].mean(0) @ projection)
