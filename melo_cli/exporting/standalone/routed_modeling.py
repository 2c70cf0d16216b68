"""Opens a folder that `melo export --format routed` wrote, with torch and transformers alone.

    AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True)

gives the base model's own class with routing. Its call and `generate` answer each prompt with the edit in
whose scope the prompt lies, and every other prompt as the base does. The route depends on the prompt's text
alone; of a conversation, on the last user turn. It is fixed before the first layer runs for the answer, and
holds for every step, beam and sample. `model.routes` has the routes of the last call.
"""

from __future__ import annotations

import copy
import functools
import inspect
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import torch
import transformers
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers.utils.hub import cached_file

# These lie beside this file where it is used; in melo they are in melo_cli/scope/core.
from .exported import ARRAYS, TABLE, open_router  # type: ignore[import-not-found]
from .rules import Route  # type: ignore[import-not-found]
from .turns import LastUserTurn  # type: ignore[import-not-found]

ROUTER = "router"
BLOCKS = "blocks.safetensors"

_IGNORED = -100
_BY_TOKEN = ("input_ids", "attention_mask", "token_type_ids")
_HUB_OPTIONS = ("cache_dir", "force_download", "local_files_only", "proxies", "revision", "token")


class Blocks:
    """All blocks, by target module, and those that are active in the current pass.

    Args:
        arrays: for each module `<module>.A [n, rank, in]`, `<module>.B [n, out, rank]` and
            `<module>.scale [n]`, float32.
    """

    def __init__(self, arrays: Mapping[str, Tensor]) -> None:
        self.modules = sorted(name.removesuffix(".scale") for name in arrays if name.endswith(".scale"))
        self._arrays = arrays
        self._rows: Tensor | None = None
        self._banks: dict[str, tuple[Tensor, Tensor, Tensor]] = {}

    @property
    def in_force(self) -> bool:
        """Whether a routed call is running."""
        return self._rows is not None

    @contextmanager
    def using(self, blocks: Sequence[int | None]) -> Iterator[None]:
        """Inside the `with` statement, row `i` of every pass uses the block `blocks[i]`; None is the base."""
        before = self._rows, self._banks
        entries = {block: i for i, block in enumerate(dict.fromkeys(b for b in blocks if b is not None))}
        self._rows = torch.tensor([entries[block] if block is not None else -1 for block in blocks])
        self._banks = {name: self._bank(name, list(entries)) for name in self.modules} if entries else {}
        try:
            yield
        finally:
            self._rows, self._banks = before

    def _bank(self, module: str, blocks: list[int]) -> tuple[Tensor, Tensor, Tensor]:
        A, B, scale = (self._arrays[f"{module}.{part}"][blocks] for part in ("A", "B", "scale"))
        return A, B, scale

    def add(self, module: str, x: Tensor, result: Tensor) -> Tensor:
        """`result` with `scale * B A x` added on the rows that were routed to a block."""
        if self._rows is None or not self._banks:
            return result
        copies, rest = divmod(x.shape[0], len(self._rows))
        if rest:
            raise ValueError(f"{x.shape[0]} rows are no multiple of {len(self._rows)} routed prompts")
        # Generation puts the beams or samples of one prompt side by side.
        rows = self._rows.repeat_interleave(copies).to(x.device)
        fired = (rows >= 0).nonzero().squeeze(-1)
        A, B, scale = (part.to(x.device)[rows[fired]] for part in self._banks[module])
        inputs = x[fired]
        flat = inputs.reshape(len(fired), -1, inputs.shape[-1]).to(A.dtype)
        low = torch.bmm(flat, A.transpose(1, 2)) * scale.view(-1, 1, 1)
        delta = torch.bmm(low, B.transpose(1, 2)).reshape(*inputs.shape[:-1], -1)
        return result.index_add(0, fired, delta.to(result.dtype))


class _AddBlocks:
    """The forward hook of one target module."""

    def __init__(self, blocks: Blocks, module: str) -> None:
        self._blocks = blocks
        self._module = module

    def __call__(self, _module: nn.Module, arguments: tuple[Any, ...], output: Tensor) -> Tensor:
        return self._blocks.add(self._module, arguments[0], output)


class RoutedMixin:
    """The methods that a routed model adds to its transformers class; see `routed_class`."""

    def open_router(self: Any, folder: Path, tokenizer: Any, auto_class: str) -> None:
        """Read the router and the blocks in `folder`, and put the blocks over the target modules."""
        self._folder = folder
        self._tokenizer = tokenizer
        self._auto_name = auto_class
        self._table = json.loads((folder / TABLE).read_text(encoding="utf-8"))
        self._block_of = {each["adapter"]: each["block"] for each in self._table["neurons"]}
        self._router = open_router(folder, self, tokenizer, self._read)
        self._turns = LastUserTurn(tokenizer)
        self._blocks = Blocks(load_file(folder / BLOCKS))
        self.routes: list[Route] = []
        for name in self._blocks.modules:
            self.get_submodule(name).register_forward_hook(_AddBlocks(self._blocks, name))

    @torch.no_grad()
    def route(self: Any, input_ids: Tensor, attention_mask: Tensor | None = None) -> list[Route]:
        """The routes of prompts `[batch, length]` int64, padded on either side; `fired` is None for the
        base."""
        mask = self._mask(input_ids, attention_mask).bool()
        texts = [self._turns.text(row[real].tolist()) for row, real in zip(input_ids, mask, strict=True)]
        routes: list[Route] = self._router.routes(texts)
        return routes

    @torch.no_grad()
    def generate(
        self: Any,
        inputs: Tensor | None = None,
        *arguments: Any,
        attention_mask: Tensor | None = None,
        routes: Sequence[Route] | None = None,
        **kwargs: Any,
    ) -> Any:
        """Routed generation with transformers' arguments.

        Args:
            routes: routes to use instead of looking them up.

        Raises:
            ValueError: there are no tokens to route by.
        """
        input_ids = kwargs.pop("input_ids", None) if inputs is None else inputs
        if input_ids is None:
            raise ValueError(
                "a routed model needs input_ids to generate: the route depends on the prompt's tokens"
            )
        mask = self._mask(input_ids, attention_mask)
        self.routes = self.route(input_ids, mask) if routes is None else list(routes)
        side = "right" if self.config.is_encoder_decoder else "left"
        padded = _padded({"input_ids": input_ids, "attention_mask": mask}, side)
        kwargs.setdefault("pad_token_id", self._table["tokenizer"]["pad_token_id"])
        with self._blocks.using(self._in_force()):
            return super().generate(None, *arguments, **padded, **kwargs)  # type: ignore[misc]

    def save_pretrained(self: Any, save_directory: str | Path, **kwargs: Any) -> None:
        """Save the base's weights and tokenizer, and the router and the code beside them."""
        super().save_pretrained(save_directory, **kwargs)  # type: ignore[misc]
        i = Path(save_directory)
        self._tokenizer.save_pretrained(i)
        shutil.copytree(self._folder, i / ROUTER, dirs_exist_ok=True)
        for path in Path(__file__).parent.glob("[!_]*.py"):
            shutil.copyfile(path, i / path.name)
        settings = i / "config.json"
        config = json.loads(settings.read_text(encoding="utf-8")) | {"auto_map": auto_map(self._auto_name)}
        settings.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")

    def _read(self: Any, **inputs: Any) -> Any:
        """The base's own forward, as far as it reads a prompt."""
        return self.get_encoder()(**inputs) if self.config.is_encoder_decoder else super().forward(**inputs)  # type: ignore[misc]

    def _in_force(self: Any) -> list[int | None]:
        return [None if each.fired is None else self._block_of[each.fired.block] for each in self.routes]

    def _routed_forward(self: Any, unrouted_forward: Any, inputs: dict[str, Any]) -> Any:
        """One forward pass, routed unless it is a step of a generation that was."""
        routes = inputs.pop("routes", None)
        if self._blocks.in_force:
            return unrouted_forward(self, **inputs)
        if routes is None:
            routes = self.route(*self._prompt(inputs))
        self.routes = list(routes)
        if inputs.get("input_ids") is not None:
            inputs = self._prepared(inputs)
        with self._blocks.using(self._in_force()):
            return unrouted_forward(self, **inputs)

    def _prompt(self: Any, inputs: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
        """Tokens of the prompts and which are real; a causal row's prompt ends where its labels begin."""
        cache = inputs.get("past_key_values")
        if inputs.get("input_ids") is None or (cache is not None and cache.get_seq_length()):
            raise ValueError(
                "the call has no prompt to route: pass routes=model.routes, the routes of the previous call"
            )
        mask = self._mask(inputs["input_ids"], inputs.get("attention_mask"))
        labels = inputs.get("labels")
        if labels is None or self._auto_name != "AutoModelForCausalLM":
            return inputs["input_ids"], mask
        prompt = mask.masked_fill((labels != _IGNORED).long().cumsum(-1) > 0, 0)
        if not bool(prompt.any(-1).all()):
            raise ValueError(
                "a row has no prompt to route: set the labels of the prompt's tokens to -100, or pass routes="
            )
        return inputs["input_ids"], prompt

    def _prepared(self: Any, inputs: dict[str, Any]) -> dict[str, Any]:
        """The call's inputs with mask and positions filled in, and padding where it does no harm."""
        mask = self._mask(inputs["input_ids"], inputs.get("attention_mask"))
        inputs = inputs | {"attention_mask": mask}
        if self._auto_name != "AutoModelForCausalLM":
            by_token = {name: inputs[name] for name in _BY_TOKEN if inputs.get(name) is not None}
            inputs = inputs | _padded(by_token, "right")
        return inputs if inputs.get("past_key_values") is not None else self._with_positions(inputs)

    def _mask(self: Any, input_ids: Tensor, attention_mask: Tensor | None) -> Tensor:
        if attention_mask is not None:
            return attention_mask
        special = self._table["tokenizer"]
        # Where the end token is also the padding token, tokens alone do not show which is which.
        if special["pad_token_id"] == special["eos_token_id"]:
            return torch.ones_like(input_ids)
        return input_ids.ne(special["pad_token_id"]).long()

    def _with_positions(self: Any, inputs: dict[str, Any]) -> dict[str, Any]:
        """Add position ids that count real tokens only, so that padding on the left changes nothing."""
        if self._table["base"]["takes_positions"] and inputs.get("position_ids") is None:
            inputs = inputs | {"position_ids": (inputs["attention_mask"].cumsum(-1) - 1).clamp(min=0)}
        return inputs


class _RoutedAuto:
    """Stands in for the model class that transformers looks for in this file."""

    auto_class: ClassVar[Any]

    @classmethod
    def register_for_auto_class(cls, auto_class: Any) -> None:
        """Called by transformers; nothing needs to be stored."""

    @classmethod
    def from_pretrained(cls, path: str, *arguments: Any, config: Any, **kwargs: Any) -> Any:
        """Load the base as its own class does, and open the router over it."""
        unrouted_forward = copy.deepcopy(config)
        del unrouted_forward.auto_map
        kwargs["trust_remote_code"] = False
        loaded = cls.auto_class.from_pretrained(path, *arguments, config=unrouted_forward, **kwargs)
        model = loaded[0] if isinstance(loaded, tuple) else loaded
        options = {name: kwargs[name] for name in _HUB_OPTIONS if name in kwargs}
        base_class: Any = type(model)
        model.__class__ = routed_class(base_class)
        tokenizer = transformers.AutoTokenizer.from_pretrained(path, **options)
        model.open_router(_router_folder(path, options), tokenizer, cls.auto_class.__name__)
        return loaded


class RoutedForCausalLM(_RoutedAuto):
    """A decoder-only language model."""

    auto_class = transformers.AutoModelForCausalLM


class RoutedForSeq2SeqLM(_RoutedAuto):
    """An encoder-decoder language model."""

    auto_class = transformers.AutoModelForSeq2SeqLM


class RoutedForSequenceClassification(_RoutedAuto):
    """A sequence classifier."""

    auto_class = transformers.AutoModelForSequenceClassification


def auto_map(auto_class: str) -> dict[str, str]:
    """What config.json says so that `auto_class` finds the code in this file."""
    return {auto_class: f"routed_modeling.{auto_class.replace('AutoModel', 'Routed')}"}


@functools.cache
def routed_class(base: Any) -> Any:
    """The transformers class with routing over it; its forward shows the signature of the base's own."""
    unrouted_forward = base.forward
    names = list(inspect.signature(unrouted_forward).parameters)[1:]

    @functools.wraps(unrouted_forward)
    def forward(self: Any, *arguments: Any, **kwargs: Any) -> Any:
        return self._routed_forward(unrouted_forward, dict(zip(names, arguments, strict=False)) | kwargs)

    return type(f"Routed{base.__name__}", (RoutedMixin, base), {"forward": forward, "__module__": __name__})


def _router_folder(path: str, options: Mapping[str, Any]) -> Path:
    """The folder of the router's files, all of them here: a repository's are fetched into the cache."""
    table = Path(str(cached_file(path, f"{ROUTER}/{TABLE}", **options)))
    encoder = json.loads(table.read_text(encoding="utf-8"))["encoder"] or {"files": [], "folder": ""}
    for name in (ARRAYS, BLOCKS, *(f"{encoder['folder']}/{name}" for name in encoder["files"])):
        cached_file(path, f"{ROUTER}/{name}", **options)
    return table.parent


def _padded(inputs: Mapping[str, Tensor], side: str) -> dict[str, Tensor]:
    """Move each row's padding to one side, keeping the order of its tokens."""
    order = inputs["attention_mask"].argsort(dim=-1, descending=side == "right", stable=True)
    return {name: value.gather(-1, order) for name, value in inputs.items()}
