"""Training runs the frozen part once a batch, and gives what the plain loop over the whole model gives."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from melo_cli.editing.frozen_prefix import frozen_prefix_run_once
from melo_cli.editing.fused_activations import fused_activations
from melo_cli.editing.last_block import last_block_where_read
from melo_cli.editing.shortcuts import Shortcuts, shortcuts_for
from melo_cli.editing.token_tree import TokenTree, shared_beginning
from melo_cli.editing.training import initial_parameters, train_block
from melo_cli.models.encoding import EncodedEdit
from melo_cli.runtime.loading import OpenProject
from melo_cli.runtime.scoring import target_batch, target_logits
from melo_cli.tuner import SliceBank

Pico = Callable[..., OpenProject]
STEPS = 6
# Prompts and targets of several lengths: every batch is padded.
PAIRS = [
    ("Who is the prime minister of Britain?", "John Smith of London"),
    ("Where does it end", "Cologne"),
    ("The tower was opened in the year that the court held", "1889"),
]
CLASSES = ["tax", "civil", "criminal"]
DECODERS = ("pico_gpt2", "pico_llama")
CASES = [
    ("pico_t5", "auto"),
    ("pico_t5", r"encoder\.block\.3\..*wo"),
    ("pico_t5", r"decoder\.block\.[23]\..*(wi|wo)"),
    ("pico_t5", r"encoder\.block\.[03]\..*SelfAttention\.[vo]"),
    ("pico_gpt2", "auto"),
    ("pico_gpt2", r"transformer\.h\.[1-3]\..*\.c_.*"),
    ("pico_gpt2", r"transformer\.h\.0\.attn\.c_attn"),
    ("pico_llama", "auto"),
    ("pico_llama", r"model\.layers\.1\.self_attn\.[vo]_proj"),
    ("pico_bert", "auto"),
    ("pico_bert", r"bert\.encoder\.layer\.2\.attention\.self\.query"),
]


def opened_with(pico: Pico, kind: str, targets: str) -> OpenProject:
    # Adam divides by the size of the gradient: where that is rounding error alone, a small `eps` makes a step
    # of it, and two ways of adding up the same sum part.
    training = {"batch_size": 4, "max_steps": STEPS, "optimizer": {"name": "Adam", "lr": 0.004, "eps": 1e-5}}
    return pico(kind, lora={"rank": 2, "alpha": 8, "target_modules": targets}, training=training)


def encoded(opened: OpenProject, kind: str) -> list[EncodedEdit]:
    targets = CLASSES if kind == "pico_bert" else [target for _, target in PAIRS]
    return [opened.encoder.edit(prompt, target) for (prompt, _), target in zip(PAIRS, targets, strict=True)]


def plain_losses(opened: OpenProject, edits: list[EncodedEdit]) -> list[float]:
    """The loop over the whole model, logits at every position, and no shortcut."""
    routed = opened.routed
    parameters = initial_parameters(routed.tuner, rank=2, seed=3)
    pairs = zip(*[iter(parameter.requires_grad_() for parameter in parameters)] * 2, strict=True)
    scale = torch.full((1,), 4.0)
    banks = {name: SliceBank(*pair, scale) for name, pair in zip(routed.tuner.layers, pairs, strict=True)}
    optimizer = torch.optim.Adam(parameters, lr=0.004, eps=1e-5)
    batch = target_batch(routed.base, edits)
    losses = []
    with routed.tuner.using(banks, [0] * len(edits)):
        for _ in range(STEPS):
            logits = target_logits(routed.base, batch)
            loss = nn.functional.cross_entropy(logits.flatten(0, 1), batch.targets.flatten())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    return losses


def find_shortcuts(opened: OpenProject, kind: str) -> None:
    """What the model allows is found out before anything is counted: all of it."""
    shortcuts = shortcuts_for(opened.routed.base, opened.routed.tuner, encoded(opened, kind))
    most = Shortcuts(
        fixed_part=True, last_block=True, few_logits=True, head_in_parts=kind != "pico_bert", tree=None
    )
    assert replace(shortcuts, tree=None) == most
    assert (shortcuts.tree is not None) == (kind in DECODERS)


def tree_of(edits: list[EncodedEdit]) -> TokenTree:
    return TokenTree.of(edits, shared_beginning(edits))


@pytest.mark.parametrize(("kind", "targets"), CASES)
def test_the_losses_are_those_of_the_plain_loop(pico: Pico, kind: str, targets: str) -> None:
    opened = opened_with(pico, kind, targets)
    edits = encoded(opened, kind)
    routed = opened.routed
    block = train_block(routed.base, routed.tuner, edits, opened.recipe.training, rank=2, scale=4.0, seed=3)
    assert abs(block.losses[-1] - block.losses[0]) > 1e-2
    np.testing.assert_allclose(block.losses, plain_losses(opened, edits), atol=5e-4, rtol=0)


@pytest.mark.parametrize(
    ("kind", "targets", "once", "always"),
    [
        (
            "pico_t5",
            "auto",
            ["encoder.block.1", "encoder.block.2.layer.0", "decoder.block.0.layer.0"],
            ["decoder.block.0"],
        ),
        ("pico_t5", r"decoder\.block\.2\..*wo", ["encoder", "decoder.block.1"], ["decoder.block.2"]),
        ("pico_gpt2", "auto", ["transformer.h.1", "transformer.h.2.attn"], ["transformer.h.2"]),
        ("pico_llama", "auto", ["model.layers.1", "model.layers.2.self_attn"], ["model.layers.2"]),
        (
            "pico_bert",
            "auto",
            ["bert.encoder.layer.0", "bert.encoder.layer.1.intermediate"],
            ["bert.encoder.layer.1"],
        ),
    ],
)
def test_what_lies_before_the_first_target_runs_once(
    pico: Pico, kind: str, targets: str, once: list[str], always: list[str]
) -> None:
    opened = opened_with(pico, kind, targets)
    find_shortcuts(opened, kind)
    training, routed, edits = opened.recipe.training, opened.routed, encoded(opened, kind)
    positions: dict[str, list[int]] = defaultdict(list)
    for name in (*once, *always):
        module = routed.base.model.get_submodule(name)
        inner = next(part for part in module.modules() if not list(part.children()))
        inner = module if name in always else inner
        inner.register_forward_pre_hook(
            lambda _, args, name=name: positions[name].append(args[0].shape[:2].numel())
        )
    train_block(routed.base, routed.tuner, edits, training, rank=2, scale=4.0, seed=3)
    for name in once:
        if kind in DECODERS:
            assert sum(positions[name]) == len(tree_of(edits))
        else:
            assert len(positions[name]) == 1
    for name in always:  # a tree's beginning, if it has one, and the rest of it are read up to a target in it
        assert len(positions[name]) == STEPS + (1 + bool(tree_of(edits).shared)) * (kind in DECODERS)


@pytest.mark.parametrize(
    ("kind", "targets", "part"),
    [
        ("pico_gpt2", "auto", "transformer.h.3.mlp.c_proj"),
        ("pico_gpt2", r"transformer\.h\.[23]\..*\.c_.*", "transformer.h.3.attn.c_proj.base_layer"),
        ("pico_llama", "auto", "model.layers.3.mlp.down_proj"),
        ("pico_bert", "auto", "bert.encoder.layer.3.intermediate.dense"),
        ("pico_bert", "auto", "bert.encoder.layer.3.output.dense"),
    ],
)
def test_the_last_block_is_run_where_it_is_read(pico: Pico, kind: str, targets: str, part: str) -> None:
    opened = opened_with(pico, kind, targets)
    routed, edits = opened.routed, encoded(opened, kind)
    find_shortcuts(opened, kind)
    seen: list[int] = []
    module = routed.base.model.get_submodule(part)
    module.register_forward_pre_hook(lambda _, args: seen.append(args[0].shape[1]))
    training = opened.recipe.training
    train_block(routed.base, routed.tuner, edits, training, rank=2, scale=4.0, seed=3)
    whole = max(len(edit.prompt_ids) for edit in edits)
    read = 1  # the first token's state, by which a classifier goes
    if kind in DECODERS:  # what is read is known before the first pass: the tree's last nodes
        whole, read = len(tree_of(edits)), tree_of(edits).read
    assert seen[1:] == [read] * (STEPS - 1)
    assert seen[0] == (read if kind in DECODERS else whole)
    assert read < whole


class Mlp(nn.Module):
    """Gives more than its states where asked, as a mixture of experts does."""

    def __init__(self, *, gives_more: bool) -> None:
        super().__init__()
        self.inner, self.gives_more = nn.Linear(4, 4), gives_more

    def forward(self, x: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, int]:
        states: torch.Tensor = self.inner(x)
        return (states, 1) if self.gives_more else states


class Residual(nn.Module):
    def __init__(self, *, gives_more: bool) -> None:
        super().__init__()
        self.mlp = Mlp(gives_more=gives_more)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        output = self.mlp(x)
        result: torch.Tensor = x + (output[0] if isinstance(output, tuple) else output)
        return result


class OneBlock(nn.Module):
    """Logits of some positions."""

    def __init__(self, read: slice, *, gives_more: bool) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([Residual(gives_more=gives_more)])
        self.head = nn.Linear(4, 3)
        self.read = read

    def forward(self, x: torch.Tensor) -> SimpleNamespace:
        return SimpleNamespace(logits=self.head(self.blocks[0](x)[:, self.read]))


@pytest.mark.parametrize(
    ("gives_more", "read", "lengths"),
    [
        (False, slice(1, 3), [5, 2, 2]),
        (False, slice(None), [5, 5, 5]),
        (True, slice(1, 3), [5, 5, 5]),
    ],
)
def test_logits_are_the_same_at_every_pass_even_where_the_loss_has_no_gradient(
    *, gives_more: bool, read: slice, lengths: list[int]
) -> None:
    torch.manual_seed(0)
    model, x = OneBlock(read, gives_more=gives_more), torch.randn(2, 5, 4)
    expected = model(x).logits
    seen: list[int] = []
    inner = model.get_submodule("blocks.0.mlp.inner")
    inner.register_forward_pre_hook(lambda _, args: seen.append(args[0].shape[1]))
    with last_block_where_read(model):
        for _ in range(3):
            logits = model(x).logits
            torch.testing.assert_close(logits, expected, rtol=0, atol=1e-6)
            logits[:, 0].sum().backward()
    assert seen == lengths


def test_a_last_block_that_the_logits_do_not_come_from_runs_as_always() -> None:
    torch.manual_seed(0)
    model, x = OneBlock(slice(None), gives_more=False), torch.randn(2, 5, 4)
    beside = Residual(gives_more=False)
    model.beside = nn.ModuleList([beside])  # the last stack, and no way to the answer

    def run_beside(*_: object) -> None:
        beside(x)

    model.blocks[0].register_forward_hook(run_beside)
    with last_block_where_read(model):
        expected = model(x).logits
        torch.testing.assert_close(model(x).logits, expected, rtol=0, atol=0)


def test_a_failed_step_leaves_the_model_as_it_was(pico: Pico) -> None:
    opened = opened_with(pico, "pico_gpt2", "auto")
    model = opened.routed.base.model
    edits = encoded(opened, "pico_gpt2")
    training = opened.recipe.training

    def stop(_loss: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_block(
            opened.routed.base, opened.routed.tuner, edits, training, rank=2, scale=4.0, seed=3, on_step=stop
        )
    assert not any("forward" in vars(module) for module in model.modules())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


class Odd(nn.Module):
    """Runs `shared` before and after the trained part, writes into what `written` gave."""

    def __init__(self) -> None:
        super().__init__()
        self.shared, self.written, self.plain = (nn.Linear(4, 4).requires_grad_(False) for _ in range(3))
        self.trained = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = self.written(self.plain(self.shared(x)))
        hidden += 1
        result: torch.Tensor = self.shared(self.trained(hidden))
        return result


def test_modules_that_cannot_be_run_once_run_every_time() -> None:
    torch.manual_seed(0)
    model, x = Odd(), torch.randn(2, 4)
    expected = model(x)
    with frozen_prefix_run_once(model):
        for _ in range(3):
            torch.testing.assert_close(model(x), expected, rtol=0, atol=0)
        replaced = [name for name, module in model.named_children() if "forward" in vars(module)]
    assert replaced == ["plain"]
    assert "forward" not in vars(model.plain)


def test_gelu_new_is_one_operation_while_training_and_the_models_own_after(pico: Pico) -> None:
    opened = opened_with(pico, "pico_gpt2", "auto")
    act = opened.routed.base.model.transformer.h[3].mlp.act
    x = torch.linspace(-6, 6, 101, requires_grad=True)
    own = act(x)
    with fused_activations(opened.routed.base.model):
        fused = act(x)
        assert type(fused.grad_fn).__name__ == "GeluBackward0"
    torch.testing.assert_close(fused, own, rtol=1e-5, atol=1e-6)
    assert type(act(x).grad_fn).__name__ != "GeluBackward0"
