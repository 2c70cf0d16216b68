"""Models of the hub that are on this machine already, found without a network and without torch."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from huggingface_hub import try_to_load_from_cache
from huggingface_hub.errors import HFValidationError

from melo_cli.errors import ModelError

_WEIGHTS = ("model.safetensors", "pytorch_model.bin")


def is_hub_id(name: str) -> bool:
    """Whether a name that is no folder here can be a model of the hub: `name` or `owner/name`."""
    return not (Path(name).is_absolute() or name.startswith((".", "~")) or name.count("/") > 1)


def cached_checkpoint(name: str, revision: str | None) -> Path | None:
    """The folder of a hub model in the local cache; None where config or weights are not all there.

    Args:
        name: a hub id.
        revision: branch, tag or commit; None is the default branch.

    Raises:
        ModelError: the index of its shards is broken.
    """

    def find(file: str) -> Path | None:
        cached = try_to_load_from_cache(name, file, revision=revision)
        return Path(cached) if isinstance(cached, str) else None

    try:
        config = find("config.json")
    except HFValidationError:
        return None  # no model can have that name
    return config.parent if config is not None and any(_whole(find, file) for file in _WEIGHTS) else None


def _whole(find: Callable[[str], Path | None], weights: str) -> bool:
    """Whether weights are there, in one file or in all the shards that their index names."""
    if find(weights) is not None:
        return True
    index = find(f"{weights}.index.json")
    if index is None:
        return False
    try:
        shards = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        return all(find(shard) is not None for shard in shards)
    except (OSError, ValueError, LookupError) as error:
        raise ModelError(f"{index.name} cannot be read ({error})", where=str(index.parent)) from error
