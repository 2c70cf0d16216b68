"""Runs the frozen prefix of a model once, and only the rest at every step."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

_PLAIN = (bool, int, float, str, torch.dtype, torch.device, type(None))


@contextmanager
def frozen_prefix_run_once(model: nn.Module) -> Iterator[None]:
    """Inside the block, passes over one and the same batch run only what depends on trained parameters.

    The first pass is an ordinary one. A module that took and gave nothing that requires a gradient lies
    before every trained parameter, so it would give the same again: from the second pass on it hands out
    what it gave, and its own modules do not run. That holds for the blocks before the first target, for
    an encoder of which the decoder alone is edited, and for the attention of the first edited block, in any
    architecture; a module that is not known to be fixed runs as always. Memory: one output for each
    outermost fixed module, a hidden state for each block before the first target.

    The model must be in evaluation mode, be given the same inputs at every pass, and keep no cache of keys
    and values. On leaving, whatever happened, it is as it was.
    """
    with ExitStack() as undo:
        first = FirstPass()
        hooks = [module.register_forward_hook(first.see, with_kwargs=True) for module in model.modules()]

        def replay(*_: Any) -> None:
            _remove(hooks)
            for module, output in first.fixed():
                undo.enter_context(replaced_forward(module, partial(hand_out, output)))

        hooks.append(model.register_forward_hook(replay))
        undo.callback(_remove, hooks)
        yield


@dataclass(frozen=True)
class _Output:
    """What a fixed module gave, with the write counts of its tensors."""

    value: Any
    written: tuple[int, ...]

    @classmethod
    def of(cls, value: Any) -> _Output:
        return cls(value, _write_counts(value))

    @property
    def is_intact(self) -> bool:
        """False where a later module wrote into it: it would not be the same to hand out again."""
        return _write_counts(self.value) == self.written


@dataclass
class FirstPass:
    """Finds the outermost fixed modules while an ordinary pass runs."""

    _outputs: dict[nn.Module, _Output] = field(default_factory=dict)
    _ran: set[nn.Module] = field(default_factory=set)

    def see(self, module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        """A forward hook: modules inside a module come before it."""
        if module in self._ran:
            # It has two outputs a pass, one of which may not be fixed: let it run.
            self._outputs.pop(module, None)
            return
        self._ran.add(module)
        if all(_is_fixed(value) for value in (args, kwargs, output)):
            for inner in module.modules():
                self._outputs.pop(inner, None)
            self._outputs[module] = _Output.of(output)

    def fixed(self) -> Iterator[tuple[nn.Module, Any]]:
        """The outermost fixed modules with what they gave."""
        for module, output in self._outputs.items():
            if output.is_intact:
                yield module, output.value


def _is_fixed(value: Any) -> bool:
    """Whether no tensor inside depends on a trained parameter; an object of unknown kind might hide one."""
    if isinstance(value, Tensor):
        return not value.requires_grad
    if isinstance(value, Mapping):
        return all(_is_fixed(item) for item in value.values())
    if isinstance(value, list | tuple):
        return all(_is_fixed(item) for item in value)
    return isinstance(value, _PLAIN)


def _write_counts(value: Any) -> tuple[int, ...]:
    if isinstance(value, Tensor):
        return (value._version,)
    items = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ()
    return tuple(count for item in items for count in _write_counts(item))


@contextmanager
def replaced_forward(module: nn.Module, forward: Callable[..., Any]) -> Iterator[None]:
    """Put another forward on one module, over that of its class or an earlier one, inside the block."""
    own: Callable[..., Any] | None = vars(module).get("forward")
    setattr(module, "forward", forward)  # noqa: B010  (mypy refuses an assignment)
    try:
        yield
    finally:
        if own is None:
            del module.forward
        else:
            setattr(module, "forward", own)  # noqa: B010


def hand_out(output: Any, *_args: Any, **_kwargs: Any) -> Any:
    """A forward that gives `output`, whatever it is given."""
    return output


def _remove(hooks: list[Any]) -> None:
    while hooks:
        hooks.pop().remove()
