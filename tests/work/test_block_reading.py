"""Where a block's prompts are read once, as a tree of tokens, losses are those of plain passes over rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from pico_architectures import ARCHITECTURES, recipe_of
from torch import Tensor

from melo_cli.editing import shortcuts as shortcuts_module
from melo_cli.editing.block_reading import FrozenPart
from melo_cli.editing.head_in_parts import losses_in_parts
from melo_cli.editing.shortcuts import Shortcuts, sees_all_before, shortcuts_for
from melo_cli.editing.token_tree import TokenTree, shared_beginning, tree_batch
from melo_cli.editing.training import TrainedBlock, train_blocks
from melo_cli.models.base_model import BaseModel, load_base_model
from melo_cli.models.encoding import EncodedEdit, Encoder
from melo_cli.recipe import Recipe
from melo_cli.runtime.loading import resolve_recipe, tuner_for
from melo_cli.runtime.scoring import target_batch, target_losses
from melo_cli.tuner import DynamicLoraModel

Built = Callable[[str], Path]
STEPS = 5
DECODERS = [name for name, (kind, _) in ARCHITECTURES.items() if kind.endswith(("CausalLM", "LMHeadModel"))]
TREES = {
    *("llama", "mixtral", "qwen2", "qwen2_moe", "qwen3", "qwen3_moe", "gemma", "phi", "phi3", "gpt2"),
    *("gpt_neox", "gptj", "codegen", "gpt_bigcode", "stablelm", "olmo", "olmo2", "smollm3", "nemotron"),
    *("granite", "cohere", "glm", "deepseek_v2", "deepseek_v3", "starcoder2", "opt", "falcon"),
    *("opt_projected", "xglm"),
}
# Beginnings of one token to nearly all, one prompt that is another's beginning, one twice.
BLOCKS = [
    [
        ("Who is the prime minister of Britain?", "John Smith"),
        ("Who is the prime minister of", "John Smith"),
        ("Who is the tower, and by whom was it built in the year?", "John"),
        ("Who is the prime minister of Britain?", "London"),
    ],
    [("Who was built in 1889?", "the river of the city")],
]


class Base:
    """An architecture with its targets wrapped."""

    def __init__(self, model: Path, folder: Path) -> None:
        recipe = recipe_of(model, folder, "auto")
        self.base: BaseModel = load_base_model(recipe.model, "custom")
        self.recipe: Recipe = resolve_recipe(recipe, self.base)
        self.tuner: DynamicLoraModel = tuner_for(self.recipe, self.base)
        encoder = Encoder(self.base)
        self.blocks = [[encoder.edit(*pair) for pair in pairs] for pairs in BLOCKS]

    def trained(self) -> list[TrainedBlock]:
        gentle = {"max_steps": STEPS, "stop_at": None, "blocks_in_flight": 2}
        gentle["optimizer"] = self.recipe.training.optimizer.model_validate(
            {"name": "Adam", "lr": 0.004, "eps": 1e-3}
        )
        training = self.recipe.training.model_copy(update=gentle)
        return train_blocks(self.base, self.tuner, self.blocks, training, rank=2, scale=4.0, seed=3)

    def shortcuts(self) -> Shortcuts:
        return shortcuts_for(self.base, self.tuner, self.blocks[0])


@pytest.mark.parametrize("name", DECODERS)
def test_losses_are_those_of_plain_passes_over_rows(
    name: str, built: Built, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = Base(built(name), tmp_path)
    found = opened.shortcuts()
    assert (found.tree is not None) == (name in TREES)
    quick = opened.trained()
    plain = Shortcuts(fixed_part=False, last_block=False, few_logits=False)
    monkeypatch.setitem(shortcuts_module._cache, opened.tuner, plain)
    for one, other in zip(quick, opened.trained(), strict=True):
        assert abs(other.losses[-1] - other.losses[0]) > 1e-3
        np.testing.assert_allclose(one.losses, other.losses, atol=1e-4, rtol=0)
        for module, piece in other.slices.items():
            np.testing.assert_allclose(one.slices[module].B, piece.B, atol=1e-4)


def losses_of_trees(opened: Base, part: FrozenPart) -> Tensor:
    """Losses of the base model on what it has read as trees."""
    readings = part.read(opened.base, opened.blocks)
    batch = tree_batch(opened.base, [reading.tree for reading in readings])
    with torch.no_grad(), part.handed_out(readings):
        return target_losses(opened.base, batch)


def plain_losses(opened: Base) -> Tensor:
    """The same by transformers' forward on each text alone."""
    losses = []
    for edit in (edit for block in opened.blocks for edit in block):
        ids = torch.tensor([[*edit.prompt_ids, *edit.target_ids]])
        with torch.no_grad():
            scores = opened.base.model(input_ids=ids).logits[0].log_softmax(-1)
        first = len(edit.prompt_ids) - 1
        losses += [-scores[first + i, token] for i, token in enumerate(edit.target_ids)]
    return torch.stack(losses)


@pytest.mark.parametrize("name", ["llama", "gpt2", "qwen3", "opt"])
def test_a_tree_has_the_losses_of_each_text_alone(name: str, built: Built, tmp_path: Path) -> None:
    opened = Base(built(name), tmp_path)
    part = opened.shortcuts().tree
    assert part is not None
    assert shared_beginning([edit for block in opened.blocks for edit in block]) > 0
    torch.testing.assert_close(losses_of_trees(opened, part), plain_losses(opened), atol=1e-4, rtol=0)


@pytest.mark.parametrize("wrong", ["positions", "mask", "beginning"])
def test_a_tree_that_is_read_wrongly_shows(
    wrong: str, built: Built, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the tests above compare depends on positions, mask, and the beginning that is read once."""
    opened = Base(built("llama"), tmp_path)
    part = opened.shortcuts().tree
    assert part is not None
    own = TokenTree.part

    def spoilt(tree: TokenTree, base: BaseModel, start: int, stop: int) -> dict[str, Tensor]:
        inputs = own(tree, base, start, stop)
        if wrong == "positions" and start:
            inputs["position_ids"] = inputs["position_ids"] - start
        if wrong == "mask" and start:
            inputs["attention_mask"] = torch.full_like(inputs["attention_mask"], -1e9).triu(start + 1)
        if wrong == "beginning" and not start:
            inputs["input_ids"] = inputs["input_ids"] + 1
        return inputs

    monkeypatch.setattr(TokenTree, "part", spoilt)
    difference = (losses_of_trees(opened, part) - plain_losses(opened)).abs().max()
    assert difference > 1e-2


@pytest.mark.parametrize(
    ("name", "last"),
    [
        ("llama", "model.norm"),
        ("gptj", "transformer.ln_f"),  # its head has a bias
        ("t5", "decoder.final_layer_norm"),
        ("gpt2", "transformer.ln_f"),
    ],
)
def test_losses_in_parts_have_the_values_and_gradients_of_whole_logits(
    name: str, last: str, built: Built, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("melo_cli.editing.head_in_parts._PART", {"cpu": 7})
    opened = Base(built(name), tmp_path)
    norm = opened.base.model.get_submodule(last)
    batch = target_batch(opened.base, opened.blocks[0])
    results = []
    for of_targets in (losses_in_parts, target_losses):
        states: list[Tensor] = []

        def watch(_module: object, _args: object, output: Tensor, states: list[Tensor] = states) -> None:
            states.append(output.requires_grad_())

        hook = norm.register_forward_hook(watch)
        losses = of_targets(opened.base, batch)
        hook.remove()
        weighted = (losses * torch.arange(len(losses))).sum()
        results.append((losses, *torch.autograd.grad(weighted, states[0])))
    (ours, our_gradient), (theirs, their_gradient) = results
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-5)
    assert their_gradient.abs().max() > 1e-3
    torch.testing.assert_close(our_gradient, their_gradient, atol=1e-4, rtol=1e-3)


def test_a_window_or_another_kind_of_model_is_read_in_rows(built: Built, tmp_path: Path) -> None:
    for name in ("mistral", "gemma2", "gpt_neo", "bloom", "t5", "bert"):
        (tmp_path / name).mkdir()
        section = recipe_of(built(name), tmp_path / name, "auto").model
        assert not sees_all_before(load_base_model(section, "custom"))


def test_the_tree_holds_each_beginning_once() -> None:
    edits = [EncodedEdit((5, 6, 7), (1, 2)), EncodedEdit((5, 6, 8, 9), (3, 2)), EncodedEdit((5, 6), (4, 2))]
    shared = shared_beginning(edits)
    tree = TokenTree.of(edits, shared)
    assert shared == 1  # the third prompt ends with the second token, where its answer begins
    assert sorted(tree.ids.tolist()) == [1, 3, 4, 5, 6, 7, 8, 9]
    assert tree.read == 6
    paths = [tree.ids[tree.sees[node]][tree.positions[tree.sees[node]].argsort()] for node in tree.readers]
    assert [path.tolist() for path in paths] == [
        [5, 6, 7],
        [5, 6, 7, 1],
        [5, 6, 8, 9],
        [5, 6, 8, 9, 3],
        [5, 6],
        [5, 6, 4],
    ]
    assert tree.tokens.tolist() == [1, 2, 3, 2, 4, 2]
    assert shared_beginning([replace(edits[0], prompt_ids=(9,)), edits[1]]) == 0
