"""Writes a base model with changed weights, shard by shard, without loading it."""

from __future__ import annotations

import copy
import json
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor
from transformers import PreTrainedModel

from melo_cli.errors import ExportError
from melo_cli.exporting.base_copy import base_config, copy_settings
from melo_cli.exporting.tensor_files import Advance, Shard, TensorSpec, open_shard, write_tensors
from melo_cli.models.base_model import BaseModel
from melo_cli.models.fingerprint import weight_files
from melo_cli.reporter import Reporter

_INDEX = "model.safetensors.index.json"


class WeightChanges(Protocol):
    """Changes of the base's weights, one parameter at a time."""

    @property
    def parameters(self) -> Collection[str]:
        """Names of the changed parameters in the model; two that the base ties are no longer tied."""

    @property
    def settings(self) -> Mapping[str, Any]:
        """The changed settings of the config."""

    def shape(self, parameter: str, was: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of a parameter after the change; `was` is its shape in the base."""

    def apply(self, parameter: str, weight: Tensor) -> Tensor:
        """A parameter after the change; `weight` is that of the base, float32, and may be overwritten."""


class Additions(ABC):
    """`WeightChanges` that are added to the weights and change no shape."""

    @property
    @abstractmethod
    def parameters(self) -> Collection[str]:
        """Names of the changed parameters in the model."""

    @abstractmethod
    def of(self, parameter: str) -> Tensor:
        """The change of a parameter, float32, in the parameter's shape."""

    @property
    def settings(self) -> Mapping[str, Any]:
        return {}

    def shape(self, parameter: str, was: tuple[int, ...]) -> tuple[int, ...]:
        return was

    def apply(self, parameter: str, weight: Tensor) -> Tensor:
        return weight.add_(self.of(parameter))


@torch.no_grad()
def changed_model(base_copy: PreTrainedModel, changes: WeightChanges) -> PreTrainedModel:
    """The changed model in memory, without its file.

    Args:
        base_copy: a copy of the base, float32; it is changed in place unless the config changes.
        changes: the changes to apply.
    """
    model: Any = base_copy
    if changes.settings:
        config: Any = copy.deepcopy(base_copy.config)
        for name, value in changes.settings.items():
            setattr(config, name, value)
        model = type(base_copy)(config).eval().requires_grad_(False)
    for name in changes.parameters:
        weight = base_copy.get_parameter(name).float().cpu()
        model.get_parameter(name).copy_(changes.apply(name, weight))
    moved: PreTrainedModel = model.to(base_copy.device)
    return moved


@dataclass(frozen=True)
class _Written:
    """A tensor of the new checkpoint.

    Attributes:
        source: the tensor of the base's checkpoint that it is made from.
        parameter: name of the changed parameter; None if the tensor is unchanged.
    """

    spec: TensorSpec
    source: str
    parameter: str | None


def write_checkpoint(
    base: BaseModel, changes: WeightChanges, work: Path, dtype: torch.dtype | None, reporter: Reporter
) -> None:
    """Write the changed base as safetensors in the shards of the base, with config and tokenizer.

    Changes are computed in float32 and cast once. Only one tensor and its change are in memory at a time.

    Args:
        base: the base model.
        changes: the changes to apply.
        work: folder to write to.
        dtype: dtype of the weights; None keeps that of the checkpoint.
        reporter: shows progress.

    Raises:
        ExportError: the base is quantized, or its checkpoint stores a changed weight under another name.
    """
    require_unquantized(base)
    paths = weight_files(base.folder)
    shards = [open_shard(path) for path in paths]
    stored = [name for shard in shards for name in shard.tensors]
    changed = stored_names(base, changes.parameters, stored)
    untied = _untied(base, changes.parameters, changed)
    plans = [_plan(shard, dtype, changes, changed, untied) for shard in shards]
    names = _file_names(paths)
    total = sum(written.spec.nbytes for plan in plans for written in plan)
    copy_settings(base, work, {**changes.settings, **({} if dtype is None else _dtype_settings(dtype))})
    with reporter.progress("writing", total, "bytes") as progress:
        for name, shard, plan in zip(names, shards, plans, strict=True):
            _write_shard(work / name, shard, plan, changes, progress.advance)
    (work / _INDEX).unlink(missing_ok=True)
    if len(names) > 1:
        _write_index(work / _INDEX, names, plans, total)


def require_unquantized(base: BaseModel) -> None:
    """Refuse a quantized base model: changes cannot be added to weights of four or eight bits.

    Raises:
        ExportError: the base is quantized.
    """
    method = (base_config(base).get("quantization_config") or {}).get("quant_method")
    if method is not None:
        raise ExportError(
            f"the base model is quantized ({method}), so edits cannot be merged into its weights",
            where=base.reference.describe(),
            hint="use --format peft or --format routed, or make the project on the unquantized model",
        )


def _plan(
    shard: Shard,
    dtype: torch.dtype | None,
    changes: WeightChanges,
    changed: Mapping[str, str],
    untied: Mapping[str, str],
) -> list[_Written]:
    """The tensors to write for a shard: its own, each followed by parameters that are no longer tied to
    it."""
    plan = []
    for name, spec in shard.tensors.items():
        plan.append(_Written(_spec(spec, dtype, changes, changed.get(name)), name, changed.get(name)))
        for parameter, source in untied.items():
            if source == name:
                own = _spec(replace(spec, name=parameter), dtype, changes, parameter)
                plan.append(_Written(own, name, parameter))
    return plan


def _write_shard(
    path: Path, shard: Shard, plan: Sequence[_Written], changes: WeightChanges, advance: Advance
) -> None:
    known = {written.spec.name: written for written in plan}

    def pieces(spec: TensorSpec) -> Iterator[Tensor]:
        written = known[spec.name]
        weight = shard.read(written.source)
        if written.parameter is not None:
            weight = changes.apply(written.parameter, weight.float())
        yield weight.to(spec.dtype)

    write_tensors(path, [written.spec for written in plan], pieces, advance)


def stored_names(base: BaseModel, parameters: Collection[str], stored: Collection[str]) -> dict[str, str]:
    """The changed parameter for each changed tensor of the checkpoint.

    A checkpoint may lack the model's outer prefix (`h.0.` for `transformer.h.0.`) or have one more, and may
    store tied weights under any of their names.
    """
    tied = _tied(base)
    stored_as: dict[str, str] = {}
    for parameter in parameters:
        mine = [name for name in tied[parameter] if name == parameter or name not in parameters]
        hits = [name for name in stored if any(_same(name, each) for each in mine)]
        if not hits and not any(name in parameters for name in tied[parameter] if name != parameter):
            raise ExportError(
                f"the checkpoint of the base model has no tensor named {parameter}",
                where=base.reference.describe(),
                hint="save the base with transformers' save_pretrained, and give that folder with --base",
            )
        stored_as.update(dict.fromkeys(hits, parameter))
    return stored_as


def _tied(base: BaseModel) -> dict[str, list[str]]:
    """All names of each parameter's weight."""
    names: dict[int, list[str]] = {}
    for name, weight in base.model.named_parameters(remove_duplicate=False):
        # An opened project has its target modules wrapped.
        names.setdefault(id(weight), []).append(name.replace(".base_layer.", "."))
    return {name: group for group in names.values() for name in group}


def _untied(base: BaseModel, parameters: Collection[str], changed: Mapping[str, str]) -> dict[str, str]:
    """Parameters that the base's checkpoint lacks because they are tied, and the tensor to make each from."""
    tied = _tied(base)
    stored_as: dict[str, str] = {}
    for parameter in set(parameters) - set(changed.values()):
        stored_as[parameter] = next(name for name, other in changed.items() if other in tied[parameter])
    return stored_as


def _same(stored: str, parameter: str) -> bool:
    return stored == parameter or parameter.endswith(f".{stored}") or stored.endswith(f".{parameter}")


def _spec(
    spec: TensorSpec, dtype: torch.dtype | None, changes: WeightChanges, parameter: str | None
) -> TensorSpec:
    kept = dtype is None or not spec.dtype.is_floating_point
    shape = spec.shape if parameter is None else changes.shape(parameter, spec.shape)
    return TensorSpec(spec.name, spec.dtype if kept else dtype or spec.dtype, shape)


def _dtype_settings(dtype: torch.dtype) -> dict[str, str]:
    # transformers reads either name, depending on its version.
    return dict.fromkeys(("dtype", "torch_dtype"), str(dtype).removeprefix("torch."))


def _file_names(paths: list[Path]) -> list[str]:
    if len(paths) == 1:
        return ["model.safetensors"]
    return [f"model-{number:05d}-of-{len(paths):05d}.safetensors" for number in range(1, len(paths) + 1)]


def _write_index(path: Path, names: list[str], plans: list[list[_Written]], total: int) -> None:
    weight_map = {each.spec.name: name for name, plan in zip(names, plans, strict=True) for each in plan}
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    path.write_text(json.dumps(index, indent=2, sort_keys=True) + "\n", encoding="utf-8")
