"""Estimates memory and disk of a run, from the sizes of the model and the recipe alone.

The figures are rough: what stands below as a factor was measured on small models on a CPU.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from melo_cli.datasets import EditRequest
from melo_cli.errors import ModelError
from melo_cli.machine import held_memory
from melo_cli.models.architecture import list_modules, names_of_blocks, resolve_targets
from melo_cli.models.base_model import BaseModel, ModelKind, held_dtype
from melo_cli.models.fingerprint import weight_files
from melo_cli.models.hub_cache import cached_checkpoint
from melo_cli.models.linear_layers import linear_shape
from melo_cli.recipe import ModelSection, Recipe
from melo_cli.runtime.loading import encoder_for

_FLOAT = 4
_STORED = {"float32": 4, "float16": 2, "int8": 1}
"""Bytes of a number of a block, by `lora.store_dtype`."""
_KEPT_A_FEATURE = 2.2
"""Numbers kept for the backward pass, for each feature that a linear module of a trained block gives."""
_PASSING = 4
"""Copies of the widest hidden state that come and go in a pass."""
_A_LOGIT = 16
"""Bytes: logits, their logarithmic softmax and the gradients of both, float32."""
_A_PARAMETER = 24
"""Bytes: the parameter, its gradient, Adam's two moments and what the step itself puts beside them."""
_WORDS_A_QUESTION = 72
"""Words that are read of the corpus for each of `calibration.questions`."""
_COPIES_OF_READINGS = 2
_EXTRA_VARIANT_TOKENS = 12
"""Tokens by which a variant of a prompt may be longer."""
_AN_EDIT_ON_DISK = 2_000
"""Bytes: text and records."""
_A_BLOCK_ON_DISK = 1_300
"""Bytes besides a block's numbers: the names and shapes of its modules."""
_A_COMMIT_ON_DISK = 8_000
"""Bytes of a commit's own: its recipe, and what each of its files begins and ends with."""
_WORDS_A_PROMPT = 12
_TOKEN_VECTOR = 150
"""Bytes of one word's vector in a neuron, under the rule `verified`."""
_KEY_MAP_A_FEATURE = 4_000
"""Bytes of the scope model in the project, for each feature of a hidden state."""
_LONGEST_LOOKED_AT = 32
"""Prompts that are tokenized, the longest ones: a pass is as long as its longest row."""


@dataclass(frozen=True)
class ModelSizes:
    """The sizes that memory depends on, from a model without its weights.

    Attributes:
        weights: how many there are.
        stored: as what the checkpoint holds them.
        width: of a hidden state.
        vocabulary: logits a position; 0 for a classifier.
        fixed_blocks: blocks below the first target, whose states alone are kept.
        trained_features: features of all linear modules of the other blocks.
        widest: of them, the most of one module.
        scores: attention heads of those blocks, where the scores of each are kept; else 0.
        targets: `(in, out)` of each target.
        longest: tokens of the longest prompt with its target.
        answer: tokens of a target, the mean.
        read_width: of a hidden state of what reads prompts: the base, or the sentence encoder.
        encoder: bytes of the sentence encoder; 0 where there is none or it is not here yet.
    """

    weights: int
    stored: torch.dtype
    width: int
    vocabulary: int
    fixed_blocks: int
    trained_features: int
    widest: int
    scores: int
    targets: tuple[tuple[int, int], ...]
    longest: int
    answer: float
    read_width: int
    encoder: int


@dataclass(frozen=True)
class Needs:
    """Bytes.

    Attributes:
        model: the base's weights and the sentence encoder's.
        work: at most, beside them: learning scope or training blocks.
        disk: what the edits add to the project.
        held: what the process has taken of the same memory already.
    """

    model: int
    work: int
    disk: int
    held: int = 0

    @property
    def memory(self) -> int:
        """What is still to be taken."""
        return self.model + self.work

    @property
    def peak(self) -> int:
        """The most that is held at a time."""
        return self.held + self.memory


def sizes_of(outline: BaseModel, recipe: Recipe, requests: Sequence[EditRequest]) -> ModelSizes:
    """The sizes that memory and disk depend on.

    Args:
        outline: the base model without weights.
        recipe: names target modules and sentence encoder.
        requests: the edits; the lengths of their prompts and targets count.

    Returns:
        The sizes, in numbers of parameters, features and tokens.

    Raises:
        MeloError: a target module is missing, or an edit does not fit the model.
    """
    model = outline.model
    targets = resolve_targets(outline, recipe.lora.target_modules)
    stacks = names_of_blocks(model)
    trained = _trained_blocks(stacks, targets)
    features = [info.shape[1] for info in list_modules(outline) if info.is_target and _in(info.name, trained)]
    vocabulary, width = model.get_input_embeddings().get_parameter("weight").shape
    read_width, encoder = _encoder_sizes(recipe.key.encoder, width)
    generates = outline.kind is not ModelKind.CLASSIFIER
    lengths = _lengths(outline, recipe, requests)
    heads = getattr(model.config.get_text_config(), "num_attention_heads", 0)
    keeps_scores = model.config._attn_implementation == "eager"
    return ModelSizes(
        weights=sum(each.numel() for each in model.parameters()),
        stored=model.dtype,
        width=width,
        vocabulary=vocabulary if generates else 0,
        fixed_blocks=sum(map(len, stacks)) - len(trained),
        trained_features=sum(features),
        widest=max(features, default=width),
        scores=len(trained) * heads if keeps_scores else 0,
        targets=tuple(linear_shape(model.get_submodule(name)) for name in targets),
        longest=max(sum(pair) for pair in lengths),
        answer=sum(target for _, target in lengths) / len(lengths),
        read_width=read_width,
        encoder=encoder,
    )


def needs_of(sizes: ModelSizes, recipe: Recipe, edits: int, device: torch.device, *, learns: bool) -> Needs:
    """The needs of a number of edits under a recipe.

    Args:
        sizes: the sizes of the base model.
        recipe: the recipe.
        edits: how many edits are made.
        device: where the model runs.
        learns: whether scope is learnt first.

    Returns:
        Bytes of memory and disk.
    """
    training = recipe.training
    blocks = math.ceil(edits / training.batch_size)
    vectors = _WORDS_A_PROMPT * _TOKEN_VECTOR if recipe.routing.scope == "verified" else 0
    records = edits * (_AN_EDIT_ON_DISK + vectors + _FLOAT * sizes.width)
    model = sizes.weights * weight_type(sizes, recipe.model, device).itemsize + sizes.encoder
    work = [
        _training_bytes(sizes, recipe, min(edits, training.batch_size * training.blocks_in_flight), device)
    ]
    if learns and device.type != "cuda":
        work.append(_learning_bytes(sizes, recipe))
    key_map = _KEY_MAP_A_FEATURE * sizes.width if learns else 0
    commits = math.ceil(blocks / training.blocks_in_flight)
    disk = blocks * _block_on_disk(sizes, recipe) + commits * _A_COMMIT_ON_DISK + records + key_map
    held = held_memory() if device.type != "cuda" else 0
    return Needs(model, max(work), disk, held)


def weight_type(sizes: ModelSizes, section: ModelSection, device: torch.device) -> torch.dtype:
    """As what the weights lie in memory."""
    return held_dtype(section, sizes.stored, device) or sizes.stored


def _block_on_disk(sizes: ModelSizes, recipe: Recipe) -> int:
    """Bytes of a block."""
    lora = recipe.lora
    numbers = sum(lora.rank * (out if lora.frozen_a else inside + out) for inside, out in sizes.targets)
    return _A_BLOCK_ON_DISK + numbers * _STORED[lora.store_dtype]


def _training_bytes(sizes: ModelSizes, recipe: Recipe, edits: int, device: torch.device) -> int:
    """At the largest group: hidden states, logits, and the blocks with what their optimizers keep."""
    training = recipe.training
    number = weight_type(sizes, recipe.model, device).itemsize
    rows = edits * (1 + training.variants)
    length = sizes.longest + (_EXTRA_VARIANT_TOKENS if training.variants else 0)
    a_token = (
        sizes.fixed_blocks * sizes.width
        + _KEPT_A_FEATURE * sizes.trained_features
        + _PASSING * max(sizes.widest, sizes.width)
        + sizes.scores * length
    )
    logits = rows * sizes.answer * sizes.vocabulary * _A_LOGIT
    blocks = math.ceil(edits / training.batch_size)
    parameters = blocks * sum(recipe.lora.rank * (inside + out) for inside, out in sizes.targets)
    return int(rows * length * a_token * number + logits + parameters * _A_PARAMETER)


def _learning_bytes(sizes: ModelSizes, recipe: Recipe) -> int:
    """States of the corpus's words at two layers, float32, and copies of them while they are put in order."""
    words = recipe.calibration.questions * _WORDS_A_QUESTION
    return words * sizes.read_width * 2 * _FLOAT * _COPIES_OF_READINGS


def _trained_blocks(stacks: Sequence[Sequence[str]], targets: Sequence[str]) -> list[str]:
    """The blocks that a gradient runs through: from the first target of a stack up.

    Whatever an encoder's gradient runs through, the decoder that reads it is run through as a whole.
    """
    names: list[str] = []
    for blocks in stacks:
        edited = (i for i, block in enumerate(blocks) if any(_in(name, [block]) for name in targets))
        names += blocks[0 if names else next(edited, len(blocks)) :]
    return names


def _in(name: str, blocks: Sequence[str]) -> bool:
    return any(name.startswith(f"{block}.") for block in blocks)


def _lengths(outline: BaseModel, recipe: Recipe, requests: Sequence[EditRequest]) -> list[tuple[int, int]]:
    """Tokens of prompt and target of the longest requests."""
    encoder = encoder_for(recipe, outline)
    longest = sorted(requests, key=lambda each: len(each.prompt) + len(each.target))[-_LONGEST_LOOKED_AT:]
    encoded = [encoder.edit(each.prompt, each.target) for each in longest]
    return [(len(each.prompt_ids), len(each.target_ids)) for each in encoded]


def _encoder_sizes(name: str | None, width: int) -> tuple[int, int]:
    """Width and bytes of a sentence encoder; where none is here, the base's width and 0."""
    if name is None:
        return width, 0
    path = Path(name).expanduser()
    folder = path if path.is_dir() else cached_checkpoint(name, None)
    try:
        if folder is None:
            return width, 0
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        return config.get("hidden_size", width), sum(file.stat().st_size for file in weight_files(folder))
    except (ModelError, OSError, ValueError):
        return width, 0  # loading it says what is wrong with it
