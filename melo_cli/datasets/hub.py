"""Rows from a data set on the hub, through the optional `datasets` extra."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Literal

from melo_cli.datasets.rows import Row
from melo_cli.errors import DatasetError
from melo_cli.suggest import did_you_mean

Role = Literal["edits", "locality", "accurate"]

HUB_ID = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?(@\w[\w./-]*)?")
"""`name`, `owner/name`, and either with `@revision`."""

_SPLITS: dict[Role, tuple[str, ...]] = {
    "edits": ("edit", "test", "evaluation", "validation", "train"),
    "locality": ("train", "validation", "test", "evaluation"),
    "accurate": ("evaluation", "validation", "test", "train"),
}
"""The published runs edit on the test split and hold the training split to be unrelated."""


def read_hub(reference: str, *, role: Role, split: str | None) -> Iterator[Row]:
    """The rows of a hub data set.

    Args:
        reference: `owner/name` or `owner/name@revision`.
        role: what the rows are for; picks the split where none is given.
        split: its name, or a slice of it such as `train[:1000]`.

    Raises:
        DatasetError: the extra is not installed, the hub has no such data set, or it has no such split.
    """
    try:
        from datasets import get_dataset_split_names, load_dataset
        from datasets.exceptions import DatasetsError
    except ImportError as error:
        raise DatasetError(
            "is not a file, and hub data sets need an extra that is not installed",
            where=reference,
            hint='pip install "melo-cli[datasets]"',
        ) from error
    name, _, revision = reference.partition("@")
    try:
        chosen = split or _split(reference, get_dataset_split_names(name, revision=revision or None), role)
        rows: Iterator[Mapping[str, Any]] = iter(load_dataset(name, split=chosen, revision=revision or None))
    except (OSError, ValueError, RuntimeError, DatasetsError) as error:
        raise _hub_error(reference, error) from error
    for number, fields in enumerate(rows, start=1):
        yield Row(f"{reference} ({chosen}): row {number}", fields)


def _split(reference: str, names: list[str], role: Role) -> str:
    for wanted in _SPLITS[role]:
        if wanted in names:
            return wanted
    if len(names) == 1:
        return names[0]
    raise DatasetError(
        f"has the splits {', '.join(names)}",
        where=reference,
        hint="name a split with dataset.split, or use a file",
    )


def _hub_error(reference: str, error: Exception) -> DatasetError:
    """What the library said, and the way out for the commonest cause: data sets that come as a script."""
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    script = "scripts are no longer supported" in reason
    hint = f"try {reference.partition('@')[0]}@refs/convert/parquet" if script else _spelling(reference)
    return DatasetError(
        f"is not a file, and cannot be loaded from the hub ({reason})", where=reference, hint=hint
    )


def _spelling(reference: str) -> str:
    meant = did_you_mean(reference, _PUBLISHED, cutoff=0.8)
    return meant if meant and reference not in _PUBLISHED else "check the id, the split and the network"


_PUBLISHED = ("tomh/grace-scotus", "potsawee/wiki_bio_gpt3_hallucination", "stas/openwebtext-10k")
