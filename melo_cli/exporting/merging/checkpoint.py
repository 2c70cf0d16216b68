"""Writes a base model with changed weights, shard by shard, without loading it."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from melo_cli.base_model import BaseModel
from melo_cli.errors import ExportError
from melo_cli.exporting.base_copy import base_config, copy_settings
from melo_cli.exporting.tensor_files import Advance, Shard, TensorSpec, open_shard, write_tensors
from melo_cli.fingerprint import weight_files
from melo_cli.reporter import Reporter

_INDEX = "model.safetensors.index.json"


class WeightChanges(Protocol):
    """What becomes of the base's weights, one by one."""

    @property
    def parameters(self) -> Collection[str]:
        """Names of the changed parameters in the model."""

    @property
    def settings(self) -> Mapping[str, Any]:
        """What changes in the config."""

    def shape(self, parameter: str, was: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of one after the change."""

    def apply(self, parameter: str, weight: Tensor) -> Tensor:
        """One after the change, from what it is in the base, float32, which may be overwritten."""


class Additions(ABC):
    """`WeightChanges` that are added, and change no shape."""

    @property
    @abstractmethod
    def parameters(self) -> Collection[str]:
        """Names of the changed parameters in the model."""

    @abstractmethod
    def of(self, parameter: str) -> Tensor:
        """The change of one, float32, in its own shape."""

    @property
    def settings(self) -> Mapping[str, Any]:
        return {}

    def shape(self, parameter: str, was: tuple[int, ...]) -> tuple[int, ...]:
        return was

    def apply(self, parameter: str, weight: Tensor) -> Tensor:
        return weight.add_(self.of(parameter))


def write_checkpoint(
    base: BaseModel, changes: WeightChanges, work: Path, dtype: torch.dtype | None, reporter: Reporter
) -> None:
    """Write the changed base as safetensors in the shards of the base, with config and tokenizer.

    Changes are made in float32 and cast once. In memory is one tensor at a time, with its change.

    Args:
        dtype: of the weights; that of the checkpoint if None.

    Raises:
        ExportError: the base is quantized, or its checkpoint stores a changed weight under another name.
    """
    require_plain(base)
    paths = weight_files(base.folder)
    shards = [open_shard(path) for path in paths]
    changed = stored_names(base, changes.parameters, [name for shard in shards for name in shard.tensors])
    specs = [[_spec(spec, dtype, changes, changed) for spec in shard.tensors.values()] for shard in shards]
    names = _file_names(paths)
    total = sum(spec.nbytes for shard in specs for spec in shard)
    copy_settings(base, work, {**changes.settings, **({} if dtype is None else _dtype_settings(dtype))})
    with reporter.progress("writing", total, "bytes") as progress:
        for name, shard, wanted in zip(names, shards, specs, strict=True):
            _write_shard(work / name, shard, wanted, changes, changed, progress.advance)
    (work / _INDEX).unlink(missing_ok=True)
    if len(names) > 1:
        _write_index(work / _INDEX, names, specs, total)


def require_plain(base: BaseModel) -> None:
    """A sum with weights of four or eight bits would not be one.

    Raises:
        ExportError: the base is quantized.
    """
    method = (base_config(base).get("quantization_config") or {}).get("quant_method")
    if method is not None:
        raise ExportError(
            f"the base model is quantized ({method}), and changes cannot be added to such weights",
            where=base.reference.describe(),
            mend="use --format peft or --format routed, which leave the base as it is, or make the project "
            "on the model that it was quantized from",
        )


def _write_shard(
    path: Path,
    shard: Shard,
    specs: list[TensorSpec],
    changes: WeightChanges,
    changed: Mapping[str, str],
    advance: Advance,
) -> None:
    def pieces(spec: TensorSpec) -> Iterator[Tensor]:
        weight = shard.read(spec.name)
        if spec.name in changed:
            weight = changes.apply(changed[spec.name], weight.float())
        yield weight.to(spec.dtype)

    write_tensors(path, specs, pieces, advance)


def stored_names(base: BaseModel, parameters: Collection[str], stored: Collection[str]) -> dict[str, str]:
    """For each changed tensor of the checkpoint the parameter it becomes.

    A checkpoint may be saved without the model's outer name (`h.0.` for `transformer.h.0.`) or with one
    more, and tied weights under any of their names.
    """
    names: dict[int, list[str]] = {}
    for name, weight in base.model.named_parameters(remove_duplicate=False):
        # An opened project has its target modules wrapped.
        names.setdefault(id(weight), []).append(name.replace(".base_layer.", "."))
    tied = {name: group for group in names.values() for name in group}
    found: dict[str, str] = {}
    for parameter in parameters:
        hits = [name for name in stored if any(_same(name, each) for each in tied[parameter])]
        if not hits:
            raise ExportError(
                f"its checkpoint has no tensor of the name {parameter}",
                where=base.reference.describe(),
                mend="save the base again with transformers' save_pretrained, and give that folder as --base",
            )
        found.update(dict.fromkeys(hits, parameter))
    return found


def _same(stored: str, parameter: str) -> bool:
    return stored == parameter or parameter.endswith(f".{stored}") or stored.endswith(f".{parameter}")


def _spec(
    spec: TensorSpec, dtype: torch.dtype | None, changes: WeightChanges, changed: Mapping[str, str]
) -> TensorSpec:
    kept = dtype is None or not spec.dtype.is_floating_point
    parameter = changed.get(spec.name)
    shape = spec.shape if parameter is None else changes.shape(parameter, spec.shape)
    return TensorSpec(spec.name, spec.dtype if kept else dtype or spec.dtype, shape)


def _dtype_settings(dtype: torch.dtype) -> dict[str, str]:
    # Under both of the names that transformers has for it.
    return dict.fromkeys(("dtype", "torch_dtype"), str(dtype).removeprefix("torch."))


def _file_names(paths: list[Path]) -> list[str]:
    if len(paths) == 1:
        return ["model.safetensors"]
    return [f"model-{place:05d}-of-{len(paths):05d}.safetensors" for place in range(1, len(paths) + 1)]


def _write_index(path: Path, names: list[str], specs: list[list[TensorSpec]], total: int) -> None:
    places = {spec.name: name for name, shard in zip(names, specs, strict=True) for spec in shard}
    index = {"metadata": {"total_size": total}, "weight_map": places}
    path.write_text(json.dumps(index, indent=2, sort_keys=True) + "\n", encoding="utf-8")
