"""Checks keys, token vectors, edits and blocks before they reach the store."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from melo_store.errors import InvalidEditError, KeyShapeError, UnknownEditError
from melo_store.projection import random_projection
from melo_store.quantization import Side, rounded
from melo_store.records import (
    STATUSES,
    KeyMap,
    LoraSlice,
    Matrix,
    NewEdit,
    Tokens,
    Vector,
    edit_id,
    number_of,
)

if TYPE_CHECKING:
    from melo_store.state import State

_LARGEST = 1e18  # a square beyond this does not fit float32
_INT64 = 1 << 63


def key_rows(keys: ArrayLike, dim: int | None) -> Vector:
    """Keys as float32 [n, d].

    Raises:
        KeyShapeError: they have another size than `dim`, or are not finite.
    """
    rows = np.ascontiguousarray(keys, np.float32)
    if rows.ndim != 2 or not rows.shape[1] or (dim is not None and rows.shape[1] != dim):
        raise KeyShapeError(
            f"keys have the shape {list(rows.shape)} instead of [n, {dim or 'd'}]",
            hint="use the key layer and the pooling of the project's recipe",
        )
    if not (np.abs(rows) < _LARGEST).all():
        raise KeyShapeError(
            "a key is not finite", hint="look for NaN or infinity in the model's hidden states"
        )
    return rows


def token_width(tokens: Tokens, width: int | None) -> int:
    """The width of the token vectors of one prompt.

    Raises:
        KeyShapeError: they are no float16 [n, width], or are not finite.
    """
    shape = np.shape(tokens)
    if len(shape) != 2 or not all(shape) or (width is not None and shape[1] != width):
        raise KeyShapeError(
            f"token vectors have the shape {list(shape)} instead of [n, {width or 'width'}]",
            hint="compute them in the same way for every prompt of the project",
        )
    if tokens.dtype != np.float16 or not np.isfinite(tokens).all():
        raise KeyShapeError(
            "token vectors must be float16 and finite", hint="scale them to the range of float16"
        )
    return int(shape[1])


def known_edit(state: State, name: str) -> int:
    """The number of an edit that is in the project.

    Raises:
        UnknownEditError: naming the nearest ids.
    """
    count = state.edits.count
    try:
        number = number_of(name, "e")
    except UnknownEditError:
        number = 0
    if 1 <= number <= count:
        return number
    raise UnknownEditError(
        f"the project has no edit '{name}'", where=str(state.root), hint=_nearest(name, count)
    )


def edits(
    new: Sequence[NewEdit],
    blocks: Mapping[str, Mapping[str, LoraSlice]],
    dim: int | None,
    width: int | None,
) -> tuple[int | None, int | None]:
    """Check edits with their blocks before they are staged.

    Returns:
        The sizes of a key and of a token vector; None where neither the project nor the edits have one.

    Raises:
        InvalidEditError: an edit or a block lacks something, or contradicts itself.
        KeyShapeError: a key or a token vector does not fit.
    """
    for at, edit in enumerate(new, 1):
        where = f"edit {at} ('{edit.prompt[:40]}')"
        if edit.status not in STATUSES:
            raise InvalidEditError(
                f"'{edit.status}' is not a status", where=where, hint=f"use one of {STATUSES}"
            )
        if edit.key is not None:
            dim = key_rows(edit.key[None], dim).shape[1]
        if edit.tokens is not None:
            width = token_width(edit.tokens, width)
        if edit.radius is not None and not 0 <= edit.radius < _LARGEST:
            raise InvalidEditError(
                f"{edit.radius} is not a radius", where=where, hint="use a number that is 0 or larger"
            )
        if not all(-_INT64 <= token < _INT64 for token in edit.label):
            raise InvalidEditError("the label has a number that is not a token id", where=where)
        if edit.status == "solved" and (edit.key is None or edit.block is None):
            raise InvalidEditError("a solved edit needs a key and a block", where=where)
        if edit.key is None and not (edit.tokens is None and edit.radius is None):
            raise InvalidEditError("token vectors and a radius need a key", where=where)
        if edit.status == "already_right" and edit.block is not None:
            raise InvalidEditError("an edit that is already right cannot have a block", where=where)
        if edit.status == "solved" and edit.block not in blocks:
            raise InvalidEditError(f"its block '{edit.block}' is missing", where=where)
    for name, slices in blocks.items():
        _block(name, slices)
    return dim, width


def rekeying(
    neurons: Sequence[int],
    key_map: KeyMap,
    keys: Mapping[str, Vector],
    tokens: Mapping[str, Tokens],
    radii: Mapping[str, float | None],
) -> tuple[Vector, int | None]:
    """Check what is to put a key map in force.

    Args:
        neurons: numbers of the edits that need a key.

    Returns:
        Their keys, float32 [n, d], and the size of a token vector; None where there is none.

    Raises:
        InvalidEditError: a key or radius is missing, one of anything is too many, or the key map is none.
        KeyShapeError: a key or a token vector does not fit the others.
    """
    for name, array in key_map.arrays.items():
        if not isinstance(array, np.ndarray) or array.dtype != np.float32 or not np.isfinite(array).all():
            raise InvalidEditError("an array must be float32 and finite", where=f"key map, array '{name}'")
    names = [edit_id(number) for number in neurons]
    wanted = set(names)
    every = (keys.keys(), "key"), (radii.keys(), "radius"), (tokens.keys() | wanted, "token vectors")
    for given, what in every:
        missing, extra = sorted(wanted - given), sorted(given - wanted)
        if missing or extra:
            mismatch = f"{missing[0]} needs a new {what}" if missing else f"{extra[0]} takes no {what}"
            raise InvalidEditError(
                f"{mismatch} ({len(missing)} are missing, {len(extra)} are unknown)",
                where="key map",
                hint="pass one for each edit that was committed with a key",
            )
    for name in names:
        radius = radii[name]
        if radius is not None and not 0 <= radius < _LARGEST:
            raise InvalidEditError(
                f"{radius} is not a radius", where=name, hint="use a number that is 0 or larger"
            )
    width = None
    for name in tokens:
        width = token_width(tokens[name], width)
    dim = len(keys[names[0]]) if names and np.ndim(keys[names[0]]) == 1 else None
    rows: Vector = np.empty((len(names), dim or 0), np.float32)
    for at, name in enumerate(names):
        rows[at] = key_rows(np.asarray(keys[name])[None], dim)[0]
    return rows, width


def _block(name: str, slices: Mapping[str, LoraSlice]) -> None:
    if not slices:
        raise InvalidEditError("a block needs a slice for at least one module", where=f"block '{name}'")
    for module, part in slices.items():
        where = f"block '{name}', module {module}"
        if part.A.ndim != 2 or part.B.ndim != 2 or part.A.shape[0] != part.B.shape[1]:
            raise InvalidEditError(
                f"A {list(part.A.shape)} and B {list(part.B.shape)} are not [rank, in] and [out, rank]",
                where=where,
            )
        if {part.A.dtype, part.B.dtype} - {np.dtype(np.float32), np.dtype(np.float16)}:
            raise InvalidEditError("A and B must be float32 or float16", where=where)
        if part.seed is not None and not np.array_equal(
            part.A, random_projection(part.seed, module, *part.A.shape)
        ):
            raise InvalidEditError(f"A is not the projection of seed {part.seed}", where=where)
        if not (np.isfinite(part.A).all() and np.isfinite(part.B).all() and np.isfinite(part.scale)):
            raise InvalidEditError(
                "the block has values that are not finite",
                where=where,
                hint="train with a lower learning rate",
            )
        if part.in_int8 and not _as_int8_keeps_them(part):
            raise InvalidEditError("A and B are not as int8 keeps them", where=where)


def _as_int8_keeps_them(part: LoraSlice) -> bool:
    sides: dict[Side, Matrix] = {"B": part.B} if part.seed is not None else {"A": part.A, "B": part.B}
    return all(
        np.array_equal(matrix, rounded(np.asarray(matrix, np.float32), side))
        for side, matrix in sides.items()
    )


def _nearest(name: str, count: int) -> str:
    if not count:
        return "the project has no edits"
    digits = "".join(char for char in name if char.isdecimal() and char.isascii())[:18]
    number = min(max(int(digits or "1"), 1), count)
    around = range(max(1, number - 2), min(count, number + 2) + 1)
    ids = [edit_id(each) for each in around]
    best = difflib.get_close_matches(name, ids, n=3, cutoff=0.0)
    return f"the nearest are {', '.join(sorted(best))} of {edit_id(1)} to {edit_id(count)}"
