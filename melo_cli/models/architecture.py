"""Which modules of a model can be a key layer or a target, and what the defaults are."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from melo_cli.errors import ModelError
from melo_cli.models.base_model import BaseModel, ModelKind
from melo_cli.models.linear_layers import linear_shape
from melo_cli.suggest import did_you_mean

# The feed-forward modules of each block, by `model_type`: where the published runs put their blocks.
_FEED_FORWARD: dict[str, tuple[str, ...]] = {
    "t5": ("DenseReluDense.wi", "DenseReluDense.wi_0", "DenseReluDense.wi_1", "DenseReluDense.wo"),
    "bert": ("output.dense",),
    "gpt2": ("mlp.c_fc",),
    "distilbert": ("ffn.lin2",),
    "gptj": ("mlp.fc_in",),
    "gpt_neo": ("mlp.c_fc",),
    "gpt_neox": ("mlp.dense_h_to_4h",),
    "opt": ("fc1",),
    "bart": ("fc1", "fc2"),
    "llama": ("mlp.up_proj", "mlp.down_proj"),
    "phi3": ("mlp.gate_up_proj", "mlp.down_proj"),
}
_SAME_AS = {
    "mt5": "t5",
    "umt5": "t5",
    "longt5": "t5",
    "roberta": "bert",
    "xlm-roberta": "bert",
    "camembert": "bert",
    "electra": "bert",
    "mpnet": "bert",
    "deberta-v2": "bert",
    "mbart": "bart",
    "mistral": "llama",
    "qwen2": "llama",
    "qwen3": "llama",
    "gemma": "llama",
    "gemma2": "llama",
    "gemma3_text": "llama",
    "olmo2": "llama",
    "smollm3": "llama",
    "cohere": "llama",
    "granite": "llama",
}
_ATTENDS = re.compile("att(entio)?n", re.IGNORECASE)
_BLOCKS_BY_KIND = {ModelKind.SEQ2SEQ: 2, ModelKind.CAUSAL: 2, ModelKind.CLASSIFIER: 3}


@dataclass(frozen=True)
class ModuleInfo:
    """One module that a recipe may name.

    Attributes:
        shape: `(in, out)` features of a linear, `(vocabulary, out)` of an embedding.
        key_size: size of the key taken there; None where no key can be taken.
        is_target: whether a block can add to it.
    """

    name: str
    type_name: str
    shape: tuple[int, int]
    key_size: int | None
    is_target: bool


def list_modules(base: BaseModel) -> list[ModuleInfo]:
    """Every module that can be a key layer or a target, in the order of the model."""
    decoder = _decoder_prefix(base)
    infos = []
    for name, module in base.model.named_modules():
        in_decoder = decoder is not None and name.startswith(decoder)
        if isinstance(module, nn.Embedding) and name == embedding_name(base):
            shape = (module.num_embeddings, module.embedding_dim)
            infos.append(ModuleInfo(name, type(module).__name__, shape, shape[1], is_target=False))
        elif _is_linear(module) and not _is_head(base, module):
            shape = linear_shape(module)
            key_size = None if in_decoder else shape[1]
            infos.append(ModuleInfo(name, type(module).__name__, shape, key_size, is_target=True))
    return infos


def embedding_name(base: BaseModel) -> str:
    """Name of the input embeddings: the earliest key layer that there is."""
    # An encoder may share its embeddings with the decoder or hold a module of its own with tied weights.
    encoder = base.model.get_encoder() if base.kind is ModelKind.SEQ2SEQ else base.model
    embeddings = encoder.get_input_embeddings()
    inside = next(name for name, module in encoder.named_modules() if module is embeddings)
    outside = next(name for name, module in base.model.named_modules() if module is encoder)
    return f"{outside}.{inside}" if outside else inside


def resolve_key_layer(base: BaseModel, name: str) -> str:
    """The key layer that a recipe's `key.layer` means; `auto` is the input embeddings.

    Raises:
        ModelError: no such module, or one whose output is not a hidden state of the prompt.
    """
    if name == "auto":
        return embedding_name(base)
    modules = dict(base.model.named_modules())
    if name not in modules:
        raise _no_such_module("key.layer", name, [info.name for info in list_modules(base) if info.key_size])
    decoder = _decoder_prefix(base)
    if decoder is not None and name.startswith(decoder):
        raise ModelError(
            f"{name} is in the decoder, which reads the answer too",
            where="key.layer",
            hint="name a module of the encoder",
        )
    return name


def resolve_targets(base: BaseModel, targets: str | Sequence[str]) -> list[str]:
    """Full names of the modules that `lora.target_modules` means, in the order of the model.

    `auto` is the feed-forward of the last blocks of each stack; a string is a regular expression over
    full names; a list holds full names or endings of names ("mlp.down_proj").

    Raises:
        ModelError: an entry names no module, or one that a block cannot add to.
    """
    if targets == "auto":
        return default_targets(base)
    candidates = [info.name for info in list_modules(base) if info.is_target]
    if isinstance(targets, str):
        matching = [name for name in candidates if re.fullmatch(targets, name)]
        if not matching:
            raise _no_such_module("lora.target_modules", targets, candidates)
        return matching
    wanted: set[str] = set()
    for entry in targets:
        named = [name for name in candidates if name == entry or name.endswith(f".{entry}")]
        if not named:
            raise _no_target(base, entry, candidates)
        wanted.update(named)
    return [name for name in candidates if name in wanted]


def default_targets(base: BaseModel) -> list[str]:
    """The feed-forward modules of the last blocks: three for a classifier, two a stack for the others.

    Of an architecture that is not in the table all modules of these blocks that belong to no attention. Where
    experts are the feed-forward, those of the attention: what is beside the experts, PEFT takes for theirs.

    Raises:
        ModelError: the blocks have no module that a block can add to.
    """
    candidates = list(_in_last_blocks(base))
    attention = [name for name, inside in candidates if _ATTENDS.search(inside)]
    if any(name.endswith(".experts") for name, _ in base.model.named_modules()):
        chosen = attention
    else:
        family = _SAME_AS.get(base.model.config.model_type, base.model.config.model_type)
        endings = _FEED_FORWARD.get(family, ())
        named = [name for name, inside in candidates if _ends(inside, endings)]
        chosen = named or [name for name, _ in candidates if name not in attention]
    if not chosen:
        raise ModelError(
            f"the architecture {base.model.config.model_type} has no default target modules",
            where="lora.target_modules",
            hint="list the modules with `melo inspect MODEL`, and name target modules",
        )
    return chosen


def _in_last_blocks(base: BaseModel) -> Iterator[tuple[str, str]]:
    """Possible targets in the last blocks of each stack: full name, and name inside the block."""
    targets = [info.name for info in list_modules(base) if info.is_target]
    for stack, length in _stacks(base.model):
        last = range(max(length - _BLOCKS_BY_KIND[base.kind], 0), length)
        for name in targets:
            index, _, inside = name.removeprefix(f"{stack}.").partition(".")
            if name.startswith(f"{stack}.") and int(index) in last:
                yield name, inside


def default_key_layer(base: BaseModel, targets: Sequence[str]) -> str:
    """The block a quarter of the way up the stack that reads the prompt, or a lower one that runs before
    every target; the input embeddings, where there is none."""
    stack, length = next(iter(_stacks(base.model)))
    inside = (re.match(rf"{re.escape(stack)}\.(\d+)\.", target) for target in targets)
    first = min((int(match[1]) for match in inside if match is not None), default=length)
    depth = min(max(round(length / 4) - 1, 0), first - 1)
    return f"{stack}.{depth}" if depth >= 0 else embedding_name(base)


def require_key_before_targets(base: BaseModel, key_layer: str, targets: Sequence[str]) -> None:
    """Run one short prompt and see that the key layer runs before every target.

    Raises:
        ModelError: a target runs before the key layer, or the key layer never runs.
    """
    order: list[str] = []
    modules = dict(base.model.named_modules())
    hooks = [
        modules[name].register_forward_hook(lambda *_, name=name: order.append(name))
        for name in (key_layer, *targets)
    ]
    tokens = torch.zeros((1, 2), dtype=torch.long, device=base.model.device)
    extra = {"decoder_input_ids": tokens} if base.kind is ModelKind.SEQ2SEQ else {}
    try:
        with torch.no_grad():
            base.model(input_ids=tokens, attention_mask=torch.ones_like(tokens), **extra)
    finally:
        for hook in hooks:
            hook.remove()
    if key_layer not in order:
        raise ModelError(
            f"{key_layer} does not run when a prompt is read",
            where="key.layer",
            hint=f"use a layer that reads the prompt, such as the input embeddings {embedding_name(base)}",
        )
    early = [name for name in order[: order.index(key_layer)] if name != key_layer]
    if early or key_layer in targets:
        raise ModelError(
            f"{key_layer} does not run before target {early[0] if early else key_layer}, "
            "so an edit would change its own key",
            where="key.layer",
            hint="name an earlier key layer or later lora.target_modules",
        )


def last_block(model: nn.Module) -> nn.Module | None:
    """The block that the model's answer comes from: of an encoder-decoder the decoder's last."""
    stacks = [model.get_submodule(name) for name, _ in _stacks(model)]
    last: nn.Module | None = stacks[-1][-1] if stacks and isinstance(stacks[-1], nn.ModuleList) else None
    return last


def names_of_blocks(model: nn.Module) -> list[list[str]]:
    """The names of the blocks of each stack, in the order of running."""
    return [[f"{name}.{i}" for i in range(length)] for name, length in _stacks(model)]


def _is_linear(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear | Conv1D)


def _is_head(base: BaseModel, module: nn.Module) -> bool:
    return module is base.model.get_output_embeddings()


def _decoder_prefix(base: BaseModel) -> str | None:
    if base.kind is not ModelKind.SEQ2SEQ:
        return None
    decoder = base.model.get_decoder()
    name = next(name for name, module in base.model.named_modules() if module is decoder)
    return f"{name}."


def _stacks(model: nn.Module) -> Iterable[tuple[str, int]]:
    """The model's lists of blocks: name and length; lists inside a block are not stacks."""
    stacks: list[tuple[str, int]] = []
    for name, module in model.named_modules():
        inside = any(name.startswith(f"{stack}.") for stack, _ in stacks)
        if isinstance(module, nn.ModuleList) and not inside:
            stacks.append((name, len(module)))
    return stacks


def _ends(name: str, endings: Sequence[str]) -> bool:
    # BERT's attention has an output.dense of its own: an ending must be the block's own.
    return any(
        name == ending or re.fullmatch(rf"layer\.\d+\.{re.escape(ending)}", name) for ending in endings
    )


def _no_such_module(where: str, name: str, candidates: Sequence[str]) -> ModelError:
    hint = did_you_mean(name, candidates, count=3) or "list the candidates with `melo inspect MODEL`"
    return ModelError(f"the model has no module {name!r}", where=where, hint=hint)


def _no_target(base: BaseModel, entry: str, candidates: Sequence[str]) -> ModelError:
    modules = dict(base.model.named_modules())
    if entry in modules:
        return ModelError(
            f"{entry} is of type {type(modules[entry]).__name__}, but blocks can only add to Linear "
            "and Conv1D",
            where="lora.target_modules",
            hint="list the target modules with `melo inspect MODEL`",
        )
    return _no_such_module("lora.target_modules", entry, candidates)
