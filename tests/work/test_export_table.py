"""The neurons of an export: found as the store finds them, and fired by the same rule."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from melo_cli.scope.core.exported import NeuronTable
from melo_cli.scope.core.model import Record
from melo_cli.scope.core.rules import Query, Radius
from melo_store.project import Project
from melo_store.records import BaseReference, LoraSlice, NewEdit
from melo_store.writer import open_writer

VERSIONS = {"melo-cli": "0.1.0"}
Floats = NDArray[np.float32]


def project_of(path: Path, keys: Floats, labels: list[int], radii: list[float] | None) -> Project:
    """A project of one edit a key, in two batches; every fourth is one that the base has right."""
    project = Project.create(
        path, name="p", base=BaseReference("m", None, {}), recipe={}, seed=0, versions=VERSIONS
    )
    piece = LoraSlice(np.ones((1, 2), np.float32), np.ones((2, 1), np.float32), 1.0)
    edits = [
        NewEdit(
            f"prompt {index}",
            "x",
            label=(label,),
            key=key,
            tokens=tokens_of(index),
            radius=None if radii is None else radii[index],
            **({"block": "new"} if index % 4 else {"status": "already_right"}),  # type: ignore[arg-type]
        )
        for index, (key, label) in enumerate(zip(keys, labels, strict=True))
    ]
    half = len(edits) // 2
    with open_writer(project) as writer:
        for batch in (edits[:half], edits[half:]):
            if batch:
                writer.stage(batch, {"new": {"w": piece}}).commit(recipe={}, seed=0, versions=VERSIONS)
    return Project.open(path)


def tokens_of(index: int) -> NDArray[np.float16]:
    return np.full((1 + index % 3, 2), index, np.float16)


def table_of(project: Project) -> NeuronTable:
    """The project's neurons as `melo export` lays them down."""
    clusters = project.clusters()
    radii = {cluster.number: cluster.radius for cluster in clusters}
    views = project.edits()
    rows: list[dict[str, Any]] = []
    for view in views:
        row = {"edit_id": view.edit_id, "adapter": view.block}
        if view.cluster is not None:
            row |= {"cluster": view.cluster.cluster, "radius": radii[view.cluster.cluster]}
        rows.append(row)
    names = [view.edit_id for view in views]
    tokens = [np.asarray(each) for each in project.tokens(names)]
    arrays = {
        "keys": torch.tensor(project.keys(names)),
        "tokens": torch.tensor(np.concatenate(tokens)),
        "token_starts": torch.tensor(np.cumsum([0, *map(len, tokens)])),
    }
    if clusters:
        arrays["centers"] = torch.tensor(np.stack([cluster.center for cluster in clusters]))
    return NeuronTable(rows, arrays)


@settings(max_examples=25)
@given(
    seed=st.integers(0, 2**31),
    count=st.integers(1, 14),
    offset=st.sampled_from([0.0, 1000.0]),
    clustered=st.booleans(),
)
def test_candidates_and_routes_are_those_of_the_store(
    seed: int, count: int, offset: float, clustered: bool
) -> None:
    drawn = np.random.default_rng(seed)
    # On a grid, so that keys coincide, tie, and lie on the very edge of balls.
    keys = (drawn.integers(0, 4, (count, 3)) + offset).astype(np.float32)
    labels = drawn.integers(0, 3, count).tolist()
    radii = drawn.choice([0.0, 0.5, 1.0, 2.0], count).tolist() if clustered else None
    asked = np.concatenate([keys, keys + np.float32(0.5), (drawn.integers(0, 4, (9, 3)) + offset)])
    asked = asked.astype(np.float32)
    with tempfile.TemporaryDirectory() as folder:
        project = project_of(Path(folder) / "p", keys, labels, radii)
        table = table_of(project)
        for k in (1, 8):
            ours, theirs = table.nearest(asked, k), project.nearest(asked, k)
            assert [[vars(each) for each in row] for row in ours] == [
                [{name: getattr(each, name) for name in vars(ours[0][0])} for each in row] for row in theirs
            ]
        queries = [Query([Record(key, np.empty((0, 0), np.float16))], ["x"]) for key in asked]
        assert Radius().routes(queries, table) == Radius().routes(queries, project)
        names = [view.edit_id for view in project.edits()][::-1]
        np.testing.assert_array_equal(table.keys(names), project.keys(names))
        for mine, its in zip(table.tokens(names), project.tokens(names), strict=True):
            np.testing.assert_array_equal(np.asarray(mine), np.asarray(its))


def test_many_near_keys_are_ranked_as_exactly_as_by_the_store() -> None:
    drawn = np.random.default_rng(0)
    keys = (100 + 1e-4 * drawn.standard_normal((300, 16))).astype(np.float32)
    asked = (100 + 1e-4 * drawn.standard_normal((20, 16))).astype(np.float32)
    rows = [{"edit_id": f"e{number:06d}", "adapter": None} for number in range(1, 301)]
    table = NeuronTable(rows, {"keys": torch.tensor(keys)})
    distances = np.linalg.norm(asked[:, None].astype(np.float64) - keys, axis=2)
    newest_first = [np.lexsort((-np.arange(300), row))[:8] + 1 for row in distances]
    nearest = [[int(each.edit_id[1:]) for each in row] for row in table.nearest(asked, 8)]
    assert nearest == [row.tolist() for row in newest_first]


@pytest.mark.parametrize("k", [1, 8])
def test_a_table_without_neurons_finds_none(k: int) -> None:
    table = NeuronTable([], {"keys": torch.empty(0, 3)})
    assert table.nearest(np.zeros((2, 3), np.float32), k) == [[], []]
